-- The second factor of an account. The secret is a keyed hash of the seed; recovery codes are here as keyed hashes only. Times are microseconds since 1970.

CREATE TABLE second_factors (
    account_id TEXT PRIMARY KEY REFERENCES accounts (id),
    seed TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    confirmed_at INTEGER,
    -- Codes of this step of 30 seconds and of those before it are used.
    last_step INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX second_factors_unconfirmed ON second_factors (started_at) WHERE confirmed_at IS NULL;

CREATE TABLE recovery_codes (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (account_id, fingerprint)
) STRICT;

-- Of a sign-in with the right password: the code was missing or wrong; none where no code was wanted.
ALTER TABLE login_attempts ADD COLUMN second_factor TEXT CHECK (second_factor IN ('missing', 'wrong'));
