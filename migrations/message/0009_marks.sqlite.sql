-- What people put on messages and conversations: reactions, stars, drafts, marks.

CREATE TABLE reactions (
    message_id TEXT NOT NULL REFERENCES messages (id),
    user_id TEXT NOT NULL,
    -- Without variation selectors, so that all spellings of an emoji are one.
    emoji TEXT NOT NULL,
    -- As it was written.
    spelling TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (message_id, user_id, emoji)
) WITHOUT ROWID;

CREATE INDEX reactions_by_time ON reactions (message_id, created_at, user_id, emoji);

CREATE TABLE starred (
    user_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    starred_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, message_id)
) WITHOUT ROWID;

CREATE INDEX starred_by_time ON starred (user_id, starred_at, message_id);
CREATE INDEX starred_by_message ON starred (message_id);

-- One for each participant.
CREATE TABLE drafts (
    conversation_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    content TEXT NOT NULL,
    reply_to TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
) WITHOUT ROWID;

-- By the participant, until they read; what was read stays read.
ALTER TABLE participants ADD COLUMN marked_unread INTEGER NOT NULL DEFAULT 0;
