//! What the capabilities know of the guest they serve: its name, its call's context, the powers it was granted, its open transaction.
//! The runtime keeps one in every store; nothing here knows of stores, pools or generations.

use std::sync::Arc;

use wasmtime::component::ResourceTable;

use super::cache::Cache;
use super::config::ServiceSettings;
use super::context::CallContext;
use super::hub::{Feed, Sockets};
use super::passwords::Passwords;
use super::sql::{Database, Effect, ErrorClass, SqlError, Transaction};
use super::tokens::Tokens;
use crate::limits;
use crate::names::ServiceName;

/// What one service may reach. Shared by all its instances of all its generations.
pub struct Powers {
    pub database: Arc<dyn Database>,
    pub cache: Arc<dyn Cache>,
    pub feed: Arc<dyn Feed>,
    pub sockets: Arc<dyn Sockets>,
    pub passwords: Arc<dyn Passwords>,
    pub tokens: Arc<dyn Tokens>,
    pub settings: ServiceSettings,
}

const RUNS_WITHIN_A_CALL: &str = "a guest's code runs within a call only";

/// One instance, as its capabilities see it. The context and the counters are set anew for every call.
pub struct Guest {
    pub service: ServiceName,
    context: Option<Arc<CallContext>>,
    pub powers: Arc<Powers>,
    /// At most one open transaction per call.
    pub transaction: Option<Box<dyn Transaction>>,
    /// Rises with every transaction, so that a stale handle cannot reach a newer one.
    pub transaction_number: u64,
    pub table: ResourceTable,
    pub effects_count: usize,
    pub log_lines_count: u32,
}

impl Guest {
    pub fn new(service: ServiceName, context: Arc<CallContext>, powers: Arc<Powers>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::GUEST_RESOURCES_MAX);
        Self {
            service,
            context: Some(context),
            powers,
            transaction: None,
            transaction_number: 0,
            table,
            effects_count: 0,
            log_lines_count: 0,
        }
    }

    /// Makes the instance ready for its next call.
    pub fn begin_call(&mut self, context: Arc<CallContext>) {
        self.context = Some(context);
        self.effects_count = 0;
        self.log_lines_count = 0;
    }

    /// Nothing of a call stays with the instance.
    pub fn end_call(&mut self) {
        self.context = None;
    }

    pub fn context(&self) -> &CallContext {
        self.context.as_deref().expect(RUNS_WITHIN_A_CALL)
    }

    /// For a call that this one makes.
    pub fn shared_context(&self) -> Arc<CallContext> {
        self.context.clone().expect(RUNS_WITHIN_A_CALL)
    }

    /// Writes an effect to the outbox: inside the open transaction where there is one, else at once.
    /// Errors: `TooLarge` above `EFFECTS_PER_CALL_MAX`.
    pub async fn emit(&mut self, effect: Effect) -> Result<(), SqlError> {
        self.effects_count += 1;
        if self.effects_count > limits::EFFECTS_PER_CALL_MAX {
            return Err(SqlError {
                class: ErrorClass::TooLarge,
                constraint: None,
                sqlstate: None,
                message: format!("more than {} events and pushes in one call", limits::EFFECTS_PER_CALL_MAX),
            });
        }
        match &mut self.transaction {
            Some(transaction) => transaction.emit(effect).await,
            None => self.powers.database.emit(vec![effect]).await,
        }
    }
}
