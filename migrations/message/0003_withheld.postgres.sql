-- What somebody who is blocked does not learn, and what of theirs does not arrive.

-- Up to where the viewer may know the user's receipts while the user blocks them: where they stood when the block came.
CREATE TABLE withheld_receipts (
    conversation_id UUID NOT NULL,
    user_id UUID NOT NULL,
    viewer_id UUID NOT NULL,
    delivered_seq BIGINT NOT NULL,
    read_seq BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, user_id, viewer_id)
);

-- From this edit on the user, who blocked the sender before it, sees the message as it was.
CREATE TABLE withheld_edits (
    message_id UUID NOT NULL,
    user_id UUID NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (message_id, user_id)
);
