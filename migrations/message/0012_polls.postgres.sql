-- Polls: a message of that type has its question as content.

-- The type where `kind` knows none for it (its CHECK is of the first version): 'poll', with the kind 'text'.
ALTER TABLE messages ADD COLUMN other_kind TEXT;

CREATE TABLE polls (
    message_id UUID PRIMARY KEY REFERENCES messages (id),
    multiple BOOLEAN NOT NULL,
    closes_at TIMESTAMPTZ,
    closed_at TIMESTAMPTZ
);

CREATE TABLE poll_options (
    message_id UUID NOT NULL REFERENCES messages (id),
    -- From 0.
    number BIGINT NOT NULL,
    wording TEXT NOT NULL,
    PRIMARY KEY (message_id, number)
);

CREATE TABLE poll_votes (
    message_id UUID NOT NULL REFERENCES messages (id),
    user_id UUID NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (message_id, user_id, number)
);

CREATE INDEX poll_votes_by_option ON poll_votes (message_id, number);
