-- Which words stand in which messages, for the search in a person's conversations.

CREATE TABLE message_words (
    conversation_id UUID NOT NULL,
    -- Lower case, Latin letters without marks.
    word TEXT COLLATE "C" NOT NULL,
    message_id UUID NOT NULL,
    PRIMARY KEY (conversation_id, word, message_id)
);

CREATE INDEX message_words_by_message ON message_words (message_id, word);

-- The messages up to here are in it; the others follow within a moment.
ALTER TABLE conversations ADD COLUMN indexed_seq BIGINT NOT NULL DEFAULT 0;

CREATE INDEX conversations_to_index ON conversations (id) WHERE indexed_seq < last_seq;
