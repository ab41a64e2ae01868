//! What can go wrong: the server's own reasons (RFC 9457), and that there is no answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why something was not done, as the server says it (`application/problem+json`, RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{} ({code}, {status})", detail.as_deref().filter(|detail| !detail.is_empty()).unwrap_or(title))]
pub struct Problem {
    /// Where the code is explained.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    /// The status of HTTP, on a socket too.
    pub status: u16,
    /// Stable, for programs, e.g. `phone_taken`.
    pub code: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Every wrong field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Where a feed goes on that cannot go on where it was asked for (`resync_required`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// Milliseconds after which it may be tried again, where the server said so: in the frame, or in `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field's path, e.g. `device.id` or `participant_ids[3]`.
    pub field: String,
    pub code: String,
    pub detail: String,
}

impl Problem {
    /// Refused for good: to send the same again gives the same answer.
    pub fn is_final(&self) -> bool {
        (400..500).contains(&self.status) && ![401, 408, 423, 425, 429].contains(&self.status)
    }

    /// What is wrong with one field.
    pub fn field(&self, name: &str) -> Option<&FieldError> {
        self.errors.iter().find(|error| error.field == name)
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }

    /// Of an answer. Whatever stands between here and the host may have answered in its own way.
    pub(crate) fn of_answer(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let mut problem = serde_json::from_slice(body).unwrap_or_else(|_| Self {
            kind: "about:blank".to_owned(),
            title: "Failure".to_owned(),
            status,
            code: format!("http_{status}"),
            detail: None,
            request_id: None,
            errors: Vec::new(),
            cursor: None,
            retry_after_ms: None,
        });
        problem.retry_after_ms = problem.retry_after_ms.or(retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        problem
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The server could not be reached, or did not answer in time: what was asked for may have been done or not.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The socket ended before the answer came, or there is none: what was asked for may have been done or not.
    #[error("there is no connection")]
    Disconnected,
    /// Nobody is signed in.
    #[error("nobody is signed in")]
    SignedOut,
    /// The answer is not what the contract says.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    /// So many messages wait to be sent already.
    #[error("{} messages wait to be sent", crate::limits::OUTBOX_ENTRIES_MAX)]
    OutboxFull,
    /// What is to outlive the program cannot be read or written.
    #[error("the client's folder: {0}")]
    Folder(#[from] std::io::Error),
    /// Not an address of a host, or certificates that cannot be used.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// What the server said, where it was the server.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// The problem's stable code.
    pub fn code(&self) -> Option<&str> {
        self.problem().map(|problem| problem.code.as_str())
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_anybody_is_a_problem() {
        let body = br#"{"type":"/docs/errors/invalid","title":"Unprocessable Content","status":422,"code":"invalid","detail":"","errors":[{"field":"a.b","code":"required","detail":"it is missing"}]}"#;
        let problem = Problem::of_answer(422, None, body);
        assert!(problem.is_final());
        assert_eq!(problem.field("a.b").map(|error| error.code.as_str()), Some("required"));
        assert_eq!(problem.to_string(), "Unprocessable Content (invalid, 422)");
        let foreign = Problem::of_answer(503, Some(Duration::from_secs(2)), b"<html>");
        assert_eq!((foreign.code.as_str(), foreign.is_final(), foreign.retry_after()), ("http_503", false, Some(Duration::from_secs(2))));
    }
}
