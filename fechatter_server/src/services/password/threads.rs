//! Threads that hash passwords.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use argon2::Block;
use fechatter_core::permits::{PermitLimits, Permits};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::services::limits::Caller;

/// The memory of a thread, which all its hashes use. If each hash allocates its own memory, the
/// allocator keeps eight times as much.
#[derive(Default)]
pub(super) struct Memory(pub(super) Vec<Block>);

/// The two classes of callers: known and unknown devices. They are served alternately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Known,
    Unknown,
}

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// A pool of threads, with its queue. Clones share it; the threads end after the last clone is
/// dropped.
#[derive(Debug, Clone)]
pub(super) struct Threads {
    jobs: mpsc::UnboundedSender<Job>,
    /// Callers take turns: first by class, then by address or device.
    running: Permits<Class, Caller>,
}

/// The share of processor time that a thread gets when other threads also need it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Priority {
    /// The same as each other thread.
    Normal,
    /// On Linux a tenth of the normal share, elsewhere the same.
    Low,
}

impl Threads {
    pub(super) fn start(count: usize, priority: Priority) -> io::Result<Self> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let running = Permits::new(PermitLimits {
            total: count,
            per_group: count,
            per_member: count,
            waiting_per_group: usize::MAX,
        });
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..count {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("passwords".into()).spawn(move || {
                if let Priority::Low = priority {
                    lower_priority();
                }
                run_jobs(&queue);
            })?;
        }
        Ok(Self { jobs, running })
    }

    /// Runs the work of a caller when it is the caller's turn. Returns none if the work panicked.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        (class, caller): (Class, Caller),
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Option<T> {
        let running = self.running.acquire(class, caller).await.ok()?;
        let (answer, answered) = oneshot::channel();
        let job = move |memory: &mut Memory| {
            let _running = running;
            // The work is skipped if its caller has stopped waiting.
            if !answer.is_closed() {
                let _ = answer.send(work(memory));
            }
        };
        self.jobs.send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

/// Lowers the thread's weight to a tenth of that of other threads.
#[cfg(target_os = "linux")]
fn lower_priority() {
    use rustix::process::setpriority_process;
    use rustix::thread::gettid;

    /// Each step of niceness is a factor of 1.25, see `sched(7)`.
    const NICENESS: i32 = 10;
    // On Linux, unlike in POSIX, each thread has its own priority.
    if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
        tracing::debug!(%error, "the priority of a thread for passwords could not be lowered");
    }
}

/// On other systems the thread keeps the priority of its process.
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

fn run_jobs(queue: &Mutex<mpsc::UnboundedReceiver<Job>>) {
    let mut memory = Memory::default();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(|| job(&mut memory))).is_err() {
            error!("hashing a password panicked");
        }
    }
}
