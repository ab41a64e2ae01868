-- Accounts that their owners deleted and may still have back: to others there is no such user.
ALTER TABLE profiles ADD COLUMN deleted_at INTEGER;
-- Of the newest change that is known, so that a late event undoes nothing.
ALTER TABLE profiles ADD COLUMN state_changed_at INTEGER;
