-- What somebody who is blocked does not learn, and what of theirs does not arrive.

-- Up to where the viewer may know the user's receipts while the user blocks them: where they stood when the block came.
CREATE TABLE withheld_receipts (
    conversation_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    viewer_id TEXT NOT NULL,
    delivered_seq INTEGER NOT NULL,
    read_seq INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, user_id, viewer_id)
) WITHOUT ROWID;

-- From this edit on the user, who blocked the sender before it, sees the message as it was.
CREATE TABLE withheld_edits (
    message_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (message_id, user_id)
) WITHOUT ROWID;
