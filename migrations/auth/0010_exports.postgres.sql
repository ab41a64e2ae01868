-- Account exports: one of an account, and which services said that their part of it can be read. What is exported is in none of them.
CREATE TABLE account_exports (
    account_id UUID PRIMARY KEY,
    id UUID NOT NULL,
    requested_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    -- When the services were asked last.
    asked_at TIMESTAMPTZ NOT NULL,
    -- When all had said so.
    ready_at TIMESTAMPTZ
);
CREATE INDEX account_exports_to_renew ON account_exports (asked_at) WHERE ready_at IS NULL;
CREATE INDEX account_exports_by_end ON account_exports (expires_at);

CREATE TABLE account_export_parts (
    account_id UUID NOT NULL,
    -- The service's.
    name TEXT NOT NULL,
    prepared_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (account_id, name)
);
