-- The second factor of an account. The secret is a keyed hash of the seed; recovery codes are here as keyed hashes only.

CREATE TABLE second_factors (
    account_id UUID PRIMARY KEY REFERENCES accounts (id),
    seed TEXT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    confirmed_at TIMESTAMPTZ,
    -- Codes of this step of 30 seconds and of those before it are used.
    last_step BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX second_factors_unconfirmed ON second_factors (started_at) WHERE confirmed_at IS NULL;

CREATE TABLE recovery_codes (
    account_id UUID NOT NULL REFERENCES accounts (id),
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (account_id, fingerprint)
);

-- Of a sign-in with the right password: the code was missing or wrong; none where no code was wanted.
ALTER TABLE login_attempts ADD COLUMN second_factor TEXT CHECK (second_factor IN ('missing', 'wrong'));
