-- Push devices, messages whose acknowledgement is awaited, what was decided, and what is to leave.

CREATE TABLE devices (
    -- SHA-256 of the token, in hexadecimal: a token may be longer than an index entry.
    token_hash TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    user_id UUID NOT NULL,
    provider TEXT NOT NULL CHECK (provider IN ('fcm', 'apns', 'webpush')),
    platform TEXT,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX devices_by_user ON devices (user_id, created_at);

CREATE TABLE awaited_messages (
    message_id UUID PRIMARY KEY,
    conversation_id UUID NOT NULL,
    sender_id UUID NOT NULL,
    -- User ids, separated by spaces; the muted are among the recipients.
    recipient_ids TEXT NOT NULL,
    muted_ids TEXT NOT NULL,
    preview TEXT,
    sent_at TIMESTAMPTZ NOT NULL,
    due_at TIMESTAMPTZ NOT NULL,
    decided_at TIMESTAMPTZ
);

CREATE INDEX awaited_messages_due ON awaited_messages (due_at) WHERE decided_at IS NULL;

-- One line per recipient who was asked about. The others' are told from the message and the hub.
CREATE TABLE traces (
    message_id UUID NOT NULL,
    user_id UUID NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('acknowledged', 'pushed')),
    at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (message_id, user_id)
);

-- What is to leave. The id is the event's for text messages, so that an event handled twice sends once.
CREATE TABLE outbox (
    id UUID PRIMARY KEY,
    channel TEXT NOT NULL CHECK (channel IN ('sms', 'email', 'push')),
    recipient TEXT NOT NULL,
    title TEXT,
    body TEXT NOT NULL,
    -- A one-time code, kept in development mode alone.
    code TEXT,
    at TIMESTAMPTZ NOT NULL
);

CREATE INDEX outbox_by_time ON outbox (at, id);
