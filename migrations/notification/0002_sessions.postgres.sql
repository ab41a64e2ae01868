-- A push token belongs to a session and ends with it.

-- None for tokens that were registered before this was kept.
ALTER TABLE devices ADD COLUMN session_id UUID;

-- For a while after the end of a session: a request that was on its way registers no token for it.
CREATE TABLE ended_sessions (
    session_id UUID PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL
);

CREATE INDEX ended_sessions_by_time ON ended_sessions (at);
