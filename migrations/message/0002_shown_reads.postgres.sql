-- Who reads without telling everybody.

-- Up to where others may know that this participant has read; none while that is all of `read_seq`.
ALTER TABLE participants ADD COLUMN shown_read_seq BIGINT;

-- Up to where a single viewer may know it, beyond what all may.
CREATE TABLE shown_reads (
    conversation_id UUID NOT NULL,
    user_id UUID NOT NULL,
    viewer_id UUID NOT NULL,
    read_seq BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, user_id, viewer_id)
);
