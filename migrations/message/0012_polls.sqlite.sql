-- Polls: a message of that type has its question as content.

-- The type where `kind` knows none for it (its CHECK is of the first version): 'poll', with the kind 'text'.
ALTER TABLE messages ADD COLUMN other_kind TEXT;

CREATE TABLE polls (
    message_id TEXT PRIMARY KEY REFERENCES messages (id),
    multiple INTEGER NOT NULL,
    closes_at INTEGER,
    closed_at INTEGER
) WITHOUT ROWID;

CREATE TABLE poll_options (
    message_id TEXT NOT NULL REFERENCES messages (id),
    -- From 0.
    number INTEGER NOT NULL,
    wording TEXT NOT NULL,
    PRIMARY KEY (message_id, number)
) WITHOUT ROWID;

CREATE TABLE poll_votes (
    message_id TEXT NOT NULL REFERENCES messages (id),
    user_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (message_id, user_id, number)
) WITHOUT ROWID;

CREATE INDEX poll_votes_by_option ON poll_votes (message_id, number);
