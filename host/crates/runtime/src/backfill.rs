//! Back-fills of live versions: fills in new columns of existing rows, a batch at a time.
//!
//! This happens after the version with the columns went live: before that the old version still writes rows without them, and a deployment would wait for every
//! row. So a service takes null for "not filled in yet" until it is done. One batch at a time for all services and all hosts (by a
//! lease), with pauses between, so that other transactions can write. Each batch goes on where the one before it was committed, on whichever host.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Runtime;
use super::catalogue::Generation;
use super::versions::Versions;
use echo_base::backoff::Backoff;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::leases::Leases;
use echo_capabilities::sql::migration::Backfill;
use echo_capabilities::sql::{BackfillProgress, Database, ErrorClass, MigrateError, Migration};

/// Of the host that fills in, of all that share a database.
const LEASE: &str = "backfills";

#[derive(Default)]
pub(super) struct Backfills {
    /// Notified when there may be something to do.
    due: Notify,
    states: Mutex<BTreeMap<(ServiceName, String), State>>,
    /// Generations that were replaced, and may still write rows without the new columns.
    draining: Mutex<HashMap<ServiceName, Vec<Weak<Generation>>>>,
}

/// One back-fill for the operator.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct BackfillView {
    /// Of its migration.
    pub name: String,
    /// `waiting` for the calls of the version before to end, `running`, `done`; `failing` where the last batch failed, to be tried again.
    pub state: &'static str,
    /// Rows that it filled.
    pub rows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

struct State {
    /// The generation that it was looked up for.
    generation: u64,
    backfill: Backfill,
    rows_max: usize,
    again_at: Instant,
    backoff: Backoff,
    view: BackfillView,
}

/// What became of one turn of a back-fill.
enum Turn {
    Done,
    Worked,
    /// Nothing to do before.
    Waits(Instant),
}

impl Backfills {
    pub(super) fn replaced(&self, old: Option<&Arc<Generation>>) {
        if let Some(old) = old {
            self.draining.lock().entry(old.service.clone()).or_default().push(Arc::downgrade(old));
        }
        self.due.notify_one();
    }

    pub(super) fn views(&self, live: &Generation) -> Vec<BackfillView> {
        let states = self.states.lock();
        let of_service = states.iter().filter(|((service, _), state)| *service == live.service && state.generation == live.number());
        of_service.map(|(_, state)| state.view.clone()).collect()
    }

    /// Whether calls that began on an earlier generation may still write. A call ends by its deadline, whatever else holds its generation.
    fn is_draining(&self, live: &Generation) -> bool {
        let mut draining = self.draining.lock();
        let is_over = live.live_since.get().is_none_or(|since| since.elapsed() > Duration::from_millis(limits::SWAP_DRAIN_MS));
        let Some(olds) = draining.get_mut(&live.service) else { return false };
        olds.retain(|old| !is_over && old.strong_count() > 0);
        if olds.is_empty() {
            draining.remove(&live.service);
            return false;
        }
        true
    }
}

impl Runtime {
    /// Runs the back-fills of the live versions, until `shutdown`. What is not done by then goes on at the next start.
    pub async fn run_backfills(self: Arc<Self>, leases: Arc<dyn Leases>, shutdown: CancellationToken) {
        loop {
            let began = Instant::now();
            let (has_worked, next_at) = self.run_batches(&*leases).await;
            let rest = (began.elapsed() * limits::SQL_BACKFILL_REST).max(Duration::from_millis(limits::SQL_BACKFILL_REST_MS));
            let next_at = next_at.unwrap_or(began + Duration::from_millis(limits::SQL_BACKFILL_RETRY_LAST_MS));
            tokio::select! {
                () = tokio::time::sleep(rest), if has_worked => {}
                () = tokio::time::sleep_until(next_at.into()), if !has_worked => {}
                () = self.backfills.due.notified(), if !has_worked => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One batch of each service that has something to fill in. Whether there was any, and when there may be.
    async fn run_batches(&self, leases: &dyn Leases) -> (bool, Option<Instant>) {
        let (mut has_worked, mut next_at) = (false, None::<Instant>);
        let catalogue = self.pin();
        for generation in catalogue.generations() {
            for step in self.migrations_of(&generation.artifact).iter().filter(|step| step.is_backfill()) {
                match self.run_batch(leases, generation, step).await {
                    Turn::Done => continue,
                    Turn::Worked => has_worked = true,
                    Turn::Waits(until) => next_at = Some(next_at.map_or(until, |at| at.min(until))),
                }
                // One after the other: a later one may need what an earlier one fills in.
                break;
            }
        }
        (has_worked, next_at)
    }

    async fn run_batch(&self, leases: &dyn Leases, generation: &Arc<Generation>, step: &Migration) -> Turn {
        let now = Instant::now();
        let key = (generation.service.clone(), step.name.clone());
        let database = &*generation.pool.capabilities().database;
        let known = self.backfills.states.lock().get(&key).map(|state| (state.generation, state.view.state, state.again_at));
        match known {
            Some((number, "done", _)) if number == generation.number() => return Turn::Done,
            Some((number, _, again_at)) if number == generation.number() && again_at > now => return Turn::Waits(again_at),
            Some((number, ..)) if number == generation.number() => {}
            _ => match self.look_up(generation, step, database).await {
                Ok(state) => drop(self.backfills.states.lock().insert(key.clone(), state)),
                Err(error) => {
                    tracing::warn!(service = %generation.service, backfill = step.name, %error, "how far a back-fill has come cannot be read yet");
                    return Turn::Waits(now + Duration::from_millis(limits::SQL_BACKFILL_RETRY_FIRST_MS));
                }
            },
        }
        let (backfill, rows_max) = match self.backfills.states.lock().get(&key) {
            Some(state) if state.view.state == "done" => return Turn::Done,
            Some(state) => (state.backfill.clone(), state.rows_max),
            None => return Turn::Done,
        };
        if self.backfills.is_draining(generation) || self.may_run_elsewhere(generation).await {
            return Turn::Waits(now + Duration::from_millis(limits::PROBATION_TICK_MS));
        }
        match leases.take(LEASE, Duration::from_millis(limits::SQL_BACKFILL_LEASE_MS)).await {
            Ok(Some(_)) => {}
            Ok(None) => return self.follow_another_host(&key, step, database).await,
            Err(error) => {
                tracing::warn!(service = %generation.service, backfill = step.name, %error, "a back-fill waits");
                return Turn::Waits(now + Duration::from_millis(limits::SQL_BACKFILL_RETRY_FIRST_MS));
            }
        }
        let outcome = database.backfill(&backfill, rows_max, Duration::from_millis(limits::SQL_BACKFILL_TIMEOUT_MS)).await;
        let mut states = self.backfills.states.lock();
        let Some(state) = states.get_mut(&key) else { return Turn::Done };
        state.take(&generation.service, outcome, now.elapsed())
    }

    /// Another host fills in: how far it has come, for the operator, and whether it is done.
    async fn follow_another_host(&self, key: &(ServiceName, String), step: &Migration, database: &dyn Database) -> Turn {
        let progress = database.backfill_progress(&step.name).await;
        let mut states = self.backfills.states.lock();
        let Some(state) = states.get_mut(key) else { return Turn::Done };
        if let Ok(Some(progress)) = progress {
            state.view.rows = progress.rows;
            state.view.state = if progress.is_done { "done" } else { "running" };
            if progress.is_done {
                return Turn::Done;
            }
        }
        state.again_at = Instant::now() + Duration::from_millis(limits::SQL_BACKFILL_RETRY_FIRST_MS);
        Turn::Waits(state.again_at)
    }

    /// Where it stands. A version without the columns that was live since it began has written rows that it has passed: it starts again then.
    async fn look_up(&self, generation: &Generation, step: &Migration, database: &dyn Database) -> Result<State, MigrateError> {
        let refuses = |reason| MigrateError::NotAdditive { name: step.name.clone(), reason };
        let backfill = Backfill::of(step, &generation.artifact.migrations).map_err(refuses)?;
        let mut progress = database.backfill_progress(&step.name).await?.unwrap_or_default();
        if progress.began_us > 0 && self.was_live_without(&self.versions.of(&generation.service), step, progress.began_us) {
            database.restart_backfill(&step.name).await?;
            progress.is_done = false;
        }
        Ok(State {
            generation: generation.number(),
            rows_max: limits::SQL_BACKFILL_ROWS_FIRST,
            again_at: Instant::now(),
            backoff: Backoff::from_ms(limits::SQL_BACKFILL_RETRY_FIRST_MS, limits::SQL_BACKFILL_RETRY_LAST_MS),
            view: BackfillView {
                name: step.name.trim_end_matches(Migration::BACKFILL).to_owned(),
                state: if progress.is_done { "done" } else { "waiting" },
                rows: progress.rows,
                error: None,
            },
            backfill,
        })
    }

    fn was_live_without(&self, versions: &Versions, step: &Migration, since_us: u64) -> bool {
        let knows = |version: &str| versions.artifact(version).is_some_and(|artifact| self.migrations_of(artifact).contains(step));
        versions.history().windows(2).any(|pair| pair[1].at_us > since_us && !knows(&pair[0].version))
    }
}

impl State {
    fn take(&mut self, service: &ServiceName, outcome: Result<BackfillProgress, MigrateError>, took: Duration) -> Turn {
        let view = &mut self.view;
        match outcome {
            Ok(progress) => {
                (view.rows, view.error) = (progress.rows, None);
                self.backoff.reset();
                if progress.is_done {
                    view.state = "done";
                    tracing::info!(%service, backfill = view.name, rows = view.rows, "a back-fill is done");
                    return Turn::Done;
                }
                view.state = "running";
                self.rows_max = match took > Duration::from_millis(limits::SQL_BACKFILL_BATCH_MS) {
                    true => (self.rows_max / 2).max(limits::SQL_BACKFILL_ROWS_FIRST / 10),
                    false => (self.rows_max * 2).min(limits::SQL_BACKFILL_ROWS_MAX),
                };
                Turn::Worked
            }
            Err(MigrateError::Failed { source, .. }) if source.class == ErrorClass::Timeout && self.rows_max > 1 => {
                self.rows_max = (self.rows_max / 8).max(1);
                Turn::Worked
            }
            Err(error) => {
                let pause = self.backoff.pause();
                let retry_ms = pause.as_millis() as u64;
                tracing::warn!(%service, backfill = view.name, %error, retry_ms, "a back-fill cannot go on");
                (view.state, view.error) = ("failing", Some(error.to_string()));
                self.again_at = Instant::now() + pause;
                Turn::Waits(self.again_at)
            }
        }
    }
}
