//! Threads that hash passwords.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use argon2::Block;
use fechatter_core::permits::{Permits, Shares};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::services::limits::Caller;

/// The memory of a thread, for one hash after the other. Where each hash took its own and gave it back, the
/// allocator was left with eight times as much.
#[derive(Default)]
pub(super) struct Memory(pub(super) Vec<Block>);

/// Known devices and strangers, which are served in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Known,
    Stranger,
}

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// Some threads, and those who wait for them. Clones share them; they end with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Threads {
    jobs: mpsc::UnboundedSender<Job>,
    /// Callers are served in turn: first the classes, then the addresses or devices of each.
    running: Permits<Class, Caller>,
}

/// How much of the processors a thread gets where others want them, too.
#[derive(Debug, Clone, Copy)]
pub(super) enum Priority {
    /// As much as each of the others.
    Normal,
    /// On Linux a tenth of that, elsewhere as much.
    Low,
}

impl Threads {
    pub(super) fn start(count: usize, priority: Priority) -> io::Result<Self> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let running = Permits::new(Shares {
            in_all: count,
            per_group: count,
            per_member: count,
            waiting_per_group: usize::MAX,
        });
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..count {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("passwords".into()).spawn(move || {
                if let Priority::Low = priority {
                    step_back();
                }
                work_off(&queue);
            })?;
        }
        Ok(Self { jobs, running })
    }

    /// Does some work for a caller, once it is their turn; none if it panicked.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        (class, caller): (Class, Caller),
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Option<T> {
        let running = self.running.acquire(class, caller).await.ok()?;
        let (answer, answered) = oneshot::channel();
        let job = move |memory: &mut Memory| {
            let _running = running;
            // Nobody waits for it any more: others do.
            if !answer.is_closed() {
                let _ = answer.send(work(memory));
            }
        };
        self.jobs.send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

/// Gives this thread a tenth of the others' part of a processor that they compete for.
#[cfg(target_os = "linux")]
fn step_back() {
    use rustix::process::setpriority_process;
    use rustix::thread::gettid;

    /// By `sched(7)`, each step of niceness is a factor of 1.25.
    const NICENESS: i32 = 10;
    // On Linux, unlike in POSIX, priorities are those of threads.
    if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
        tracing::debug!(%error, "passwords are hashed with the priority of everything else");
    }
}

/// Elsewhere a thread has its process's priority.
#[cfg(not(target_os = "linux"))]
fn step_back() {}

fn work_off(queue: &Mutex<mpsc::UnboundedReceiver<Job>>) {
    let mut memory = Memory::default();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(|| job(&mut memory))).is_err() {
            error!("hashing a password panicked");
        }
    }
}
