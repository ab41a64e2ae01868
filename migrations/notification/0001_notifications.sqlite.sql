-- Push devices, messages whose acknowledgement is awaited, what was decided, and what is to leave.

CREATE TABLE devices (
    -- SHA-256 of the token, in hexadecimal: a token may be longer than an index entry.
    token_hash TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    user_id TEXT NOT NULL,
    provider TEXT NOT NULL CHECK (provider IN ('fcm', 'apns', 'webpush')),
    platform TEXT,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX devices_by_user ON devices (user_id, created_at);

CREATE TABLE awaited_messages (
    message_id TEXT PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    sender_id TEXT NOT NULL,
    -- User ids, separated by spaces; the muted are among the recipients.
    recipient_ids TEXT NOT NULL,
    muted_ids TEXT NOT NULL,
    preview TEXT,
    sent_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    decided_at INTEGER
) WITHOUT ROWID;

CREATE INDEX awaited_messages_due ON awaited_messages (due_at) WHERE decided_at IS NULL;

-- One line per recipient who was asked about. The others' are told from the message and the hub.
CREATE TABLE traces (
    message_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('acknowledged', 'pushed')),
    at INTEGER NOT NULL,
    PRIMARY KEY (message_id, user_id)
) WITHOUT ROWID;

-- What is to leave. The id is the event's for text messages, so that an event handled twice sends once.
CREATE TABLE outbox (
    id TEXT PRIMARY KEY,
    channel TEXT NOT NULL CHECK (channel IN ('sms', 'email', 'push')),
    recipient TEXT NOT NULL,
    title TEXT,
    body TEXT NOT NULL,
    -- A one-time code, kept in development mode alone.
    code TEXT,
    at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX outbox_by_time ON outbox (at, id);
