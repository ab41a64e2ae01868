-- Whom somebody else removed from a group or channel: a link lets them in no more; who manages it may.
CREATE TABLE removed_participants (
    conversation_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    removed_at INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
) WITHOUT ROWID;

CREATE INDEX removed_participants_by_user ON removed_participants (user_id);
