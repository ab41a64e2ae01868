-- Accounts that their owners deleted, or have back. One that is erased is in here no more.
CREATE TABLE account_states (
    user_id TEXT PRIMARY KEY,
    deleted INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) WITHOUT ROWID;
