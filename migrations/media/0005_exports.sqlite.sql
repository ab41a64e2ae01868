-- Whose account export may be read, and until when. It holds nothing of what is exported.
CREATE TABLE open_exports (
    user_id TEXT PRIMARY KEY,
    -- What came later is not in it.
    requested_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX open_exports_by_end ON open_exports (expires_at);

-- A person's files, one after the other.
CREATE INDEX media_of_owner ON media (owner_id, id);
