-- Marks that are old go.

CREATE INDEX receipt_marks_by_time ON receipt_marks (at);
