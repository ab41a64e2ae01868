-- What happened, in numbers, and what is needed to count people once. Times are microseconds since 1970.

CREATE TABLE rollups (
    step TEXT NOT NULL CHECK (step IN ('minute', 'hour', 'day')),
    metric TEXT NOT NULL,
    -- When the minute, the hour or the day began.
    at INTEGER NOT NULL,
    -- A message's type, a country, a client event's name, a class of latencies; empty where there is none.
    label TEXT NOT NULL,
    events INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (step, metric, at, label)
) WITHOUT ROWID;

CREATE INDEX rollups_by_time ON rollups (step, at);

CREATE TABLE people (
    user_id TEXT PRIMARY KEY,
    -- The day of the registration, where it was counted.
    registered_on INTEGER,
    -- The minute in which the person was active last.
    active_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX people_by_activity ON people (active_at);

-- Of those who registered on a day, how many were active so many days later.
CREATE TABLE cohorts (
    registered_on INTEGER NOT NULL,
    day INTEGER NOT NULL,
    people INTEGER NOT NULL,
    PRIMARY KEY (registered_on, day)
) WITHOUT ROWID;

CREATE TABLE handled_events (
    event_id TEXT PRIMARY KEY,
    handled_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX handled_events_by_time ON handled_events (handled_at);
