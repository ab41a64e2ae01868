-- Messages that are kept from who blocks their sender leave the conversation where it was on that participant's list.

-- The newest message that was kept from this participant; while it is the conversation's newest, the two below are shown in place of the
-- conversation's own.
ALTER TABLE participants ADD COLUMN kept_back_seq INTEGER;
ALTER TABLE participants ADD COLUMN shown_seq INTEGER;
ALTER TABLE participants ADD COLUMN shown_active_at INTEGER;
