//! Counts the bytes of requests that are being received, and of responses that clients have not yet
//! read.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::token::AuthUser;
use fechatter_core::{UserId, WorkspaceId};

/// Bodies of at most this size are not counted, because the number of connections limits them.
pub(crate) const MAX_UNCOUNTED: usize = 16 * 1024;

/// A number of mebibytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MiB(pub(crate) usize);

impl MiB {
    fn bytes(self) -> usize {
        self.0.saturating_mul(1024 * 1024)
    }
}

/// The bytes in flight and their limits: in total, per workspace and per person. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct BytesInFlight {
    total: usize,
    per_workspace: usize,
    per_person: usize,
    totals: Arc<Mutex<Totals>>,
}

#[derive(Debug, Default)]
struct Totals {
    total: usize,
    workspaces: HashMap<WorkspaceId, usize>,
    people: HashMap<UserId, usize>,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct CountedBytes {
    totals: Arc<Mutex<Totals>>,
    workspace_id: WorkspaceId,
    user_id: UserId,
    bytes: usize,
}

impl BytesInFlight {
    pub(crate) fn new(total: MiB, per_workspace: MiB, per_person: MiB) -> Self {
        let [total, per_workspace, per_person] = if sabotage::is(Sabotage::NoShares) {
            [usize::MAX; 3]
        } else {
            [total, per_workspace, per_person].map(MiB::bytes)
        };
        Self { total, per_workspace, per_person, totals: Arc::default() }
    }

    /// Counts this many bytes, if they are within all three limits.
    pub(crate) fn reserve(&self, user: &AuthUser, bytes: usize) -> Option<CountedBytes> {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = totals.check_with(user, bytes, |total, workspace, person| {
            total <= self.total && workspace <= self.per_workspace && person <= self.per_person
        });
        fits.then(|| self.count(&mut totals, user, bytes))
    }

    /// Returns true if none of the three limits is reached for this person.
    pub(crate) fn has_room(&self, user: &AuthUser) -> bool {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.check_with(user, 0, |total, workspace, person| {
            total < self.total && workspace < self.per_workspace && person < self.per_person
        })
    }

    /// Counts existing bytes, even beyond the limits, until the last reference to them is dropped.
    pub(crate) fn count_until_dropped(&self, user: &AuthUser, bytes: Bytes) -> Bytes {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = self.count(&mut totals, user, bytes.len());
        Bytes::from_owner(CountedBody { bytes, _counted: counted })
    }

    fn count(&self, totals: &mut Totals, user: &AuthUser, bytes: usize) -> CountedBytes {
        let (workspace_id, user_id) = (user.workspace_id, user.id);
        totals.total += bytes;
        *totals.workspaces.entry(workspace_id).or_default() += bytes;
        *totals.people.entry(user_id).or_default() += bytes;
        CountedBytes { totals: Arc::clone(&self.totals), workspace_id, user_id, bytes }
    }
}

struct CountedBody {
    bytes: Bytes,
    _counted: CountedBytes,
}

impl AsRef<[u8]> for CountedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Totals {
    /// Calls `check` with the totals as they would be with this many more bytes: of all, of the
    /// workspace and of the person.
    fn check_with(
        &self,
        user: &AuthUser,
        bytes: usize,
        check: impl FnOnce(usize, usize, usize) -> bool,
    ) -> bool {
        let workspace_total = self.workspaces.get(&user.workspace_id).copied().unwrap_or_default();
        let person_total = self.people.get(&user.id).copied().unwrap_or_default();
        check(self.total + bytes, workspace_total + bytes, person_total + bytes)
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.total -= self.bytes;
        subtract(&mut totals.workspaces, self.workspace_id, self.bytes);
        subtract(&mut totals.people, self.user_id, self.bytes);
    }
}

fn subtract<K: Copy + Eq + Hash>(totals: &mut HashMap<K, usize>, key: K, bytes: usize) {
    if let Some(total) = totals.get_mut(&key) {
        *total -= bytes;
        if *total == 0 {
            totals.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use fechatter_core::SessionId;
    use uuid::Uuid;

    use super::*;

    fn user(id: i64, workspace_id: i64) -> AuthUser {
        AuthUser {
            id: UserId(id),
            workspace_id: WorkspaceId(workspace_id),
            session_id: SessionId(Uuid::nil()),
            expires_at: 0,
        }
    }

    #[test]
    fn each_person_each_workspace_and_all_together_have_a_limit() {
        const MEBIBYTE: usize = 1024 * 1024;
        let bytes = BytesInFlight::new(MiB(5), MiB(3), MiB(2));
        let first = bytes.reserve(&user(1, 1), 2 * MEBIBYTE).unwrap();
        assert!(bytes.reserve(&user(1, 1), 1).is_none(), "beyond the limit of the person");
        let _second = bytes.reserve(&user(2, 1), MEBIBYTE).unwrap();
        assert!(bytes.reserve(&user(3, 1), 1).is_none(), "beyond the limit of the workspace");
        let _third = bytes.reserve(&user(4, 2), 2 * MEBIBYTE).unwrap();
        assert!(bytes.reserve(&user(5, 3), 1).is_none(), "beyond the total limit");
        drop(first);
        assert!(bytes.reserve(&user(5, 3), 1).is_some());
    }

    #[test]
    fn bytes_count_until_the_last_reference_to_them_is_dropped() {
        let bytes = BytesInFlight::new(MiB(5), MiB(3), MiB(1));
        let mut body = bytes.count_until_dropped(&user(1, 1), vec![b'x'; 2 * 1024 * 1024].into());
        assert!(!bytes.has_room(&user(1, 1)));
        let part = body.split_off(100);
        drop(body);
        assert!(!bytes.has_room(&user(1, 1)));
        drop(part);
        assert!(bytes.has_room(&user(1, 1)));
        assert_eq!(bytes.totals.lock().unwrap().people.len(), 0);
    }
}
