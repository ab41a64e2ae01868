-- How many codes were sent, and asked for. Key: what is counted (a number for one purpose, an address, the host).

CREATE TABLE code_counts (
    key TEXT PRIMARY KEY,
    sent_at TIMESTAMPTZ NOT NULL,
    day_started_at TIMESTAMPTZ NOT NULL,
    sent_count BIGINT NOT NULL
);
CREATE INDEX code_counts_by_time ON code_counts (sent_at);
