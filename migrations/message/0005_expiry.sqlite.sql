-- Messages are emptied when their time is over, whatever conversation they are in.

CREATE INDEX messages_by_expiry ON messages (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
