//! The guest as its capabilities see it: its service's name, its call's context, the capabilities it was granted, its open transaction.
//! The runtime keeps one in every store; nothing here knows of stores, pools or generations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTable;

use super::blob::Blobs;
use super::cache::Cache;
use super::config::ServiceSettings;
use super::context::CallContext;
use super::http::{Http, HttpGrants};
use super::hub::{Feed, Sockets};
use super::pace::{Made, Pace};
use super::passwords::Passwords;
use super::senders::Senders;
use super::sql::{Database, Effect, SqlError, Transaction};
use super::tokens::Tokens;
use echo_base::limits;
use echo_base::names::ServiceName;

/// The capabilities of one service, shared by all instances of all its generations.
pub struct Capabilities {
    pub database: Arc<dyn Database>,
    pub cache: Arc<dyn Cache>,
    pub blobs: Arc<dyn Blobs>,
    pub feed: Arc<dyn Feed>,
    pub sockets: Arc<dyn Sockets>,
    pub passwords: Arc<dyn Passwords>,
    pub tokens: Arc<dyn Tokens>,
    pub http: Arc<dyn Http>,
    pub settings: ServiceSettings,
    pub pace: Pace,
    /// The same for all services.
    pub senders: Arc<Senders>,
}

const RUNS_WITHIN_A_CALL: &str = "a guest's code runs within a call only";

/// One instance, as its capabilities see it. The context and the counters are reset for every call.
pub struct Guest {
    pub service: ServiceName,
    context: Option<Arc<CallContext>>,
    pub capabilities: Arc<Capabilities>,
    /// Limits how much of a user's feed its service fills.
    pub feed_share: Arc<Senders>,
    /// Where its version may send requests to.
    pub http_grants: Arc<HttpGrants>,
    /// At most one open transaction per call.
    pub transaction: Option<Box<dyn Transaction>>,
    /// Rises with every transaction, so that a stale handle cannot reach a newer one.
    pub transaction_number: u64,
    /// Transactions of this call that have collided since the last that was committed.
    pub collisions: u32,
    pub table: ResourceTable,
    /// Its events and pushes in this call.
    pub made: Made,
    pub log_lines_count: u32,
}

impl Guest {
    pub fn new(
        service: ServiceName,
        context: Arc<CallContext>,
        capabilities: Arc<Capabilities>,
        feed_share: Arc<Senders>,
        http_grants: Arc<HttpGrants>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::GUEST_RESOURCES_MAX);
        Self {
            service,
            context: Some(context),
            capabilities,
            feed_share,
            http_grants,
            transaction: None,
            transaction_number: 0,
            collisions: 0,
            table,
            made: Made::default(),
            log_lines_count: 0,
        }
    }

    /// Makes the instance ready for its next call.
    pub fn begin_call(&mut self, context: Arc<CallContext>) {
        self.context = Some(context);
        self.made = Made::default();
        self.log_lines_count = 0;
        self.collisions = 0;
    }

    /// Clears all that belongs to the call.
    pub fn end_call(&mut self) {
        self.context = None;
    }

    pub fn context(&self) -> &CallContext {
        self.context.as_deref().expect(RUNS_WITHIN_A_CALL)
    }

    /// The context of a call that this one makes.
    pub fn shared_context(&self) -> Arc<CallContext> {
        self.context.clone().expect(RUNS_WITHIN_A_CALL)
    }

    /// Writes an effect to the outbox: inside the open transaction where there is one, else at once.
    /// Errors: `TooLarge` where it is too much for one call.
    pub async fn emit(&mut self, effect: Effect) -> Result<(), SqlError> {
        self.made.add(effect.bytes(), effect.users_count())?;
        match &mut self.transaction {
            Some(transaction) => {
                let emitted = transaction.emit(effect).await;
                self.counted(emitted)
            }
            None => {
                self.capabilities.database.emit(vec![effect]).await?;
                self.keep_pace().await;
                Ok(())
            }
        }
    }

    /// Waits if the call has made more effects than its allowance. Called outside a transaction, where it holds nothing that others wait for; it leaves the call
    /// half of its remaining time.
    pub async fn keep_pace(&mut self) {
        let context = self.context();
        let free = if context.event_id.is_some() { limits::EFFECTS_FREE_HANDLING } else { 1 };
        let (now, deadline) = (Instant::now(), context.deadline);
        let turns = self.made.turns(free);
        if turns == 0 {
            return;
        }
        let until = self.capabilities.pace.take(turns).min(now + deadline.saturating_duration_since(now) / 2);
        // Timers are of milliseconds; several turns are waited for together.
        if until > now + Duration::from_millis(limits::EFFECTS_PACE_STEP_MS) {
            tokio::time::sleep_until(until.into()).await;
        }
    }
}
