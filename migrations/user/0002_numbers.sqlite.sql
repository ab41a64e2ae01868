-- Who may add a user to groups; which numbers a person tested, and how many in a day.

ALTER TABLE profiles ADD COLUMN added_by TEXT NOT NULL DEFAULT 'everyone' CHECK (added_by IN ('everyone', 'contacts', 'nobody'));

-- Keyed hashes: the numbers themselves are kept of users alone, in their profiles.
CREATE TABLE tested_numbers (
    owner_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    tested_at INTEGER NOT NULL,
    -- In the owner's address book, so that its owner may find this one by number as a contact may.
    in_book INTEGER NOT NULL,
    PRIMARY KEY (owner_id, fingerprint)
) WITHOUT ROWID;

CREATE INDEX tested_numbers_by_time ON tested_numbers (owner_id, tested_at);

CREATE TABLE number_quotas (
    owner_id TEXT PRIMARY KEY,
    day_started_at INTEGER NOT NULL,
    tested INTEGER NOT NULL
) WITHOUT ROWID;
