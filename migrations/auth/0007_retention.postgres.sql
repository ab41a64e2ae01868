-- For what is removed when its time is over.
CREATE INDEX login_attempts_by_time ON login_attempts (at);
CREATE INDEX accounts_by_confirmation ON accounts (verified, created_at);
