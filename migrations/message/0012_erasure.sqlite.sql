-- What a person put on messages and conversations, for when the person's account is erased.

CREATE INDEX reactions_by_user ON reactions (user_id);
CREATE INDEX drafts_by_user ON drafts (user_id);
