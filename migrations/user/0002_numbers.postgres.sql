-- Who may add a user to groups; which numbers a person tested, and how many in a day.

ALTER TABLE profiles ADD COLUMN added_by TEXT NOT NULL DEFAULT 'everyone' CHECK (added_by IN ('everyone', 'contacts', 'nobody'));

-- Keyed hashes: the numbers themselves are kept of users alone, in their profiles.
CREATE TABLE tested_numbers (
    owner_id UUID NOT NULL,
    fingerprint TEXT NOT NULL,
    tested_at TIMESTAMPTZ NOT NULL,
    -- In the owner's address book, so that its owner may find this one by number as a contact may.
    in_book BOOLEAN NOT NULL,
    PRIMARY KEY (owner_id, fingerprint)
);

CREATE INDEX tested_numbers_by_time ON tested_numbers (owner_id, tested_at);

CREATE TABLE number_quotas (
    owner_id UUID PRIMARY KEY,
    day_started_at TIMESTAMPTZ NOT NULL,
    tested BIGINT NOT NULL
);
