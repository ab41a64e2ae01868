-- What happened, in numbers, and what is needed to count people once.

CREATE TABLE rollups (
    step TEXT NOT NULL CHECK (step IN ('minute', 'hour', 'day')),
    metric TEXT NOT NULL,
    -- When the minute, the hour or the day began.
    at TIMESTAMPTZ NOT NULL,
    -- A message's type, a country, a client event's name, a class of latencies; empty where there is none.
    label TEXT NOT NULL,
    events BIGINT NOT NULL,
    total BIGINT NOT NULL,
    PRIMARY KEY (step, metric, at, label)
);

CREATE INDEX rollups_by_time ON rollups (step, at);

CREATE TABLE people (
    user_id UUID PRIMARY KEY,
    -- The day of the registration, where it was counted.
    registered_on TIMESTAMPTZ,
    -- The minute in which the person was active last.
    active_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX people_by_activity ON people (active_at);

-- Of those who registered on a day, how many were active so many days later.
CREATE TABLE cohorts (
    registered_on TIMESTAMPTZ NOT NULL,
    day INTEGER NOT NULL,
    people BIGINT NOT NULL,
    PRIMARY KEY (registered_on, day)
);

CREATE TABLE handled_events (
    event_id TEXT PRIMARY KEY,
    handled_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX handled_events_by_time ON handled_events (handled_at);
