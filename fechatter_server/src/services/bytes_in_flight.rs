//! Counts the bytes of requests that are being received, and of responses that clients have not
//! read yet.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::token::AuthUser;
use fechatter_core::{UserId, WorkspaceId};

/// Smaller bodies are not counted, because the number of connections limits them.
pub(crate) const SMALL: usize = 16 * 1024;

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
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    workspaces: HashMap<WorkspaceId, usize>,
    people: HashMap<UserId, usize>,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    held: Arc<Mutex<Held>>,
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
        Self { total, per_workspace, per_person, held: Arc::default() }
    }

    /// Counts this many bytes, if they are within all three limits.
    pub(crate) fn reserve(&self, user: &AuthUser, bytes: usize) -> Option<Counted> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = held.with(user, bytes, |total, workspace, person| {
            total <= self.total && workspace <= self.per_workspace && person <= self.per_person
        });
        fits.then(|| self.count(&mut held, user, bytes))
    }

    /// Returns true if none of the three limits is reached for this person.
    pub(crate) fn has_room(&self, user: &AuthUser) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.with(user, 0, |total, workspace, person| {
            total < self.total && workspace < self.per_workspace && person < self.per_person
        })
    }

    /// Counts existing bytes, even beyond the limits, until the last reference to them is dropped.
    pub(crate) fn hold(&self, user: &AuthUser, bytes: Bytes) -> Bytes {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = self.count(&mut held, user, bytes.len());
        Bytes::from_owner(HeldBytes { bytes, _counted: counted })
    }

    fn count(&self, held: &mut Held, user: &AuthUser, bytes: usize) -> Counted {
        let (workspace_id, user_id) = (user.workspace_id, user.id);
        held.total += bytes;
        *held.workspaces.entry(workspace_id).or_default() += bytes;
        *held.people.entry(user_id).or_default() += bytes;
        Counted { held: Arc::clone(&self.held), workspace_id, user_id, bytes }
    }
}

struct HeldBytes {
    bytes: Bytes,
    _counted: Counted,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Held {
    /// Calls `ask` with the three totals as they would be with this many more bytes.
    fn with(
        &self,
        user: &AuthUser,
        bytes: usize,
        ask: impl FnOnce(usize, usize, usize) -> bool,
    ) -> bool {
        let theirs = self.workspaces.get(&user.workspace_id).copied().unwrap_or_default();
        let persons = self.people.get(&user.id).copied().unwrap_or_default();
        ask(self.total + bytes, theirs + bytes, persons + bytes)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total -= self.bytes;
        give_back(&mut held.workspaces, self.workspace_id, self.bytes);
        give_back(&mut held.people, self.user_id, self.bytes);
    }
}

fn give_back<K: Copy + Eq + Hash>(held: &mut HashMap<K, usize>, key: K, bytes: usize) {
    if let Some(theirs) = held.get_mut(&key) {
        *theirs -= bytes;
        if *theirs == 0 {
            held.remove(&key);
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
    fn a_person_a_workspace_and_all_have_their_limits() {
        const MEBIBYTE: usize = 1024 * 1024;
        let bytes = BytesInFlight::new(MiB(5), MiB(3), MiB(2));
        let first = bytes.reserve(&user(1, 1), 2 * MEBIBYTE).unwrap();
        assert!(bytes.reserve(&user(1, 1), 1).is_none(), "beyond the person's");
        let _second = bytes.reserve(&user(2, 1), MEBIBYTE).unwrap();
        assert!(bytes.reserve(&user(3, 1), 1).is_none(), "beyond the workspace's");
        let _third = bytes.reserve(&user(4, 2), 2 * MEBIBYTE).unwrap();
        assert!(bytes.reserve(&user(5, 3), 1).is_none(), "beyond all");
        drop(first);
        assert!(bytes.reserve(&user(5, 3), 1).is_some());
    }

    #[test]
    fn bytes_count_until_the_last_part_of_them_is_gone() {
        let bytes = BytesInFlight::new(MiB(5), MiB(3), MiB(1));
        let mut held = bytes.hold(&user(1, 1), vec![b'x'; 2 * 1024 * 1024].into());
        assert!(!bytes.has_room(&user(1, 1)));
        let part = held.split_off(100);
        drop(held);
        assert!(!bytes.has_room(&user(1, 1)));
        drop(part);
        assert!(bytes.has_room(&user(1, 1)));
        assert_eq!(bytes.held.lock().unwrap().people.len(), 0);
    }
}
