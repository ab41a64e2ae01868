//! In one file of a host alone, which is replaced whole with every change. It lies among the secrets, so backups have it.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AuditEntry, OperatorToken, Operators, OperatorsError};
use echo_base::clock::now_us;
use echo_base::limits;
use echo_base::private_file;

pub struct FileOperators {
    path: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Kept {
    tokens: Vec<OperatorToken>,
    /// Oldest first.
    audit: Vec<AuditEntry>,
}

impl FileOperators {
    /// Errors: a file that is there and cannot be read, because with an empty list in its place ended tokens could not be told from lost ones.
    pub fn open(path: &Path) -> Result<Self, OperatorsError> {
        let mut kept: Kept = match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| unavailable(path, error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(unavailable(path, error)),
        };
        // Those of an earlier version have no ids.
        let mut before = 0;
        for entry in &mut kept.audit {
            entry.id = entry.id.max(before + 1);
            before = entry.id;
        }
        Ok(Self { path: path.to_owned(), kept: Mutex::new(kept) })
    }

    /// As if so many requests had been noted.
    #[cfg(test)]
    pub(super) fn kept_for_test(&self, count: usize, entry: impl Fn(u64) -> AuditEntry) {
        self.kept.lock().audit = (0..count as u64).map(entry).collect();
    }

    /// Changes what is kept once it is on the disk, or nothing.
    fn change<T>(&self, work: impl FnOnce(&mut Kept) -> Result<T, OperatorsError>) -> Result<T, OperatorsError> {
        let mut kept = self.kept.lock();
        let mut next = kept.clone();
        let outcome = work(&mut next)?;
        let text = serde_json::to_vec(&next).expect("strings and numbers always serialise");
        if let Some(folder) = self.path.parent() {
            private_file::create_folder(folder).map_err(|error| unavailable(&self.path, error))?;
        }
        private_file::write(&self.path, &text).map_err(|error| unavailable(&self.path, error))?;
        *kept = next;
        Ok(outcome)
    }
}

fn unavailable(path: &Path, error: impl std::fmt::Display) -> OperatorsError {
    OperatorsError::Unavailable(format!("{}: {error}", path.display()))
}

#[async_trait]
impl Operators for FileOperators {
    async fn create(&self, token: OperatorToken) -> Result<(), OperatorsError> {
        let now_us = now_us();
        self.change(|kept| {
            kept.tokens.retain(|other| other.name != token.name || other.is_good_at(now_us));
            if kept.tokens.len() >= limits::OPERATOR_TOKENS_MAX {
                kept.tokens.retain(|other| other.is_good_at(now_us));
            }
            if kept.tokens.iter().any(|other| other.name == token.name) {
                return Err(OperatorsError::NameTaken(token.name));
            }
            if kept.tokens.len() >= limits::OPERATOR_TOKENS_MAX {
                return Err(OperatorsError::Full(kept.tokens.len()));
            }
            kept.tokens.push(token);
            kept.tokens.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(())
        })
    }

    async fn end(&self, id: Uuid) -> Result<OperatorToken, OperatorsError> {
        self.change(|kept| {
            let at = kept.tokens.iter().position(|token| token.id == id).ok_or(OperatorsError::NoSuchToken(id))?;
            Ok(kept.tokens.remove(at))
        })
    }

    async fn list(&self) -> Result<Vec<OperatorToken>, OperatorsError> {
        Ok(self.kept.lock().tokens.clone())
    }

    async fn find(&self, sha256: &str) -> Result<Option<OperatorToken>, OperatorsError> {
        let now_us = now_us();
        let found = self.kept.lock().tokens.iter().find(|token| token.sha256 == sha256 && token.is_good_at(now_us)).cloned();
        let Some(token) = found else { return Ok(None) };
        if token.used_at_us.is_none_or(|used_at_us| now_us.saturating_sub(used_at_us) >= limits::OPERATOR_TOKEN_USE_S * 1_000_000) {
            self.change(|kept| {
                if let Some(token) = kept.tokens.iter_mut().find(|kept| kept.id == token.id) {
                    token.used_at_us = Some(now_us);
                }
                Ok(())
            })?;
        }
        Ok(Some(token))
    }

    async fn note(&self, entry: AuditEntry) -> Result<(), OperatorsError> {
        self.change(|kept| {
            let id = kept.audit.last().map_or(0, |last| last.id) + 1;
            kept.audit.push(AuditEntry { id, ..entry });
            let surplus = kept.audit.len().saturating_sub(limits::OPERATOR_AUDIT_MAX);
            kept.audit.drain(..surplus);
            Ok(())
        })
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Vec<AuditEntry>, OperatorsError> {
        let kept = self.kept.lock();
        let wanted = kept.audit.iter().rev().filter(|entry| before.is_none_or(|before| entry.id < before));
        Ok(wanted.take(limit).cloned().collect())
    }
}
