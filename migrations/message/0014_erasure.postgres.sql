-- What a person put on messages and conversations, for when the person's account is erased.

CREATE INDEX reactions_by_user ON reactions (user_id);
CREATE INDEX drafts_by_user ON drafts (user_id);

CREATE INDEX poll_votes_by_user ON poll_votes (user_id);

CREATE INDEX invites_by_creator ON invites (created_by);
