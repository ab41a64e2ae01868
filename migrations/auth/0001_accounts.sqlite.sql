-- Accounts, one-time codes, sessions with their refresh tokens, and the history of sign-ins. Times are microseconds since 1970.

CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    phone TEXT NOT NULL UNIQUE,
    name TEXT,
    password_hash TEXT NOT NULL,
    verified INTEGER NOT NULL DEFAULT 0,
    country TEXT,
    region TEXT,
    timezone TEXT,
    created_at INTEGER NOT NULL,
    verified_at INTEGER
) STRICT;

-- The current password and those before it, so that none of them is taken again.
CREATE TABLE password_history (
    id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    password_hash TEXT NOT NULL,
    set_at INTEGER NOT NULL
) STRICT;
CREATE INDEX password_history_by_account ON password_history (account_id, set_at);

-- One live code for each number and purpose; the code itself is never here.
CREATE TABLE codes (
    phone TEXT NOT NULL,
    purpose TEXT NOT NULL CHECK (purpose IN ('verify', 'reset')),
    fingerprint TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (phone, purpose)
) STRICT;
CREATE INDEX codes_by_end ON codes (expires_at);

-- How often codes were asked for, also for numbers without an account: an unknown number is answered as a known one.
CREATE TABLE code_quotas (
    phone TEXT PRIMARY KEY,
    sent_at INTEGER NOT NULL,
    day_started_at INTEGER NOT NULL,
    sent_count INTEGER NOT NULL
) STRICT;
CREATE INDEX code_quotas_by_time ON code_quotas (sent_at);

-- Wrong passwords in a row, also for numbers without an account.
CREATE TABLE login_failures (
    phone TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    locked_until INTEGER
) STRICT;
CREATE INDEX login_failures_by_time ON login_failures (failed_at);

-- Live sessions; an ended one is gone. One for each device of an account.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    device_id TEXT NOT NULL,
    device_name TEXT,
    device_platform TEXT,
    device_model TEXT,
    device_os TEXT,
    app_version TEXT,
    place TEXT,
    address TEXT,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    UNIQUE (account_id, device_id)
) STRICT;

-- Used ones stay until they expire, so that a second use is noticed.
CREATE TABLE refresh_tokens (
    fingerprint TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    used_at INTEGER,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id, expires_at);

CREATE TABLE login_attempts (
    id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    at INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('succeeded', 'wrong_password', 'locked', 'unverified')),
    device_id TEXT NOT NULL,
    address TEXT,
    user_agent TEXT
) STRICT;
CREATE INDEX login_attempts_by_account ON login_attempts (account_id, at, id);
