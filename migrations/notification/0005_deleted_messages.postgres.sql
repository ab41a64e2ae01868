-- When a message was deleted for everyone: there was nothing to push then.
ALTER TABLE awaited_messages ADD COLUMN deleted_at TIMESTAMPTZ;
