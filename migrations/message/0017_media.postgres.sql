-- Who has use of a file.
CREATE INDEX messages_by_media ON messages (media_id) WHERE media_id IS NOT NULL;
CREATE INDEX scheduled_by_media ON scheduled (media_id) WHERE media_id IS NOT NULL;
