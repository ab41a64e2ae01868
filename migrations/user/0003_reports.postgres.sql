-- People and messages that were reported to the operator. Subject: the message, or the user where none is named; one report of each by one person.

CREATE TABLE reports (
    id UUID NOT NULL UNIQUE,
    reporter_id UUID NOT NULL,
    subject_id UUID NOT NULL,
    user_id UUID NOT NULL,
    message_id UUID,
    reason TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (reporter_id, subject_id)
);

CREATE INDEX reports_by_reporter ON reports (reporter_id, created_at);
CREATE INDEX reports_by_user ON reports (user_id, created_at);
