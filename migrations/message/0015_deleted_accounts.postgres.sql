-- Accounts that their owners deleted, or have back. One that is erased is in here no more.
CREATE TABLE account_states (
    user_id UUID PRIMARY KEY,
    deleted BOOLEAN NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL
);
