//! Password hashes: Argon2id, off the async threads, a few at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, available_parallelism};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{self, PasswordHasher};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use fechatter_core::turns::{self, Shares, Turns};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::error::{AppError, Result};
use crate::middlewares::limits::Caller;
use crate::utils::text::Password;

/// Callers that each worker may have at a time; more are refused.
const CALLERS_PER_WORKER: usize = 24;
/// How many of these may be strangers, or known devices: neither can keep the other out.
const CALLERS_PER_CLASS: usize = 18;

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// A worker's, for one hash after the other. Where each hash took its own and gave it back, the
/// allocator was left with eight times as much.
#[derive(Default)]
struct Memory(Vec<Block>);

/// Hashes and checks passwords, on threads of their own. Clones share them.
///
/// The parameters are the least that OWASP recommends: Argon2id, 19 MiB, 2 passes, 1 lane.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    jobs: mpsc::UnboundedSender<Job>,
    callers: Turns<Class, Caller>,
    /// Callers are served in turn: first the classes, then the addresses or devices of each.
    running: Turns<Class, Caller>,
    /// Checked when there is no account, so that an unknown e-mail costs as much as a wrong
    /// password.
    nobody: Arc<str>,
}

/// The right to have passwords hashed, one after the other. To be had before anything else is done
/// for a caller: whoever comes in a flood is to cost next to nothing.
#[derive(Debug)]
pub(crate) struct Turn {
    passwords: Passwords,
    class: Class,
    caller: Caller,
    _place: turns::Turn<Class, Caller>,
}

/// Known devices and strangers, which are served in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    Known,
    Stranger,
}

impl Passwords {
    /// Starts a worker for each core but one. They end with the last clone of this. On Linux they get a
    /// third of the processors that others want, too: sign-ins may come by the hundred while others chat.
    ///
    /// # Errors
    /// When the system has no randomness or no thread to give.
    pub(crate) fn new(per_address: usize) -> anyhow::Result<Self> {
        let workers = available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
        let (jobs, queue) = mpsc::unbounded_channel();
        let callers = Turns::new(Shares {
            in_all: workers * CALLERS_PER_WORKER,
            per_group: workers * CALLERS_PER_CLASS,
            per_member: per_address,
            waiting_per_group: 0,
        });
        let running = Turns::new(Shares {
            in_all: workers,
            per_group: workers,
            per_member: workers,
            waiting_per_group: usize::MAX,
        });
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..workers {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("passwords".into()).spawn(move || {
                step_back();
                work_off(&queue);
            })?;
        }
        let nobody: PasswordHash = Argon2::default().hash_password(b"nobody's password")?;
        Ok(Self { jobs, callers, running, nobody: nobody.to_string().into() })
    }

    /// A turn, if there are not too many callers already, from this address or in all.
    ///
    /// # Errors
    /// [`AppError::Busy`].
    pub(crate) fn turn(&self, caller: Caller) -> Result<Turn> {
        let class = match caller {
            Caller::Device(_) => Class::Known,
            _ => Class::Stranger,
        };
        let place = self.callers.try_acquire(class, caller).ok_or(AppError::Busy)?;
        Ok(Turn { passwords: self.clone(), class, caller, _place: place })
    }

    /// Whether a hash was made with weaker parameters than those of today.
    pub(crate) fn is_outdated(hash: &str) -> bool {
        let params = PasswordHash::new(hash).ok().and_then(|hash| Params::try_from(&hash).ok());
        params.is_none_or(|old| {
            old.m_cost() < Params::DEFAULT_M_COST || old.t_cost() < Params::DEFAULT_T_COST
        })
    }
}

impl Turn {
    /// Whose turn it is.
    pub(crate) fn caller(&self) -> Caller {
        self.caller
    }

    /// The hash of a password, as a PHC string.
    pub(crate) async fn hash(&self, password: &Password) -> Result<String> {
        let password = password.clone();
        self.work(move |memory| {
            let password = password.expose().as_bytes();
            let hash = memory.hash(password, Salt::generate(), &Argon2::default())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password is the hash's. Without a hash it is not, after the same time.
    pub(crate) async fn verify(&self, password: &Password, hash: Option<&str>) -> Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.passwords.nobody).to_owned();
        let password = password.clone();
        self.work(move |memory| {
            let hash = PasswordHash::new(&hash)?;
            Ok(memory.verify(password.expose().as_bytes(), &hash)? && known)
        })
        .await
    }

    async fn work<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Memory) -> password_hash::Result<T> + Send + 'static,
    {
        let running = self.passwords.running.acquire(self.class, self.caller).await;
        let running = running.map_err(|_| AppError::Busy)?;
        let (answer, answered) = oneshot::channel();
        let job = move |memory: &mut Memory| {
            let _running = running;
            // Nobody waits for it any more: others do.
            if !answer.is_closed() {
                let _ = answer.send(work(memory));
            }
        };
        self.passwords.jobs.send(Box::new(job)).map_err(|_| AppError::Busy)?;
        Ok(answered.await.map_err(|_| AppError::Busy)??)
    }
}

impl Memory {
    /// With an Argon2id of today's version.
    fn hash(
        &mut self,
        password: &[u8],
        salt: Salt,
        argon2: &Argon2<'_>,
    ) -> password_hash::Result<PasswordHash> {
        Ok(PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(argon2.params())?,
            salt: Some(salt),
            hash: Some(self.output(password, &salt, argon2)?),
        })
    }

    fn verify(&mut self, password: &[u8], hash: &PasswordHash) -> password_hash::Result<bool> {
        let salt = hash.salt.ok_or(password_hash::Error::SaltInvalid)?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
        let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let argon2 = Argon2::new(algorithm, version, Params::try_from(hash)?);
        // Outputs are compared in constant time.
        Ok(Some(self.output(password, &salt, &argon2)?) == hash.hash)
    }

    fn output(
        &mut self,
        password: &[u8],
        salt: &Salt,
        argon2: &Argon2<'_>,
    ) -> password_hash::Result<Output> {
        let params = argon2.params();
        let blocks = params.block_count();
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::new());
        }
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..length).ok_or(password_hash::Error::OutputSize)?;
        argon2.hash_password_into_with_memory(password, salt, output, &mut self.0[..blocks])?;
        Ok(Output::new(output)?)
    }
}

/// Gives this thread a third of the others' part of a processor that they compete for.
#[cfg(target_os = "linux")]
fn step_back() {
    use rustix::process::setpriority_process;
    use rustix::thread::gettid;

    /// By `sched(7)`, each step of niceness is a factor of 1.25.
    const NICENESS: i32 = 5;
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::services::device_token::DeviceId;

    fn address(number: u32) -> Caller {
        Caller::Address(Ipv4Addr::from_bits(number).into())
    }

    #[tokio::test]
    async fn a_hash_verifies_its_password_only() {
        let turn = Passwords::new(9).unwrap().turn(address(1)).unwrap();
        let right = Password::from("correct horse".to_owned());
        let wrong = Password::from("correct house".to_owned());
        let hash = turn.hash(&right).await.unwrap();

        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(turn.verify(&right, Some(&hash)).await.unwrap());
        assert!(!turn.verify(&wrong, Some(&hash)).await.unwrap());
        assert!(!turn.verify(&Password::from("nobody's password".to_owned()), None).await.unwrap());
        assert!(!Passwords::is_outdated(&hash));
    }

    #[test]
    fn hashes_are_those_of_everybody_else_whatever_the_memory_held_before() {
        let mut memory = Memory::default();
        let small = Argon2::from(Params::new(64, 3, 1, Some(24)).unwrap());
        for argon2 in [Argon2::default(), small, Argon2::default()] {
            let theirs: PasswordHash = argon2.hash_password(b"horse").unwrap();
            let ours = memory.hash(b"horse", theirs.salt.unwrap(), &argon2).unwrap();
            assert_eq!(ours.to_string(), theirs.to_string());
            assert!(memory.verify(b"horse", &theirs).unwrap());
            assert!(!memory.verify(b"house", &theirs).unwrap());
        }
    }

    #[tokio::test]
    async fn one_address_has_only_so_many_turns_and_each_comes_back() {
        let passwords = Passwords::new(4).unwrap();
        let mut turns: Vec<_> =
            std::iter::from_fn(|| passwords.turn(address(1)).ok()).take(100).collect();
        assert_eq!(turns.len(), 4);
        passwords.turn(address(2)).unwrap();
        turns.pop();
        passwords.turn(address(1)).unwrap();
    }

    #[tokio::test]
    async fn strangers_from_everywhere_leave_room_for_known_devices() {
        let passwords = Passwords::new(4).unwrap();
        let strangers: Vec<_> =
            (0..).map_while(|number| passwords.turn(address(number)).ok()).collect();
        assert!(strangers.len() >= CALLERS_PER_CLASS, "{}", strangers.len());
        passwords.turn(Caller::Device(DeviceId::random())).unwrap();
    }
}
