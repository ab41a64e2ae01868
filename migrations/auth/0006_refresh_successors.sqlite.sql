-- Which token a refresh token came of: while it is unused, the one before may be exchanged again.
ALTER TABLE refresh_tokens ADD COLUMN predecessor TEXT;
CREATE INDEX refresh_tokens_by_predecessor ON refresh_tokens (predecessor);
