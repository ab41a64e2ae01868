-- The messages of a conversation that its owner has ended are emptied, some at a time: how far that came, and when all were.

ALTER TABLE conversations ADD COLUMN emptied_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN emptied_at TIMESTAMPTZ;

CREATE INDEX conversations_to_empty ON conversations (ended_at) WHERE ended_at IS NOT NULL AND emptied_at IS NULL;
