//! The worker threads of one file, for statements that take long. They run at a lower priority than the serving threads, and end after a while without work.
//! A caller that gives them work holds one of the file's connections, so there are never more workers than connections.

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;
use echo_base::priority;

pub type Work = Box<dyn FnOnce() + Send>;

pub struct Workers {
    name: String,
    idle: Mutex<Vec<Worker>>,
}

/// A thread that waits for its next work.
struct Worker {
    number: usize,
    work: SyncSender<Work>,
}

impl Workers {
    /// `file` is part of the threads' names.
    pub fn new(file: &str) -> Arc<Self> {
        // Longer names are cut by the operating system (15 bytes on Linux).
        Arc::new(Self { name: format!("sql-{file}"), idle: Mutex::new(Vec::new()) })
    }

    /// Errors: `Unavailable` where no thread can be had. The work is dropped then.
    pub fn run(self: &Arc<Self>, mut work: Work) -> Result<(), SqlError> {
        loop {
            let Some(worker) = self.idle.lock().pop() else { break };
            match worker.work.try_send(work) {
                Ok(()) => return Ok(()),
                // It has just ended.
                Err(TrySendError::Disconnected(back) | TrySendError::Full(back)) => work = back,
            }
        }
        let workers = Arc::downgrade(self);
        let started = std::thread::Builder::new().name(self.name.clone()).spawn(move || serve(&workers, work));
        started.map(drop).map_err(|error| SqlError::new(ErrorClass::Unavailable, format!("no thread for the statement: {error}")))
    }
}

fn serve(workers: &Weak<Workers>, first: Work) {
    priority::step_back(limits::SQLITE_THREAD_NICENESS);
    let (sender, works) = mpsc::sync_channel(1);
    first();
    // The address of what only this thread has: unlike all others that wait.
    let number = std::ptr::from_ref(&works).addr();
    loop {
        {
            let Some(workers) = workers.upgrade() else { return };
            workers.idle.lock().push(Worker { number, work: sender.clone() });
        }
        match works.recv_timeout(Duration::from_millis(limits::SQLITE_THREAD_IDLE_MS)) {
            Ok(work) => work(),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(workers) = workers.upgrade() {
                    let mut idle = workers.idle.lock();
                    let before = idle.len();
                    idle.retain(|worker| worker.number != number);
                    if idle.len() == before {
                        // A caller has taken it meanwhile: the work is on its way.
                        drop(idle);
                        match works.recv() {
                            Ok(work) => work(),
                            Err(_) => return,
                        }
                        continue;
                    }
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::thread::ThreadId;

    fn run(workers: &Arc<Workers>) -> ThreadId {
        let (says, hears) = mpsc::channel();
        workers.run(Box::new(move || says.send(std::thread::current().id()).expect("heard"))).expect("a thread");
        hears.recv().expect("it runs")
    }

    fn idle(workers: &Workers, count: usize) {
        while workers.idle.lock().len() < count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_idle_thread_is_used_again_and_a_busy_one_is_not_waited_for() {
        let workers = Workers::new("test");
        let first = run(&workers);
        idle(&workers, 1);
        assert_eq!(run(&workers), first);
        idle(&workers, 1);
        let (release, held) = mpsc::channel::<()>();
        workers.run(Box::new(move || assert!(held.recv().is_err()))).expect("a thread");
        assert_ne!(run(&workers), first);
        drop(release);
        idle(&workers, 2);
    }
}
