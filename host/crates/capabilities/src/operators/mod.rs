//! Tokens of operators, each with a name and scopes, and what was done with them. Only the hash of a token is kept. No guest calls it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub mod files;
pub mod postgres;
#[cfg(test)]
mod suite;

/// What a token opens. A greater scope includes the lesser ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// `GET /metrics`.
    Metrics,
    /// All that changes nothing; no contents of events.
    Read,
    /// Versions: upload, activate, roll back, remove.
    Deploy,
    /// Everything: tokens, grants, dead letters, backup, drain.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Read, Self::Deploy, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorToken {
    pub id: Uuid,
    /// Unique.
    pub name: String,
    /// At least one.
    pub scopes: Vec<Scope>,
    /// Of the token's text; hexadecimal.
    pub sha256: String,
    /// The operator who made it.
    pub created_by: String,
    /// Microseconds since 1970, as all times here.
    pub created_at_us: u64,
    /// None: it is good until it is ended.
    pub expires_at_us: Option<u64>,
    /// Noted at most every `OPERATOR_TOKEN_USE_S`.
    pub used_at_us: Option<u64>,
}

impl OperatorToken {
    /// The greatest of its scopes, which includes the others.
    pub fn scope(&self) -> Scope {
        self.scopes.iter().copied().max().unwrap_or(Scope::Metrics)
    }

    fn is_good_at(&self, now_us: u64) -> bool {
        self.expires_at_us.is_none_or(|expires_at_us| now_us < expires_at_us)
    }
}

/// The SHA-256 of a token's text. Tokens are random, so a slow hash would add nothing.
pub fn token_sha256(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request of an operator that changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Given when it is noted, greater than those before; 0 until then.
    #[serde(default)]
    pub id: u64,
    pub at_us: u64,
    /// The token's name.
    pub operator: String,
    /// The host that was asked.
    pub node: String,
    /// Method and target, such as `POST /admin/v1/plugins/message/rollback`.
    pub request: String,
    /// The answer's status code.
    pub status: u16,
    /// What the request's target does not say; may be empty.
    pub detail: String,
}

#[derive(Debug, thiserror::Error)]
pub enum OperatorsError {
    #[error("there is a token named {0} already")]
    NameTaken(String),
    #[error("there are {0} tokens, and no more are kept: end one")]
    Full(usize),
    #[error("there is no token {0}")]
    NoSuchToken(Uuid),
    #[error("the operators' tokens cannot be read or written: {0}")]
    Unavailable(String),
}

#[async_trait]
pub trait Operators: Send + Sync {
    /// An expired token of the same name makes room for it, and all of them do where there are `OPERATOR_TOKENS_MAX`. Errors: `NameTaken`; `Full`.
    async fn create(&self, token: OperatorToken) -> Result<(), OperatorsError>;
    /// From then on it opens nothing, on any host. The token that it was.
    async fn end(&self, id: Uuid) -> Result<OperatorToken, OperatorsError>;
    /// By name, expired ones too.
    async fn list(&self) -> Result<Vec<OperatorToken>, OperatorsError>;
    /// The token with this hash, unless it is ended or expired; its use is noted.
    async fn find(&self, sha256: &str) -> Result<Option<OperatorToken>, OperatorsError>;
    /// The newest `OPERATOR_AUDIT_MAX` entries are kept.
    async fn note(&self, entry: AuditEntry) -> Result<(), OperatorsError>;
    /// Newest first; of those whose id is below `before`.
    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Vec<AuditEntry>, OperatorsError>;
}
