-- When its owner deleted an account; it is erased a while later.
ALTER TABLE accounts ADD COLUMN deleted_at INTEGER;
CREATE INDEX accounts_by_deletion ON accounts (deleted_at) WHERE deleted_at IS NOT NULL;
