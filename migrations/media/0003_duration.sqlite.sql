-- Of audio and video, in milliseconds, where the container says so.
ALTER TABLE media ADD COLUMN duration_ms INTEGER;
