-- What people want pushes of, why one got none, and the list of notifications in the app.

CREATE TABLE preferences (
    user_id TEXT PRIMARY KEY,
    messages TEXT NOT NULL CHECK (messages IN ('all', 'mentions', 'none')),
    previews INTEGER NOT NULL,
    -- Minutes since midnight, in the zone.
    quiet_from_minute INTEGER,
    quiet_to_minute INTEGER,
    timezone TEXT,
    changed_at INTEGER NOT NULL
) WITHOUT ROWID;

-- User ids, separated by spaces.
ALTER TABLE awaited_messages ADD COLUMN mentioned_ids TEXT NOT NULL DEFAULT '';

-- For the recipient's own eyes: the sender's line is the same as any other's.
ALTER TABLE traces ADD COLUMN reason TEXT CHECK (reason IN ('unwanted', 'quiet'));

CREATE TABLE entries (
    id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('mention', 'password-changed')),
    -- The message, or the event.
    about TEXT NOT NULL,
    conversation_id TEXT,
    sender_id TEXT,
    at INTEGER NOT NULL,
    is_read INTEGER NOT NULL,
    PRIMARY KEY (user_id, about)
) WITHOUT ROWID;

CREATE INDEX entries_by_user ON entries (user_id, id);
CREATE INDEX entries_by_subject ON entries (about);

-- Whether a push says what its message says, and changes with it.
ALTER TABLE outbox ADD COLUMN shows_text INTEGER NOT NULL DEFAULT 1;
