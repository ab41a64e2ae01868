CREATE TABLE polls (
    id UUID PRIMARY KEY,
    owner_id UUID NOT NULL,
    question TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE choices (
    poll_id UUID NOT NULL REFERENCES polls (id),
    place BIGINT NOT NULL,
    text TEXT NOT NULL,
    votes BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (poll_id, place)
);

CREATE TABLE votes (
    poll_id UUID NOT NULL REFERENCES polls (id),
    user_id UUID NOT NULL,
    place BIGINT NOT NULL,
    PRIMARY KEY (poll_id, user_id)
);

CREATE TABLE handled_events (event_id TEXT PRIMARY KEY, handled_at TIMESTAMPTZ NOT NULL);
CREATE INDEX handled_events_by_time ON handled_events (handled_at);
