-- How many codes were sent, and asked for. Key: what is counted (a number for one purpose, an address, the host). Times are microseconds since 1970.

CREATE TABLE code_counts (
    key TEXT PRIMARY KEY,
    sent_at INTEGER NOT NULL,
    day_started_at INTEGER NOT NULL,
    sent_count INTEGER NOT NULL
) STRICT;
CREATE INDEX code_counts_by_time ON code_counts (sent_at);
