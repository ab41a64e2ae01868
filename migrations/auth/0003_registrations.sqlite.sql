-- Registrations that wait for their code: each with its own password, name and code. An account is made when one is confirmed. The secret
-- that the client holds and the code are here as keyed hashes only. Times are microseconds since 1970.

CREATE TABLE registrations (
    fingerprint TEXT PRIMARY KEY,
    phone TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    name TEXT,
    country TEXT,
    region TEXT,
    timezone TEXT,
    address TEXT,
    code_fingerprint TEXT NOT NULL,
    code_expires_at INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    opened_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX registrations_by_phone ON registrations (phone, opened_at);
CREATE INDEX registrations_by_end ON registrations (expires_at);
