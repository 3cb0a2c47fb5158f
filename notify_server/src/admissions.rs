//! How many streams one person has open here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fechatter_core::UserId;

/// Counts streams by person, from before they start until they are gone.
#[derive(Debug)]
pub(crate) struct Admissions {
    limit: usize,
    open: Mutex<HashMap<UserId, usize>>,
}

/// A stream's place among its person's; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    admissions: Arc<Admissions>,
    user_id: UserId,
}

impl Admissions {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, open: Mutex::default() }
    }

    /// A place for one more stream, if the person may have one.
    pub(crate) fn admit(self: &Arc<Self>, user_id: UserId) -> Option<Admission> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(user_id).or_default();
        (*count < self.limit).then(|| {
            *count += 1;
            Admission { admissions: Arc::clone(self), user_id }
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.admissions.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.user_id) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_stream_makes_room_for_another() {
        let admissions = Arc::new(Admissions::new(2));
        let (one, two) = (admissions.admit(UserId(1)), admissions.admit(UserId(1)));
        assert!(one.is_some() && two.is_some());
        assert!(admissions.admit(UserId(1)).is_none());
        assert!(admissions.admit(UserId(2)).is_some());

        drop(one);
        assert!(admissions.admit(UserId(1)).is_some());
        drop(two);
        assert!(admissions.open.lock().unwrap().is_empty());
    }
}
