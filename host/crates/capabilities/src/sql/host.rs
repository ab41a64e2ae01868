//! `echo:sql/sql` for a guest: lengths and counts checked, the open transaction kept in the guest's state. Knows no backend.

use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker, Resource};

use super::{Database, ErrorClass, Row, Rows, SqlError, Value};
use crate::guest::Guest;
use echo_base::deadline::timeout_at;
use echo_base::limits;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "
            package echo:host-sql;
            world imports {
                import echo:sql/sql@0.1.0;
            }
        ",
        world: "echo:host-sql/imports",
        imports: { default: async | trappable },
        with: { "echo:sql/sql.transaction": super::TransactionHandle },
    });
}

use bindings::echo::sql::sql as wit;

/// A guest's hold on `Guest::transaction`: the number it had when it was begun.
pub struct TransactionHandle {
    number: u64,
}

/// Links the interface for a store whose guest `get` finds.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

type Answer<T> = wasmtime::Result<Result<T, wit::SqlError>>;

impl wit::Host for Guest {
    async fn query(&mut self, sql: String, params: Vec<wit::Value>) -> Answer<wit::Rows> {
        let database = self.outside();
        answer(async { database?.query(&sql, incoming(params)?).await.map(wit::Rows::from) }.await)
    }

    async fn query_one(&mut self, sql: String, params: Vec<wit::Value>) -> Answer<Option<Vec<wit::Value>>> {
        let database = self.outside();
        answer(async { database?.query_one(&sql, incoming(params)?).await.map(|row| row.map(outgoing)) }.await)
    }

    async fn execute(&mut self, sql: String, params: Vec<wit::Value>) -> Answer<u64> {
        let database = self.outside();
        answer(async { database?.execute(&sql, incoming(params)?).await }.await)
    }

    async fn batch(&mut self, statements: Vec<wit::Statement>) -> Answer<Vec<u64>> {
        let database = self.outside();
        answer(
            async {
                if statements.len() > limits::SQL_BATCH_MAX {
                    return Err(too_large(format!("more than {} statements", limits::SQL_BATCH_MAX)));
                }
                let mut ours = Vec::with_capacity(statements.len());
                for statement in statements {
                    ours.push((statement.sql, incoming(statement.params)?));
                }
                database?.batch(ours).await
            }
            .await,
        )
    }
}

impl wit::HostTransaction for Guest {
    async fn begin(&mut self) -> Answer<Resource<TransactionHandle>> {
        if self.transaction.is_some() {
            return answer(Err(SqlError::new(ErrorClass::Other, "a transaction is open already; one at a time per call")));
        }
        // The call may time out while it waits.
        let (database, deadline) = (self.capabilities.database.clone(), self.context().deadline);
        let begun = match timeout_at(deadline, database.begin_after(self.collisions)).await {
            Ok(begun) => begun,
            Err(_) => Err(SqlError::new(ErrorClass::Timeout, "no time is left to wait for the database")),
        };
        match begun {
            Ok(transaction) => {
                self.transaction = Some(transaction);
                self.transaction_number += 1;
                let handle = self.table.push(TransactionHandle { number: self.transaction_number })?;
                Ok(Ok(handle))
            }
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn query(&mut self, tx: Resource<TransactionHandle>, sql: String, params: Vec<wit::Value>) -> Answer<wit::Rows> {
        let number = self.table.get(&tx)?.number;
        let outcome = async { self.inside(number)?.query(&sql, incoming(params)?).await.map(wit::Rows::from) }.await;
        answer(self.counted(outcome))
    }

    async fn query_one(
        &mut self,
        tx: Resource<TransactionHandle>,
        sql: String,
        params: Vec<wit::Value>,
    ) -> Answer<Option<Vec<wit::Value>>> {
        let number = self.table.get(&tx)?.number;
        let outcome = async { self.inside(number)?.query_one(&sql, incoming(params)?).await.map(|row| row.map(outgoing)) }.await;
        answer(self.counted(outcome))
    }

    async fn execute(&mut self, tx: Resource<TransactionHandle>, sql: String, params: Vec<wit::Value>) -> Answer<u64> {
        let number = self.table.get(&tx)?.number;
        let outcome = async { self.inside(number)?.execute(&sql, incoming(params)?).await }.await;
        answer(self.counted(outcome))
    }

    async fn commit(&mut self, tx: Resource<TransactionHandle>) -> Answer<()> {
        let number = self.table.delete(tx)?.number;
        let outcome = async {
            self.inside(number)?;
            match self.transaction.take() {
                Some(transaction) => {
                    transaction.commit().await?;
                    self.collisions = 0;
                    self.keep_pace().await;
                    Ok(())
                }
                None => Err(stale()),
            }
        };
        let outcome = outcome.await;
        answer(self.counted(outcome))
    }

    async fn rollback(&mut self, tx: Resource<TransactionHandle>) -> Answer<()> {
        let number = self.table.delete(tx)?.number;
        answer(
            async {
                self.inside(number)?;
                match self.transaction.take() {
                    Some(transaction) => transaction.rollback().await,
                    None => Err(stale()),
                }
            }
            .await,
        )
    }

    async fn drop(&mut self, tx: Resource<TransactionHandle>) -> wasmtime::Result<()> {
        let number = self.table.delete(tx)?.number;
        if self.inside(number).is_ok() {
            self.transaction = None;
        }
        Ok(())
    }
}

impl Guest {
    /// For statements outside a transaction. Errors: a transaction is open; the statement would wait for it, and it for the call that runs the statement.
    fn outside(&self) -> Result<Arc<dyn Database>, SqlError> {
        match self.transaction {
            None => Ok(self.capabilities.database.clone()),
            Some(_) => Err(SqlError::new(ErrorClass::Other, "a transaction is open: use its own functions until it ends")),
        }
    }

    /// A collision is counted: whoever tries again after several has to be let through.
    pub(crate) fn counted<T>(&mut self, outcome: Result<T, SqlError>) -> Result<T, SqlError> {
        if outcome.as_ref().is_err_and(|error| error.class == ErrorClass::Serialization) {
            self.collisions += 1;
        }
        outcome
    }

    fn inside(&mut self, number: u64) -> Result<&mut dyn super::Transaction, SqlError> {
        match &mut self.transaction {
            Some(transaction) if number == self.transaction_number => Ok(transaction.as_mut()),
            _ => Err(stale()),
        }
    }
}

fn stale() -> SqlError {
    SqlError::new(ErrorClass::Other, "this transaction has ended")
}

fn too_large(message: String) -> SqlError {
    SqlError::new(ErrorClass::TooLarge, message)
}

fn answer<T>(outcome: Result<T, SqlError>) -> Answer<T> {
    Ok(outcome.map_err(wit::SqlError::from))
}

fn incoming(params: Vec<wit::Value>) -> Result<Vec<Value>, SqlError> {
    if params.len() > limits::SQL_PARAMS_MAX {
        return Err(too_large(format!("more than {} parameters", limits::SQL_PARAMS_MAX)));
    }
    params
        .into_iter()
        .map(|value| {
            Ok(match value {
                wit::Value::Null => Value::Null,
                wit::Value::Boolean(value) => Value::Boolean(value),
                wit::Value::S64(value) => Value::S64(value),
                wit::Value::F64(value) => Value::F64(value),
                wit::Value::Text(value) => Value::Text(value),
                wit::Value::Bytes(value) => Value::Bytes(value),
                wit::Value::Uuid(value) => {
                    Value::Uuid(value.parse().map_err(|_| SqlError::new(ErrorClass::Other, "a uuid parameter is no uuid"))?)
                }
                wit::Value::Timestamp(value) => Value::Timestamp(value),
                wit::Value::Json(value) => Value::Json(value),
                wit::Value::Decimal(value) => Value::Decimal(value),
            })
        })
        .collect()
}

fn outgoing(row: Row) -> Vec<wit::Value> {
    row.into_iter()
        .map(|value| match value {
            Value::Null => wit::Value::Null,
            Value::Boolean(value) => wit::Value::Boolean(value),
            Value::S64(value) => wit::Value::S64(value),
            Value::F64(value) => wit::Value::F64(value),
            Value::Text(value) => wit::Value::Text(value),
            Value::Bytes(value) => wit::Value::Bytes(value),
            Value::Uuid(value) => wit::Value::Uuid(value.hyphenated().to_string()),
            Value::Timestamp(value) => wit::Value::Timestamp(value),
            Value::Json(value) => wit::Value::Json(value),
            Value::Decimal(value) => wit::Value::Decimal(value),
        })
        .collect()
}

impl From<Rows> for wit::Rows {
    fn from(rows: Rows) -> Self {
        Self { columns: rows.columns, rows: rows.rows.into_iter().map(outgoing).collect() }
    }
}

impl From<SqlError> for wit::SqlError {
    fn from(error: SqlError) -> Self {
        let class = match error.class {
            ErrorClass::UniqueViolation => wit::ErrorClass::UniqueViolation,
            ErrorClass::ForeignKey => wit::ErrorClass::ForeignKey,
            ErrorClass::Check => wit::ErrorClass::Check,
            ErrorClass::Serialization => wit::ErrorClass::Serialization,
            ErrorClass::Timeout => wit::ErrorClass::Timeout,
            ErrorClass::Unavailable => wit::ErrorClass::Unavailable,
            ErrorClass::TooLarge => wit::ErrorClass::TooLarge,
            ErrorClass::Other => wit::ErrorClass::Other,
        };
        Self { class, constraint: error.constraint, sqlstate: error.sqlstate, message: error.message }
    }
}

#[cfg(test)]
pub mod tests;
