-- The end of sessions whose time is over is found by their time.

CREATE INDEX sessions_by_end ON sessions (expires_at);
