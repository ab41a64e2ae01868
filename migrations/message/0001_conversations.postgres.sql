-- Conversations, who takes part, and the messages in them.

CREATE TABLE conversations (
    id UUID PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('direct', 'group', 'channel')),
    -- The two users of a direct conversation, sorted: one conversation per pair, for ever.
    pair_key TEXT UNIQUE,
    title TEXT,
    description TEXT,
    created_by UUID NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    -- When the newest message came, or the conversation was made.
    active_at TIMESTAMPTZ NOT NULL,
    -- The seq of the newest message; the next one is taken by raising it.
    last_seq BIGINT NOT NULL DEFAULT 0,
    -- Rises with every change of participants and roles: a send that looked at an older roster looks again.
    roster_version BIGINT NOT NULL DEFAULT 1,
    -- Seconds.
    disappearing_after BIGINT,
    ended_at TIMESTAMPTZ
);

CREATE TABLE participants (
    conversation_id UUID NOT NULL REFERENCES conversations (id),
    user_id UUID NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    joined_at TIMESTAMPTZ NOT NULL,
    -- Messages up to here were sent before this participant joined, and are not theirs to see.
    joined_seq BIGINT NOT NULL,
    -- Watermarks: everything up to there is delivered to a device, or read. They only rise.
    delivered_seq BIGINT NOT NULL,
    read_seq BIGINT NOT NULL,
    -- Not listed while nothing newer than this is there to see.
    hidden_seq BIGINT,
    muted_until TIMESTAMPTZ,
    archived BOOLEAN NOT NULL DEFAULT FALSE,
    pinned BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (conversation_id, user_id)
);

CREATE INDEX participants_by_user ON participants (user_id);

CREATE TABLE messages (
    id UUID PRIMARY KEY,
    conversation_id UUID NOT NULL REFERENCES conversations (id),
    seq BIGINT NOT NULL,
    sender_id UUID NOT NULL,
    client_message_id TEXT NOT NULL,
    -- SHA-256 of everything that was sent, to tell a repetition from another message under the same id.
    content_hash BYTEA NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('text', 'image', 'video', 'audio', 'document', 'location', 'contact')),
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
    reply_to UUID,
    thread_id UUID,
    -- User ids, separated by spaces.
    mentions TEXT,
    -- JSON as it was sent.
    metadata TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    edited_at TIMESTAMPTZ,
    edit_count BIGINT NOT NULL DEFAULT 0,
    deleted_at TIMESTAMPTZ,
    UNIQUE (conversation_id, seq),
    UNIQUE (sender_id, client_message_id)
);

CREATE INDEX messages_expiring ON messages (conversation_id, expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;

-- What one participant does not see of a conversation: sent while they blocked the sender, or deleted for themselves.
CREATE TABLE hidden_messages (
    conversation_id UUID NOT NULL,
    user_id UUID NOT NULL,
    seq BIGINT NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN ('blocked', 'deleted')),
    PRIMARY KEY (conversation_id, user_id, seq)
);

-- When a participant's watermark reached which message. The time of one message is that of the lowest mark at or above it.
CREATE TABLE receipt_marks (
    conversation_id UUID NOT NULL,
    user_id UUID NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('delivered', 'read')),
    up_to_seq BIGINT NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (conversation_id, user_id, kind, up_to_seq)
);

-- Earlier contents of edited messages.
CREATE TABLE edits (
    message_id UUID NOT NULL REFERENCES messages (id),
    number BIGINT NOT NULL,
    content TEXT NOT NULL,
    -- When this content was written.
    at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (message_id, number)
);

-- A copy of who blocks whom, fed by events of the user service. A row of an older revision never replaces a newer one.
CREATE TABLE blocks (
    user_id UUID NOT NULL,
    blocked_user_id UUID NOT NULL,
    active BOOLEAN NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (user_id, blocked_user_id)
);
