//! The limits on open streams: per person, and on this server in total.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fechatter_core::UserId;
use fechatter_core::config::NotifyConfig;

/// Counts streams by person, from before their start until they are closed.
#[derive(Debug)]
pub(crate) struct StreamLimits {
    per_user: usize,
    total: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_user: HashMap<UserId, usize>,
    total: usize,
}

/// The limit that refuses another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// The limit of a person.
    Person,
    /// The limit of this server.
    Server,
}

/// The right to one open stream; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    limits: Arc<StreamLimits>,
    user_id: UserId,
}

impl StreamLimits {
    pub(crate) fn new(config: &NotifyConfig) -> Self {
        Self { per_user: config.streams_per_user, total: config.streams, open: Mutex::default() }
    }

    /// Counts one more stream of a person.
    ///
    /// # Errors
    /// When a limit is reached.
    pub(crate) fn acquire(self: &Arc<Self>, user_id: UserId) -> Result<StreamPermit, LimitReached> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = open.by_user.get(&user_id).copied().unwrap_or_default();
        if theirs >= self.per_user {
            return Err(LimitReached::Person);
        }
        if open.total >= self.total {
            return Err(LimitReached::Server);
        }
        open.by_user.insert(user_id, theirs + 1);
        open.total += 1;
        Ok(StreamPermit { limits: Arc::clone(self), user_id })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.by_user.get_mut(&self.user_id) {
            *count -= 1;
            if *count == 0 {
                open.by_user.remove(&self.user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_stream_makes_room_for_another() {
        let limits = Arc::new(StreamLimits { per_user: 2, total: 3, open: Mutex::default() });
        let (one, two) = (limits.acquire(UserId(1)), limits.acquire(UserId(1)));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(limits.acquire(UserId(1)).unwrap_err(), LimitReached::Person);
        let other = limits.acquire(UserId(2));
        assert_eq!(limits.acquire(UserId(3)).unwrap_err(), LimitReached::Server);

        drop(one);
        assert!(limits.acquire(UserId(1)).is_ok());
        drop((two, other));
        let open = limits.open.lock().unwrap();
        assert_eq!((open.by_user.len(), open.total), (0, 0));
    }
}
