//! Which sessions and users had their tokens ended: in memory for the check of every request, on the disk before `revoke` returns.

use std::path::Path;
use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use uuid::Uuid;

use super::super::in_force::{InForce, Revoked};
use super::super::{Revocation, TokenError};
use echo_base::limits;

pub struct Revocations {
    in_force: InForce,
    pool: SqlitePool,
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
        // One clock: no two hosts share the file.
        let revocations = Self { in_force: InForce::new(0), pool };
        revocations.purge(now_us).await?;
        let rows = sqlx::query("SELECT kind, id, at_us, until_us FROM revocations").fetch_all(&revocations.pool).await?;
        for row in rows {
            let revocation = read(row.try_get("kind")?, row.try_get("id")?)?;
            let (at_us, until_us) = (row.try_get::<i64, _>("at_us")? as u64, row.try_get::<i64, _>("until_us")? as u64);
            revocations.in_force.insert(revocation, Revoked { at_us, until_us });
        }
        Ok(revocations)
    }

    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// On the disk when it returns.
    pub async fn save(&self, revocation: Revocation, at_us: u64, until_us: u64) -> Result<(), TokenError> {
        let saved = sqlx::query(
            "INSERT INTO revocations (kind, id, at_us, until_us) VALUES ($1, $2, $3, $4)
             ON CONFLICT (kind, id) DO UPDATE SET at_us = max(at_us, excluded.at_us), until_us = max(until_us, excluded.until_us)",
        )
        .bind(revocation.kind())
        .bind(revocation.id().as_bytes().as_slice())
        .bind(at_us as i64)
        .bind(until_us as i64)
        .execute(&self.pool)
        .await;
        saved.map(|_| ()).map_err(|error| {
            tracing::error!(%error, "a revocation could not be saved; it holds until the host ends");
            TokenError::Unavailable
        })
    }

    /// Forgets those that no living token could fall under.
    pub async fn purge(&self, now_us: u64) -> Result<(), sqlx::Error> {
        self.in_force.purge(now_us);
        sqlx::query("DELETE FROM revocations WHERE until_us <= $1").bind(now_us as i64).execute(&self.pool).await?;
        Ok(())
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn read(kind: &str, id: &[u8]) -> Result<Revocation, sqlx::Error> {
    let id = Uuid::from_slice(id).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Revocation::of(kind, id).ok_or_else(|| sqlx::Error::Decode(format!("revocation of a {kind:?}").into()))
}
