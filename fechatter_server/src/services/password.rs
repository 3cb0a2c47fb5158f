//! Password hashes with Argon2id, on separate threads and a limited number at a time.

mod threads;

use std::thread::available_parallelism;

use argon2::password_hash;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use fechatter_core::permits::{self, PermitLimits, Permits};
use fechatter_core::rate::Rates;
use tokio_util::sync::CancellationToken;

use self::threads::{Class, Memory, Priority, Threads};
use crate::error::{AppError, Result};
use crate::services::limits::Caller;
use crate::utils::text::Password;

/// The maximum number of callers per worker at a time; more are refused.
const CALLERS_PER_WORKER: usize = 24;
/// The maximum number of unknown devices, or of known devices, among these, so that neither class
/// can lock the other out.
const CALLERS_PER_CLASS: usize = 18;

/// The rate per second and the burst, for one caller and for all callers together, up to which
/// hashes run on the occasional thread. Further hashes run on the low-priority threads.
const OCCASIONAL_PER_CALLER: (u32, u32) = (1, 1);
const OCCASIONAL_IN_TOTAL: (u32, u32) = (10, 10);

/// Hashes and verifies passwords, on its own threads. Clones share them.
///
/// The parameters are the minimum that OWASP recommends: Argon2id, 19 MiB, 2 passes, 1 lane.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    callers: Permits<Class, Caller>,
    /// For callers with few sign-ins, so that they do not wait for the others.
    occasional_thread: Threads,
    /// For all other callers.
    low_priority_threads: Threads,
    rate: Rates<Caller>,
    total_rate: Rates<()>,
}

/// The hash to verify if there is no account, so that an unknown e-mail address costs as much as a
/// wrong password.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$EI3I8cfBTi7a5+VRgehH6g$\
     Hra1t5eptuFz6lkmtfE013zZ7HOHW2iZd5ZaxpRTmZE";

/// The right to have passwords hashed, one after the other. A caller must get it before any other
/// work is done for it, so that a flood of requests is rejected cheaply.
#[derive(Debug)]
pub(crate) struct HashPermit {
    passwords: Passwords,
    class: Class,
    caller: Caller,
    _permit: permits::Permit<Class, Caller>,
}

impl Passwords {
    /// Starts one thread for occasional sign-ins, and low-priority threads for all others: one per
    /// core but one, and at least one. The threads end after the last clone is dropped.
    ///
    /// # Errors
    /// Fails if the system has no randomness or cannot start a thread.
    pub(crate) fn new(per_address: usize) -> anyhow::Result<Self> {
        let workers = available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
        let callers = Permits::new(PermitLimits {
            total: workers * CALLERS_PER_WORKER,
            per_group: workers * CALLERS_PER_CLASS,
            per_member: per_address,
            waiting_per_group: 0,
        });
        let occasional_thread = Threads::start(1, Priority::Normal)?;
        let low_priority_threads = Threads::start(workers, Priority::Low)?;
        let (per_second, burst) = OCCASIONAL_PER_CALLER;
        let rate = Rates::new(per_second, burst);
        let (per_second, burst) = OCCASIONAL_IN_TOTAL;
        let total_rate = Rates::new(per_second, burst);
        Ok(Self { callers, occasional_thread, low_priority_threads, rate, total_rate })
    }

    /// Returns a permit, unless this caller, its class or all callers together have too many.
    ///
    /// # Errors
    /// Returns [`AppError::Busy`] if there are too many.
    pub(crate) fn permit(&self, caller: Caller) -> Result<HashPermit> {
        let class = match caller {
            Caller::Device(_) => Class::Known,
            _ => Class::Unknown,
        };
        let permit = self.callers.try_acquire(class, caller).ok_or(AppError::Busy)?;
        Ok(HashPermit { passwords: self.clone(), class, caller, _permit: permit })
    }

    /// Forgets callers that have been idle for a while, until the shutdown.
    pub(crate) fn forget_idle(
        &self,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        self.rate.clone().forget_idle(shutdown)
    }

    /// Returns the threads for this caller's next hash.
    fn threads(&self, caller: Caller) -> &Threads {
        if self.rate.take(caller, 1).is_err() {
            // The charge keeps a caller that continues at this rate on the low-priority threads.
            self.rate.charge(caller, 1);
            return &self.low_priority_threads;
        }
        if self.total_rate.take((), 1).is_ok() {
            &self.occasional_thread
        } else {
            &self.low_priority_threads
        }
    }

    /// Returns true if a hash was made with weaker parameters than the current ones.
    pub(crate) fn is_outdated(hash: &str) -> bool {
        let params = PasswordHash::new(hash).ok().and_then(|hash| Params::try_from(&hash).ok());
        params.is_none_or(|old| {
            old.m_cost() < Params::DEFAULT_M_COST || old.t_cost() < Params::DEFAULT_T_COST
        })
    }
}

impl HashPermit {
    /// Hashes a password into a PHC string.
    pub(crate) async fn hash(&self, password: &Password) -> Result<String> {
        let password = password.clone();
        self.work(move |memory| {
            let password = password.expose().as_bytes();
            let hash = memory.hash(password, Salt::generate(), &Argon2::default())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Checks the password against the hash. Without a hash it returns false after the same amount
    /// of work, to prevent timing attacks.
    pub(crate) async fn verify(&self, password: &Password, hash: Option<&str>) -> Result<bool> {
        let has_hash = hash.is_some();
        let hash = hash.unwrap_or(DUMMY_HASH).to_owned();
        let password = password.clone();
        self.work(move |memory| {
            let hash = PasswordHash::new(&hash)?;
            Ok(memory.verify(password.expose().as_bytes(), &hash)? && has_hash)
        })
        .await
    }

    async fn work<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Memory) -> password_hash::Result<T> + Send + 'static,
    {
        let threads = self.passwords.threads(self.caller);
        let result = threads.work((self.class, self.caller), work).await;
        Ok(result.ok_or(AppError::Busy)??)
    }
}

impl Memory {
    /// Hashes with the current version of Argon2id.
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZero;
    use std::ptr;
    use std::sync::mpsc;
    use std::time::Duration;

    use argon2::PasswordHasher;
    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;
    use crate::services::device_token::DeviceId;

    fn address(number: u32) -> Caller {
        Caller::Address(Ipv4Addr::from_bits(number).into())
    }

    #[tokio::test]
    async fn a_hash_verifies_its_password_only() {
        let permit = Passwords::new(9).unwrap().permit(address(1)).unwrap();
        let right = Password::from("correct horse".to_owned());
        let wrong = Password::from("correct house".to_owned());
        let hash = permit.hash(&right).await.unwrap();

        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(permit.verify(&right, Some(&hash)).await.unwrap());
        assert!(!permit.verify(&wrong, Some(&hash)).await.unwrap());
        assert!(
            !permit.verify(&Password::from("nobody's password".to_owned()), None).await.unwrap()
        );
        assert!(!Passwords::is_outdated(&hash));
    }

    #[test]
    fn the_dummy_hash_costs_as_much_as_others() {
        assert!(!Passwords::is_outdated(DUMMY_HASH));
        let hash = PasswordHash::new(DUMMY_HASH).unwrap();
        let params = Params::try_from(&hash).unwrap();
        assert_eq!(params.m_cost(), Params::DEFAULT_M_COST);
        assert_eq!(params.t_cost(), Params::DEFAULT_T_COST);
    }

    #[test]
    fn hashes_with_reused_memory_are_those_of_the_argon2_crate() {
        let mut memory = Memory::default();
        let small = Argon2::from(Params::new(64, 3, 1, Some(24)).unwrap());
        for argon2 in [Argon2::default(), small, Argon2::default()] {
            let expected: PasswordHash = argon2.hash_password(b"horse").unwrap();
            let hash = memory.hash(b"horse", expected.salt.unwrap(), &argon2).unwrap();
            assert_eq!(hash.to_string(), expected.to_string());
            assert!(memory.verify(b"horse", &expected).unwrap());
            assert!(!memory.verify(b"house", &expected).unwrap());
        }
    }

    #[tokio::test]
    async fn an_address_has_a_limited_number_of_permits_and_can_reuse_them() {
        let passwords = Passwords::new(4).unwrap();
        let mut permits: Vec<_> =
            std::iter::from_fn(|| passwords.permit(address(1)).ok()).take(100).collect();
        assert_eq!(permits.len(), 4);
        passwords.permit(address(2)).unwrap();
        permits.pop();
        passwords.permit(address(1)).unwrap();
    }

    #[tokio::test]
    async fn unknown_devices_from_many_addresses_leave_permits_for_known_devices() {
        let passwords = Passwords::new(4).unwrap();
        let unknown: Vec<_> =
            (0..).map_while(|number| passwords.permit(address(number)).ok()).collect();
        assert!(unknown.len() >= CALLERS_PER_CLASS, "{}", unknown.len());
        passwords.permit(Caller::Device(DeviceId::random())).unwrap();
    }

    /// Hashes a password with `permit` while `count` jobs of `blocking` do not end.
    async fn hash_while_blocked(blocking: &HashPermit, count: usize, permit: &HashPermit) {
        let (end_senders, blocked): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (end, ended) = mpsc::channel::<()>();
                let work = move |_: &mut Memory| {
                    let _ = ended.recv();
                    Ok(())
                };
                (end, blocking.work(work))
            })
            .unzip();
        let password = Password::from("horse".to_owned());
        let hashed = async {
            tokio::select! {
                biased;
                _ = join_all(blocked) => panic!("the blocking jobs end too early"),
                hashed = permit.hash(&password) => hashed.unwrap(),
            }
        };
        timeout(Duration::from_secs(30), hashed).await.expect("a thread is free");
        drop(end_senders);
    }

    #[tokio::test]
    async fn an_occasional_caller_does_not_wait_for_a_frequent_caller() {
        let passwords = Passwords::new(9).unwrap();
        let frequent = passwords.permit(address(1)).unwrap();
        while passwords.rate.take(address(1), 1).is_ok() {}
        let cores = available_parallelism().map_or(1, NonZero::get);
        hash_while_blocked(&frequent, cores, &passwords.permit(address(2)).unwrap()).await;
    }

    #[tokio::test]
    async fn a_caller_beyond_the_burst_uses_the_low_priority_threads() {
        let passwords = Passwords::new(9).unwrap();
        let permit = passwords.permit(address(1)).unwrap();
        let (_, burst) = OCCASIONAL_PER_CALLER;
        hash_while_blocked(&permit, burst as usize, &permit).await;
    }

    #[tokio::test]
    async fn a_caller_that_continues_beyond_its_rate_waits_longer_for_it() {
        let passwords = Passwords::new(9).unwrap();
        let (per_second, burst) = OCCASIONAL_PER_CALLER;
        for _ in 0..=burst {
            passwords.threads(address(1));
        }
        let wait = passwords.rate.take(address(1), 1).unwrap_err();
        assert!(wait > Duration::from_secs(1) / per_second, "{wait:?}");
    }

    #[tokio::test]
    async fn many_callers_together_exceed_the_total_rate() {
        let passwords = Passwords::new(9).unwrap();
        let (_, burst) = OCCASIONAL_IN_TOTAL;
        let is_occasional = |number| {
            ptr::eq(passwords.threads(address(number)), &raw const passwords.occasional_thread)
        };
        assert!((0..burst).all(is_occasional));
        assert!(!(burst..100).all(is_occasional));
    }
}
