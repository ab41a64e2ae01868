CREATE TABLE polls (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL,
    question TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE choices (
    poll_id TEXT NOT NULL REFERENCES polls (id),
    place INTEGER NOT NULL,
    text TEXT NOT NULL,
    votes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (poll_id, place)
) STRICT;

CREATE TABLE votes (
    poll_id TEXT NOT NULL REFERENCES polls (id),
    user_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (poll_id, user_id)
) STRICT;

CREATE TABLE handled_events (event_id TEXT PRIMARY KEY, handled_at INTEGER NOT NULL) STRICT;
CREATE INDEX handled_events_by_time ON handled_events (handled_at);
