-- What people want pushes of, why one got none, and the list of notifications in the app.

CREATE TABLE preferences (
    user_id UUID PRIMARY KEY,
    messages TEXT NOT NULL CHECK (messages IN ('all', 'mentions', 'none')),
    previews BOOLEAN NOT NULL,
    -- Minutes since midnight, in the zone.
    quiet_from_minute BIGINT,
    quiet_to_minute BIGINT,
    timezone TEXT,
    changed_at TIMESTAMPTZ NOT NULL
);

-- User ids, separated by spaces.
ALTER TABLE awaited_messages ADD COLUMN mentioned_ids TEXT NOT NULL DEFAULT '';

-- For the recipient's own eyes: the sender's line is the same as any other's.
ALTER TABLE traces ADD COLUMN reason TEXT CHECK (reason IN ('unwanted', 'quiet'));

CREATE TABLE entries (
    id UUID NOT NULL UNIQUE,
    user_id UUID NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('mention', 'password-changed')),
    -- The message, or the event.
    about UUID NOT NULL,
    conversation_id UUID,
    sender_id UUID,
    at TIMESTAMPTZ NOT NULL,
    is_read BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, about)
);

CREATE INDEX entries_by_user ON entries (user_id, id);
CREATE INDEX entries_by_subject ON entries (about);

-- Whether a push says what its message says, and changes with it.
ALTER TABLE outbox ADD COLUMN shows_text BOOLEAN NOT NULL DEFAULT TRUE;
