-- The messages of a thread, and what is pinned in a conversation.

CREATE INDEX messages_by_thread ON messages (thread_id, seq) WHERE thread_id IS NOT NULL;

CREATE TABLE pins (
    message_id UUID PRIMARY KEY REFERENCES messages (id),
    conversation_id UUID NOT NULL,
    pinned_by UUID NOT NULL,
    pinned_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX pins_by_conversation ON pins (conversation_id, pinned_at, message_id);
