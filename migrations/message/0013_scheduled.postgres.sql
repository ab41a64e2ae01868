-- Messages that are sent at their time, and links by which one joins a conversation.

CREATE TABLE scheduled (
    id UUID PRIMARY KEY,
    sender_id UUID NOT NULL,
    conversation_id UUID NOT NULL,
    client_message_id TEXT NOT NULL,
    -- Of what was asked for at first, to tell a repetition.
    content_hash BYTEA NOT NULL,
    -- Rises with every change: what is sent is what was read.
    revision BIGINT NOT NULL DEFAULT 1,
    kind TEXT NOT NULL,
    content TEXT,
    media_id UUID,
    latitude DOUBLE PRECISION,
    longitude DOUBLE PRECISION,
    place_name TEXT,
    place_address TEXT,
    contact_name TEXT,
    -- One per line.
    contact_phones TEXT,
    contact_user_id UUID,
    question TEXT,
    -- One per line.
    options TEXT,
    multiple BOOLEAN,
    closes_at TIMESTAMPTZ,
    reply_to UUID,
    thread_id UUID,
    -- User ids, separated by spaces.
    mentions TEXT,
    -- JSON as it was sent.
    metadata TEXT,
    send_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    -- Why it could not be sent: the error's code. It is not tried again.
    failure TEXT,
    UNIQUE (sender_id, client_message_id)
);

CREATE INDEX scheduled_by_time ON scheduled (send_at, id) WHERE failure IS NULL;
CREATE INDEX scheduled_by_sender ON scheduled (sender_id, send_at, id);
CREATE INDEX scheduled_by_conversation ON scheduled (conversation_id, sender_id);

CREATE TABLE invites (
    code TEXT PRIMARY KEY,
    conversation_id UUID NOT NULL REFERENCES conversations (id),
    created_by UUID NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    uses_max BIGINT,
    uses BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX invites_by_conversation ON invites (conversation_id, created_at, code);
