//! Transactions of a service on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;

use super::admission::{Admitted, Outcome};
use super::pool::Pooled;
use super::{Core, collect, outbox};
use crate::sql::{Effect, ErrorClass, Row, Rows, SqlError, Transaction, Value};

/// Holds a connection with the transaction open on it.
pub(super) struct PostgresTransaction {
    pub(super) core: Arc<Core>,
    pub(super) connection: Pooled,
    pub(super) admitted: Admitted,
    /// A statement failed, or its future was dropped while it ran.
    pub(super) failed: bool,
    pub(super) pending: outbox::Pending,
}

impl PostgresTransaction {
    /// Marks the transaction as failed until it is known not to have, so that a dropped future counts as a failure.
    fn enter(&mut self) -> Result<(), SqlError> {
        if self.failed {
            return Err(SqlError {
                sqlstate: Some("25P02".to_owned()),
                ..SqlError::new(ErrorClass::Other, "a statement of this transaction failed: it can only be rolled back")
            });
        }
        self.failed = true;
        Ok(())
    }

    async fn run(&mut self, sql: &str, params: Vec<Value>, only_first: bool) -> Result<(Rows, u64), SqlError> {
        self.enter()?;
        let checked = self.core.check(sql, &params)?;
        let outcome = collect(&mut self.connection, &checked, params, only_first).await;
        self.noted(outcome)
    }

    fn noted<T>(&mut self, outcome: Result<T, SqlError>) -> Result<T, SqlError> {
        match &outcome {
            Ok(_) => self.failed = false,
            Err(error) if error.class == ErrorClass::Serialization => self.admitted.note(Outcome::Collided),
            Err(_) => {}
        }
        outcome
    }

    /// Writes the pending effects into the outbox.
    async fn append(&mut self) -> Result<(), SqlError> {
        self.enter()?;
        let outcome = self.pending.write(&mut self.connection).await;
        self.noted(outcome)
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn query(&mut self, sql: &str, params: Vec<Value>) -> Result<Rows, SqlError> {
        self.run(sql, params, false).await.map(|(rows, _)| rows)
    }

    async fn query_one(&mut self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, SqlError> {
        self.run(sql, params, true).await.map(|(rows, _)| rows.rows.into_iter().next())
    }

    async fn execute(&mut self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError> {
        self.run(sql, params, false).await.map(|(_, changed)| changed)
    }

    async fn emit(&mut self, effect: Effect) -> Result<(), SqlError> {
        self.core.outbox.check(&effect)?;
        if self.pending.is_full() {
            self.append().await?;
        }
        self.pending.push(effect)
    }

    async fn commit(mut self: Box<Self>) -> Result<(), SqlError> {
        if !self.pending.is_empty() {
            self.append().await?;
        }
        self.enter()?;
        let Self { core, connection, mut admitted, pending, .. } = *self;
        let committed = connection.commit().await;
        match &committed {
            Ok(()) => admitted.note(Outcome::Committed),
            Err(error) if error.class == ErrorClass::Serialization => admitted.note(Outcome::Collided),
            Err(_) => {}
        }
        // Also where the outcome of the commit is unknown.
        if pending.has_written() && !matches!(&committed, Err(error) if error.class == ErrorClass::Serialization) {
            core.outbox.signal().notify_one();
        }
        committed
    }

    async fn rollback(self: Box<Self>) -> Result<(), SqlError> {
        let Self { connection, admitted, .. } = *self;
        let outcome = connection.rollback().await;
        drop(admitted);
        outcome
    }
}
