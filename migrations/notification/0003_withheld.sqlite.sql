-- Participants who block the sender: user ids, separated by spaces. No recipients, but in the sender's trace as others are.
ALTER TABLE awaited_messages ADD COLUMN withheld_ids TEXT NOT NULL DEFAULT '';
