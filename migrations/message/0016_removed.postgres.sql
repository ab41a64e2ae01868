-- Whom somebody else removed from a group or channel: a link lets them in no more; who manages it may.
CREATE TABLE removed_participants (
    conversation_id UUID NOT NULL,
    user_id UUID NOT NULL,
    removed_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
);

CREATE INDEX removed_participants_by_user ON removed_participants (user_id);
