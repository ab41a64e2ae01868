-- Identities at other providers (OpenID Connect) with which an account's owner signs in: one for each provider. Issuer and subject are who it is. Times are
-- microseconds since 1970.

CREATE TABLE identities (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    provider TEXT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- As the provider had verified it; for the owner to know it by.
    email TEXT,
    linked_at INTEGER NOT NULL,
    last_used_at INTEGER,
    PRIMARY KEY (account_id, provider),
    UNIQUE (issuer, subject)
) STRICT;

-- Keyed hashes of ID Tokens, until they are refused for their age: each is good once.
CREATE TABLE used_id_tokens (
    fingerprint TEXT PRIMARY KEY,
    refused_from INTEGER NOT NULL
) STRICT;
CREATE INDEX used_id_tokens_by_end ON used_id_tokens (refused_from);

-- The provider that vouched for the person; none where a password was given.
ALTER TABLE login_attempts ADD COLUMN provider TEXT;
