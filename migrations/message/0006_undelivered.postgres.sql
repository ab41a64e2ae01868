-- A device may begin later than what is undelivered: then the watermark passes messages that no device has.

CREATE TABLE undelivered (
    conversation_id UUID NOT NULL,
    user_id UUID NOT NULL,
    -- At or below the participant's `delivered_seq`, and not delivered all the same.
    seq BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, user_id, seq)
);
