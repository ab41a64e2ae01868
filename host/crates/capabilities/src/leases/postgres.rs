//! Leases in PostgreSQL, by its clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::postgres::PgArguments;

use super::{HeldLease, Lease, LeaseError, Leases};
use crate::sql::SqlError;
use crate::sql::postgres::rows::{add, signed, string, unsigned};
use crate::sql::postgres::{PostgresBackend, Shared};

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS lease (name TEXT PRIMARY KEY, node TEXT NOT NULL, epoch BIGINT NOT NULL, until TIMESTAMPTZ NOT NULL)";
const READ_COMMITTED: &str = "READ COMMITTED";
/// As that of `sql::postgres`: tables are made by one host at a time.
const SETUP_LOCK: i64 = 0x4563_686f_0006;

pub struct PostgresLeases {
    shared: Arc<Shared>,
    /// The epochs of those that this process has taken. One that it had before it was killed is its own still, under a new epoch.
    taken: Mutex<HashMap<String, u64>>,
}

impl PostgresLeases {
    /// Makes the table where it is missing.
    pub async fn open(backend: &PostgresBackend) -> Result<Self, LeaseError> {
        let shared = backend.shared();
        let mut connection = shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![SETUP_LOCK.into()]).await?;
        connection.raw(TABLE).await?;
        connection.commit().await?;
        Ok(Self { shared, taken: Mutex::default() })
    }
}

#[async_trait]
impl Leases for PostgresLeases {
    async fn take(&self, name: &str, ttl: Duration) -> Result<Option<Lease>, LeaseError> {
        let own = self.taken.lock().get(name).copied().unwrap_or(0);
        let sql = "INSERT INTO lease AS held (name, node, epoch, until) VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
            ON CONFLICT (name) DO UPDATE SET node = excluded.node, until = excluded.until,
                epoch = held.epoch + CASE WHEN held.node = excluded.node AND held.epoch = $4 THEN 0 ELSE 1 END
            WHERE held.node = excluded.node OR held.until < clock_timestamp() RETURNING epoch";
        let mut given = PgArguments::default();
        add(&mut given, name.to_owned())?;
        add(&mut given, self.shared.node.clone())?;
        add(&mut given, ttl.as_secs_f64())?;
        add(&mut given, signed(own))?;
        let rows = self.shared.host.take().await?.rows_with(sql, given).await?;
        let epoch = rows.first().map(|row| unsigned(row, 0)).transpose()?;
        let mut taken = self.taken.lock();
        match epoch {
            Some(epoch) => drop(taken.insert(name.to_owned(), epoch)),
            None => drop(taken.remove(name)),
        }
        Ok(epoch.map(|epoch| Lease { epoch }))
    }

    async fn give_back(&self, name: &str) -> Result<(), LeaseError> {
        let Some(epoch) = self.taken.lock().remove(name) else { return Ok(()) };
        let mut given = PgArguments::default();
        add(&mut given, name.to_owned())?;
        add(&mut given, self.shared.node.clone())?;
        add(&mut given, signed(epoch))?;
        let sql = "UPDATE lease SET until = '-infinity' WHERE name = $1 AND node = $2 AND epoch = $3";
        self.shared.host.take().await?.rows_with(sql, given).await?;
        Ok(())
    }

    async fn held(&self) -> Result<Vec<HeldLease>, LeaseError> {
        let sql = "SELECT name, node, epoch FROM lease WHERE until > clock_timestamp() ORDER BY name";
        let rows = self.shared.host.take().await?.rows_with(sql, PgArguments::default()).await?;
        let lease = |row| Ok(HeldLease { name: string(row, 0)?, node: string(row, 1)?, epoch: unsigned(row, 2)? });
        rows.iter().map(lease).collect()
    }
}

impl From<SqlError> for LeaseError {
    fn from(error: SqlError) -> Self {
        Self(error.to_string())
    }
}
