-- Whose account export may be read, and until when. It holds nothing of what is exported.
CREATE TABLE open_exports (
    user_id UUID PRIMARY KEY,
    -- What came later is not in it.
    requested_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX open_exports_by_end ON open_exports (expires_at);
