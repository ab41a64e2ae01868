-- When a push is sent, by which provider, and how often it was tried. It is its user's: a token that another account registered gets none of it.

ALTER TABLE outbox ADD COLUMN provider TEXT;
ALTER TABLE outbox ADD COLUMN conversation_id TEXT;
ALTER TABLE outbox ADD COLUMN user_id TEXT;
ALTER TABLE outbox ADD COLUMN token_hash TEXT;
ALTER TABLE outbox ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;

-- When it is sent, or again; none where it is not to be sent, or was.
ALTER TABLE outbox ADD COLUMN send_at INTEGER;

CREATE INDEX outbox_to_send ON outbox (send_at) WHERE send_at IS NOT NULL;
CREATE INDEX outbox_by_token ON outbox (token_hash) WHERE token_hash IS NOT NULL;
