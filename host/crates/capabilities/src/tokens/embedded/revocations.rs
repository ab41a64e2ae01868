//! Which sessions and users had their tokens ended: in memory for the check of every request, on the disk before `revoke` returns.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use parking_lot::RwLock;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use uuid::Uuid;

use super::super::{Revocation, TokenError};
use echo_base::limits;

pub struct Revocations {
    in_force: RwLock<HashMap<Revocation, Revoked>>,
    pool: SqlitePool,
}

#[derive(Clone, Copy)]
struct Revoked {
    at_us: u64,
    /// After this no token is left that it could concern.
    until_us: u64,
}

impl Revocations {
    pub async fn open(file: &Path, now_us: u64) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS));
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS))
            .connect_with(options)
            .await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS revocations (kind TEXT NOT NULL, id BLOB NOT NULL, at_us INTEGER NOT NULL, until_us INTEGER NOT NULL,
             PRIMARY KEY (kind, id)) WITHOUT ROWID, STRICT",
        )
        .execute(&pool)
        .await?;
        let revocations = Self { in_force: RwLock::default(), pool };
        revocations.purge(now_us).await?;
        let rows = sqlx::query("SELECT kind, id, at_us, until_us FROM revocations").fetch_all(&revocations.pool).await?;
        {
            let mut in_force = revocations.in_force.write();
            for row in rows {
                let revocation = read(row.try_get("kind")?, row.try_get("id")?)?;
                let (at_us, until_us) = (row.try_get::<i64, _>("at_us")? as u64, row.try_get::<i64, _>("until_us")? as u64);
                in_force.insert(revocation, Revoked { at_us, until_us });
            }
        }
        Ok(revocations)
    }

    /// Takes effect at once, until the host ends; `save` makes it last. Full: `Unavailable`.
    pub fn enforce(&self, revocation: Revocation, at_us: u64, until_us: u64) -> Result<(), TokenError> {
        let mut in_force = self.in_force.write();
        if in_force.len() >= limits::REVOCATIONS_MAX && !in_force.contains_key(&revocation) {
            return Err(TokenError::Unavailable);
        }
        in_force.insert(revocation, Revoked { at_us, until_us });
        Ok(())
    }

    /// On the disk when it returns.
    pub async fn save(&self, revocation: Revocation, at_us: u64, until_us: u64) -> Result<(), TokenError> {
        let (kind, id) = written(&revocation);
        let saved = sqlx::query(
            "INSERT INTO revocations (kind, id, at_us, until_us) VALUES ($1, $2, $3, $4)
             ON CONFLICT (kind, id) DO UPDATE SET at_us = max(at_us, excluded.at_us), until_us = max(until_us, excluded.until_us)",
        )
        .bind(kind)
        .bind(id.as_bytes().as_slice())
        .bind(at_us as i64)
        .bind(until_us as i64)
        .execute(&self.pool)
        .await;
        saved.map(|_| ()).map_err(|error| {
            tracing::error!(%error, "a revocation could not be saved; it holds until the host ends");
            TokenError::Unavailable
        })
    }

    pub fn session_is_revoked(&self, session: Uuid) -> bool {
        self.in_force.read().contains_key(&Revocation::Session(session))
    }

    /// Whether what was issued at that moment, to that user in that session, has been ended.
    pub fn concern(&self, user: Uuid, session: Uuid, issued_at_us: u64) -> bool {
        let in_force = self.in_force.read();
        in_force.contains_key(&Revocation::Session(session))
            || in_force.get(&Revocation::User(user)).is_some_and(|revoked| issued_at_us <= revoked.at_us)
    }

    /// The moment of the latest one; 0 without any.
    pub fn latest_at_us(&self) -> u64 {
        self.in_force.read().values().map(|revoked| revoked.at_us).max().unwrap_or(0)
    }

    /// Forgets those that no living token could fall under.
    pub async fn purge(&self, now_us: u64) -> Result<(), sqlx::Error> {
        self.in_force.write().retain(|_, revoked| revoked.until_us > now_us);
        sqlx::query("DELETE FROM revocations WHERE until_us <= $1").bind(now_us as i64).execute(&self.pool).await?;
        Ok(())
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn written(revocation: &Revocation) -> (&'static str, &Uuid) {
    match revocation {
        Revocation::Session(id) => ("session", id),
        Revocation::User(id) => ("user", id),
    }
}

fn read(kind: &str, id: &[u8]) -> Result<Revocation, sqlx::Error> {
    let id = Uuid::from_slice(id).map_err(|error| sqlx::Error::Decode(error.into()))?;
    match kind {
        "session" => Ok(Revocation::Session(id)),
        "user" => Ok(Revocation::User(id)),
        other => Err(sqlx::Error::Decode(format!("revocation of a {other:?}").into())),
    }
}
