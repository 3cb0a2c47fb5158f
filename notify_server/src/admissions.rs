//! How many streams are open here, one person's and all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fechatter_core::UserId;
use fechatter_core::config::NotifyConfig;

/// Counts streams by person, from before they start until they are gone.
#[derive(Debug)]
pub(crate) struct Admissions {
    per_user: usize,
    in_all: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_user: HashMap<UserId, usize>,
    in_all: usize,
}

/// Why there is no place for another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The person has all that one person may have.
    OfTheirs,
    /// The server has all that it may have.
    OfAll,
}

/// A stream's place among its person's; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    admissions: Arc<Admissions>,
    user_id: UserId,
}

impl Admissions {
    pub(crate) fn new(config: &NotifyConfig) -> Self {
        Self { per_user: config.streams_per_user, in_all: config.streams, open: Mutex::default() }
    }

    /// A place for one more stream, if there is one.
    pub(crate) fn admit(self: &Arc<Self>, user_id: UserId) -> Result<Admission, Full> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = open.by_user.get(&user_id).copied().unwrap_or_default();
        if theirs >= self.per_user {
            return Err(Full::OfTheirs);
        }
        if open.in_all >= self.in_all {
            return Err(Full::OfAll);
        }
        open.by_user.insert(user_id, theirs + 1);
        open.in_all += 1;
        Ok(Admission { admissions: Arc::clone(self), user_id })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.admissions.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.in_all -= 1;
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
        let admissions = Arc::new(Admissions { per_user: 2, in_all: 3, open: Mutex::default() });
        let (one, two) = (admissions.admit(UserId(1)), admissions.admit(UserId(1)));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(admissions.admit(UserId(1)).unwrap_err(), Full::OfTheirs);
        let other = admissions.admit(UserId(2));
        assert_eq!(admissions.admit(UserId(3)).unwrap_err(), Full::OfAll);

        drop(one);
        assert!(admissions.admit(UserId(1)).is_ok());
        drop((two, other));
        let open = admissions.open.lock().unwrap();
        assert_eq!((open.by_user.len(), open.in_all), (0, 0));
    }
}
