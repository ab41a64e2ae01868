-- People and messages that were reported to the operator. Subject: the message, or the user where none is named; one report of each by one person.

CREATE TABLE reports (
    id TEXT NOT NULL UNIQUE,
    reporter_id TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    message_id TEXT,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (reporter_id, subject_id)
) WITHOUT ROWID;

CREATE INDEX reports_by_reporter ON reports (reporter_id, created_at);
CREATE INDEX reports_by_user ON reports (user_id, created_at);
