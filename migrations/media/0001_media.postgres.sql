-- Files: what they are and whose. Their bytes are blobs.

CREATE TABLE media (
    id UUID PRIMARY KEY,
    owner_id UUID NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('uploading', 'ready')),
    -- Where the bytes are; none while they come.
    blob TEXT,
    content_type TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('image', 'video', 'audio', 'document')),
    file_name TEXT,
    -- In bytes, as it counts for its owner's share.
    size BIGINT NOT NULL,
    width INTEGER,
    height INTEGER,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX media_by_owner ON media (owner_id, size);
CREATE INDEX media_uploading ON media (created_at) WHERE state = 'uploading';
