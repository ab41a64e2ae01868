-- Account exports: one of an account, and which services said that their part of it can be read. What is exported is in none of them.
CREATE TABLE account_exports (
    account_id TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- When the services were asked last.
    asked_at INTEGER NOT NULL,
    -- When all had said so.
    ready_at INTEGER
) STRICT;
CREATE INDEX account_exports_to_renew ON account_exports (asked_at) WHERE ready_at IS NULL;
CREATE INDEX account_exports_by_end ON account_exports (expires_at);

CREATE TABLE account_export_parts (
    account_id TEXT NOT NULL,
    -- The service's.
    name TEXT NOT NULL,
    prepared_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, name)
) STRICT;
