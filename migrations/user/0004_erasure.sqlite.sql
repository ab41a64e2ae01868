-- What others keep of a person, for when the person's account is erased.

CREATE INDEX contacts_by_user ON contacts (user_id);
CREATE INDEX blocks_by_blocked ON blocks (blocked_user_id);
