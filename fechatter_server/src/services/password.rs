//! Password hashes: Argon2id, off the async threads, a few at a time.

use std::sync::Arc;
use std::thread::available_parallelism;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use tokio::sync::Semaphore;

use crate::error::{AppError, Result};
use crate::utils::text::Password;

/// Callers that may wait for each hash in work; more are refused.
const WAITING_PER_PERMIT: usize = 8;

/// Hashes and checks passwords. Clones share the limits.
///
/// The parameters are the least that OWASP recommends: Argon2id, 19 MiB, 2 passes, 1 lane.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    working: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    /// Checked when there is no account, so that an unknown e-mail costs as much as a wrong
    /// password.
    nobody: Arc<str>,
}

impl Passwords {
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn new() -> Result<Self, password_hash::Error> {
        let permits = available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
        let nobody: PasswordHash = Argon2::default().hash_password(b"nobody's password")?;
        Ok(Self {
            working: Arc::new(Semaphore::new(permits)),
            admitted: Arc::new(Semaphore::new(permits * (1 + WAITING_PER_PERMIT))),
            nobody: nobody.to_string().into(),
        })
    }

    /// The hash of a password, as a PHC string.
    pub(crate) async fn hash(&self, password: &Password) -> Result<String> {
        let password = password.clone();
        self.work(move || {
            let hash: PasswordHash =
                Argon2::default().hash_password(password.expose().as_bytes())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password is the hash's. Without a hash it is not, after the same time.
    pub(crate) async fn verify(&self, password: &Password, hash: Option<&str>) -> Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        let password = password.clone();
        self.work(move || {
            let hash = PasswordHash::new(&hash)?;
            match Argon2::default().verify_password(password.expose().as_bytes(), &hash) {
                Ok(()) => Ok(known),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Whether a hash was made with weaker parameters than those of today.
    pub(crate) fn is_outdated(hash: &str) -> bool {
        let params = PasswordHash::new(hash).ok().and_then(|hash| Params::try_from(&hash).ok());
        params.is_none_or(|old| {
            old.m_cost() < Params::DEFAULT_M_COST || old.t_cost() < Params::DEFAULT_T_COST
        })
    }

    async fn work<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, password_hash::Error> + Send + 'static,
    {
        let admitted =
            Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| AppError::Busy)?;
        let working =
            Arc::clone(&self.working).acquire_owned().await.map_err(|_| AppError::Busy)?;
        // The permits go with the work: a caller who gives up does not make room for more.
        let done = tokio::task::spawn_blocking(move || {
            let _permits = (admitted, working);
            work()
        });
        Ok(done.await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_verifies_its_password_only() {
        let passwords = Passwords::new().unwrap();
        let right = Password::from("correct horse".to_owned());
        let wrong = Password::from("correct house".to_owned());
        let hash = passwords.hash(&right).await.unwrap();

        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify(&right, Some(&hash)).await.unwrap());
        assert!(!passwords.verify(&wrong, Some(&hash)).await.unwrap());
        assert!(
            !passwords.verify(&Password::from("nobody's password".to_owned()), None).await.unwrap()
        );
        assert!(!Passwords::is_outdated(&hash));
    }
}
