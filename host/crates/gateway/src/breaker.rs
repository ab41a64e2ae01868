//! Circuit breaker: calls of a service that fails are refused for a pause. Knows no HTTP.
//!
//! The rule, so that neither one bad route nor one hostile user closes a healthy service:
//! - Faults are traps, broken bounds and time-outs of the service. A call that the service declined counts as good. One that never reached it (bad
//!   input, no free slot) does not count: else a client could dilute the share, and a busy service would look broken.
//! - Each route has a circuit of its own. It opens when, within `BREAKER_WINDOW_MS`, at least `BREAKER_CALLS_MIN` calls had a share of
//!   faults of `BREAKER_FAILURE_SHARE`, met by at least `BREAKER_CALLERS_MIN` different callers. Calls of an open route are refused and add no further faults.
//! - The whole service's circuit opens by the same rule, if besides that the faults come from more than one route.
//! - After `BREAKER_PAUSE_MS` one call is let through as a probe: a good one closes the circuit, a fault opens it for another pause.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use metrics::Gauge;
use parking_lot::Mutex;

use echo_base::limits;
use echo_base::names::ServiceName;

/// One service's circuits. A new version of the service gets new ones.
pub struct Breaker {
    whole: Circuit,
    routes: Box<[Circuit]>,
    /// From how many routes the faults must come that open the whole.
    routes_min: usize,
    open_gauge: Gauge,
}

/// The outcome of a call, as the circuit counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    Good,
    Fault,
    /// Says nothing about the service.
    Neutral,
}

/// The right to make one call. Dropped without an outcome (the client went away), it counts as `Neutral`.
pub struct Permit<'a> {
    breaker: &'a Breaker,
    route: usize,
    probes_whole: bool,
    probes_route: bool,
}

impl Breaker {
    pub fn new(service: &ServiceName, routes_count: usize) -> Self {
        Self::named(service.to_string(), routes_count, 2)
    }

    /// Of an outside service, whose routes nobody knows here: it has one circuit.
    pub fn of_prefix(prefix: &str) -> Self {
        Self::named(prefix.to_owned(), 1, 1)
    }

    fn named(name: String, routes_count: usize, routes_min: usize) -> Self {
        let open_gauge = metrics::gauge!("echo_breaker_open", "service" => name);
        open_gauge.set(0.0);
        Self { whole: Circuit::default(), routes: (0..routes_count).map(|_| Circuit::default()).collect(), routes_min, open_gauge }
    }

    /// Lets a call through, or says after how long it is worth trying again. `route` counts from 0.
    pub fn admit(&self, route: usize, now_ms: u64) -> Result<Permit<'_>, Duration> {
        let probes_whole = self.whole.admit(now_ms)?;
        match self.routes[route].admit(now_ms) {
            Ok(probes_route) => Ok(Permit { breaker: self, route, probes_whole, probes_route }),
            Err(wait) => {
                if probes_whole {
                    self.whole.end_probe();
                }
                Err(wait)
            }
        }
    }

    /// Whether all calls of the service are refused now.
    pub fn is_open(&self) -> bool {
        self.whole.open_until_ms.load(Ordering::Relaxed) != 0
    }
}

impl Permit<'_> {
    /// `caller`: any number that differs between callers.
    pub fn complete(mut self, outcome: CallOutcome, caller: u64, now_ms: u64) {
        if outcome == CallOutcome::Neutral {
            return;
        }
        let (whole, route) = (&self.breaker.whole, &self.breaker.routes[self.route]);
        let was_open = self.breaker.is_open();
        route.record(outcome, std::mem::take(&mut self.probes_route), now_ms, |faults| faults.note(caller, self.route), 1);
        whole.record(
            outcome,
            std::mem::take(&mut self.probes_whole),
            now_ms,
            |faults| faults.note(caller, self.route),
            self.breaker.routes_min,
        );
        let is_open = self.breaker.is_open();
        if was_open != is_open {
            self.breaker.open_gauge.set(if is_open { 1.0 } else { 0.0 });
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probes_whole {
            self.breaker.whole.end_probe();
        }
        if self.probes_route {
            self.breaker.routes[self.route].end_probe();
        }
    }
}

/// Closed: two atomic loads per call. Only faults take the lock.
#[derive(Default)]
struct Circuit {
    /// 0 while closed.
    open_until_ms: AtomicU64,
    probing: AtomicBool,
    window_start_ms: AtomicU64,
    calls: AtomicU32,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    count: u32,
    /// The first few different ones.
    callers: Vec<u64>,
    routes: Vec<usize>,
}

impl Faults {
    fn note(&mut self, caller: u64, route: usize) {
        self.count += 1;
        if self.callers.len() < limits::BREAKER_CALLERS_MIN && !self.callers.contains(&caller) {
            self.callers.push(caller);
        }
        if self.routes.len() < 2 && !self.routes.contains(&route) {
            self.routes.push(route);
        }
    }
}

impl Circuit {
    /// Whether this call is the probe, or how long to wait.
    fn admit(&self, now_ms: u64) -> Result<bool, Duration> {
        let open_until_ms = self.open_until_ms.load(Ordering::Relaxed);
        if open_until_ms == 0 {
            return Ok(false);
        }
        if now_ms < open_until_ms {
            return Err(Duration::from_millis(open_until_ms - now_ms));
        }
        if self.probing.swap(true, Ordering::AcqRel) {
            return Err(Duration::from_secs(1));
        }
        Ok(true)
    }

    fn end_probe(&self) {
        self.probing.store(false, Ordering::Release);
    }

    fn record(&self, outcome: CallOutcome, is_probe: bool, now_ms: u64, note: impl FnOnce(&mut Faults), routes_min: usize) {
        if is_probe {
            match outcome {
                CallOutcome::Good => {
                    self.begin_window(now_ms);
                    self.open_until_ms.store(0, Ordering::Relaxed);
                }
                _ => self.open(now_ms),
            }
            self.end_probe();
            return;
        }
        if self.open_until_ms.load(Ordering::Relaxed) != 0 {
            // Begun before it opened: the probe alone decides now.
            return;
        }
        if now_ms.saturating_sub(self.window_start_ms.load(Ordering::Relaxed)) >= limits::BREAKER_WINDOW_MS {
            self.begin_window(now_ms);
        }
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if outcome != CallOutcome::Fault {
            return;
        }
        let mut faults = self.faults.lock();
        note(&mut faults);
        let is_sick = calls >= limits::BREAKER_CALLS_MIN && f64::from(faults.count) >= limits::BREAKER_FAILURE_SHARE * f64::from(calls);
        if is_sick && faults.callers.len() >= limits::BREAKER_CALLERS_MIN && faults.routes.len() >= routes_min {
            self.open(now_ms);
        }
    }

    fn open(&self, now_ms: u64) {
        self.open_until_ms.store(now_ms + limits::BREAKER_PAUSE_MS, Ordering::Relaxed);
    }

    fn begin_window(&self, now_ms: u64) {
        // Two calls at the border may both begin it; a call or two is then not counted, which decides nothing.
        *self.faults.lock() = Faults::default();
        self.calls.store(0, Ordering::Relaxed);
        self.window_start_ms.store(now_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: u64 = limits::BREAKER_PAUSE_MS;

    fn breaker(routes: usize) -> Breaker {
        Breaker::new(&ServiceName::parse("test").unwrap(), routes)
    }

    /// How many of `calls` were let through.
    fn call(breaker: &Breaker, route: usize, calls: u64, callers: u64, outcome: CallOutcome, now_ms: u64) -> u64 {
        let admitted = (0..calls).filter_map(|i| Some((i, breaker.admit(route, now_ms).ok()?)));
        admitted.map(|(i, permit)| permit.complete(outcome, i % callers, now_ms)).count() as u64
    }

    #[test]
    fn it_opens_pauses_probes_once_and_closes() {
        let breaker = breaker(1);
        assert_eq!(call(&breaker, 0, 100, 3, CallOutcome::Fault, 1), u64::from(limits::BREAKER_CALLS_MIN));
        assert_eq!(breaker.admit(0, 1).err(), Some(Duration::from_millis(PAUSE)));

        let Ok(probe) = breaker.admit(0, 1 + PAUSE) else { panic!("no probe") };
        assert!(breaker.admit(0, 1 + PAUSE).is_err(), "one probe at a time");
        probe.complete(CallOutcome::Fault, 0, 1 + PAUSE);
        assert!(breaker.admit(0, 2 + PAUSE).is_err(), "a failed probe opens it again");

        assert_eq!(call(&breaker, 0, 1, 1, CallOutcome::Good, 1 + 2 * PAUSE), 1);
        assert_eq!(call(&breaker, 0, 50, 3, CallOutcome::Good, 1 + 2 * PAUSE), 50);
    }

    #[test]
    fn a_probe_without_a_verdict_makes_room_for_the_next() {
        let breaker = breaker(1);
        call(&breaker, 0, 100, 3, CallOutcome::Fault, 1);
        assert!(breaker.admit(0, 1 + PAUSE).is_ok(), "the probe, dropped at once");
        assert_eq!(call(&breaker, 0, 1, 1, CallOutcome::Good, 1 + PAUSE), 1);
        assert_eq!(call(&breaker, 0, 10, 3, CallOutcome::Good, 1 + PAUSE), 10);
    }

    #[test]
    fn one_hostile_caller_opens_nothing() {
        let breaker = breaker(2);
        assert_eq!(call(&breaker, 0, 1_000, limits::BREAKER_CALLERS_MIN as u64 - 1, CallOutcome::Fault, 1), 1_000);
        assert!(!breaker.is_open());
    }

    #[test]
    fn one_bad_route_is_closed_alone() {
        let breaker = breaker(2);
        call(&breaker, 0, 1_000, 9, CallOutcome::Fault, 1);
        assert!(breaker.admit(0, 1).is_err());
        assert!(!breaker.is_open());
        assert_eq!(call(&breaker, 1, 1_000, 9, CallOutcome::Good, 1), 1_000);
    }

    #[test]
    fn faults_on_several_routes_open_the_service() {
        let breaker = breaker(3);
        for caller in 0..u64::from(limits::BREAKER_CALLS_MIN) {
            let route = (caller % 2) as usize;
            if let Ok(permit) = breaker.admit(route, 1) {
                permit.complete(CallOutcome::Fault, caller, 1);
            }
        }
        assert!(breaker.is_open());
        assert!(breaker.admit(2, 1).is_err(), "also for a route that was never asked");
    }

    #[test]
    fn good_and_neutral_calls_keep_it_closed() {
        let breaker = breaker(1);
        for round in 0..200 {
            call(&breaker, 0, 3, 3, CallOutcome::Good, round);
            call(&breaker, 0, 2, 3, CallOutcome::Fault, round);
            call(&breaker, 0, 9, 3, CallOutcome::Neutral, round);
        }
        assert!(breaker.admit(0, 200).is_ok());
    }

    #[test]
    fn faults_of_an_old_window_are_forgotten() {
        let breaker = breaker(1);
        call(&breaker, 0, u64::from(limits::BREAKER_CALLS_MIN) - 1, 3, CallOutcome::Fault, 1);
        assert_eq!(call(&breaker, 0, 1, 3, CallOutcome::Fault, 1 + limits::BREAKER_WINDOW_MS), 1);
        assert!(breaker.admit(0, 1 + limits::BREAKER_WINDOW_MS).is_ok());
    }
}
