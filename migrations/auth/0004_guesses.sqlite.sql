-- Guesses at passwords and codes, counted before they are looked at. Subject: what is guessed at, also of numbers without an account. Client: who
-- guesses; empty for all strangers together. Times are microseconds since 1970.

CREATE TABLE guesses (
    subject TEXT NOT NULL,
    client TEXT NOT NULL,
    failures INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    locked_until INTEGER,
    PRIMARY KEY (subject, client)
) STRICT;
CREATE INDEX guesses_by_time ON guesses (failed_at);

-- Devices that signed in, and from where: what strangers do is not counted against them.
CREATE TABLE known_devices (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    device_id TEXT NOT NULL,
    address TEXT NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, device_id, address)
) STRICT;
CREATE INDEX known_devices_by_time ON known_devices (seen_at);

-- Requests for a new password, each with its own code. Fingerprint: of the secret that the client holds. Without a code where none was sent.
CREATE TABLE resets (
    fingerprint TEXT PRIMARY KEY,
    phone TEXT NOT NULL,
    code_fingerprint TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX resets_by_phone ON resets (phone, expires_at);
CREATE INDEX resets_by_end ON resets (expires_at);
