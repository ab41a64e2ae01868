-- How many bytes came of a file that is whole: it may have fewer, where what was recorded about an image was taken out.
ALTER TABLE media ADD COLUMN uploaded INTEGER;
