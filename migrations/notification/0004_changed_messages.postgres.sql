-- What a push shows is asked for when it is decided on, and goes with its message.

-- How often the message was changed: a decision that began before is not carried out.
ALTER TABLE awaited_messages ADD COLUMN changes INTEGER NOT NULL DEFAULT 0;

-- The message that a push is about.
ALTER TABLE outbox ADD COLUMN message_id UUID;

CREATE INDEX outbox_by_message ON outbox (message_id) WHERE message_id IS NOT NULL;
