-- How often a picture was decoded for a thumbnail since that worked, and when last.
ALTER TABLE media ADD COLUMN thumbnail_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE media ADD COLUMN thumbnail_tried_at INTEGER;
