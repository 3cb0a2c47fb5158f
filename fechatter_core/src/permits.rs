//! Permits for a scarce resource, with limits in total, per group (a workspace, say) and per member
//! of a group. Waiting groups are served round-robin, and so are the members of a group, regardless
//! of the number of their waiting callers. A group with many waiting callers therefore delays mainly
//! its own callers.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::sabotage::{self, Sabotage};

/// Permits for members `M` of groups `G`. Clones share them.
pub struct Permits<G: Key, M: Key>(Arc<Shared<G, M>>);

/// The key of a group or of a member.
pub trait Key: Copy + Eq + Hash + Send + 'static {}

impl<T: Copy + Eq + Hash + Send + 'static> Key for T {}

/// The limits on the permits held at a time.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PermitLimits {
    pub total: usize,
    pub per_group: usize,
    pub per_member: usize,
    /// The maximum number of waiting callers of one group; further ones are refused at once.
    pub waiting_per_group: usize,
}

/// The right to use the resource. Dropping it returns the permit.
pub struct Permit<G: Key, M: Key> {
    shared: Arc<Shared<G, M>>,
    group: G,
    member: M,
}

/// The error for a caller whose group already has the maximum number of waiting callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the group has the maximum number of waiting callers")]
pub struct QueueFull;

struct Shared<G, M> {
    limits: PermitLimits,
    state: Mutex<State<G, M>>,
}

struct State<G, M> {
    taken: usize,
    groups: HashMap<G, Group<M>>,
    /// The groups with waiting callers. The first is served next.
    order: VecDeque<G>,
}

struct Group<M> {
    taken: usize,
    waiting: usize,
    /// True while the group is in `State::order`.
    is_queued: bool,
    members: HashMap<M, Member>,
    /// The members with waiting callers. The first is served next.
    order: VecDeque<M>,
}

#[derive(Default)]
struct Member {
    taken: usize,
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl<G: Key, M: Key> Permits<G, M> {
    /// Creates permits with these limits.
    #[must_use]
    pub fn new(limits: PermitLimits) -> Self {
        let limits = if sabotage::is(Sabotage::NoShares) {
            let unshared = usize::MAX;
            PermitLimits {
                per_group: unshared,
                per_member: unshared,
                waiting_per_group: unshared,
                ..limits
            }
        } else {
            limits
        };
        let state = State { taken: 0, groups: HashMap::new(), order: VecDeque::new() };
        Self(Arc::new(Shared { limits, state: Mutex::new(state) }))
    }

    /// Returns a permit if one is available now.
    #[must_use]
    pub fn try_acquire(&self, group: G, member: M) -> Option<Permit<G, M>> {
        let mut state = self.0.lock();
        state.has_room(self.0.limits, group, member).then(|| {
            state.take(group, member);
            Permit { shared: Arc::clone(&self.0), group, member }
        })
    }

    /// Waits for a permit. Dropping the future removes the caller from the queue.
    ///
    /// # Errors
    /// If the group already has `waiting_per_group` waiting callers.
    pub async fn acquire(&self, group: G, member: M) -> Result<Permit<G, M>, QueueFull> {
        let queued = {
            let mut state = self.0.lock();
            if state.has_room(self.0.limits, group, member) {
                state.take(group, member);
                None
            } else {
                Some(state.wait(self.0.limits, group, member)?)
            }
        };
        if let Some(granted) = queued {
            Waiting { shared: &self.0, group, member, receipt: Some(granted) }.wait().await;
        }
        Ok(Permit { shared: Arc::clone(&self.0), group, member })
    }
}

/// A queued caller. If it is dropped after the permit was granted, the permit passes to the next
/// caller.
struct Waiting<'a, G: Key, M: Key> {
    shared: &'a Shared<G, M>,
    group: G,
    member: M,
    receipt: Option<oneshot::Receiver<()>>,
}

impl<G: Key, M: Key> Waiting<'_, G, M> {
    async fn wait(mut self) {
        if let Some(granted) = &mut self.receipt {
            // The sender stays in the queue until it is used.
            let _ = granted.await;
        }
        self.receipt = None;
    }
}

impl<G: Key, M: Key> Drop for Waiting<'_, G, M> {
    fn drop(&mut self) {
        if let Some(mut granted) = self.receipt.take() {
            granted.close();
            if granted.try_recv().is_ok() {
                self.shared.give_back(self.group, self.member);
            }
        }
    }
}

impl<G: Key, M: Key> Drop for Permit<G, M> {
    fn drop(&mut self) {
        self.shared.give_back(self.group, self.member);
    }
}

impl<G: Key, M: Key> Shared<G, M> {
    fn lock(&self) -> MutexGuard<'_, State<G, M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, group: G, member: M) {
        let mut state = self.lock();
        state.give_back(group, member);
        state.serve(self.limits);
    }
}

impl<G: Key, M: Key> State<G, M> {
    /// Returns true if a caller of this member gets a permit now without overtaking another one.
    fn has_room(&self, limits: PermitLimits, group: G, member: M) -> bool {
        let Some(group) = self.groups.get(&group) else { return self.taken < limits.total };
        let member_has_room = group
            .members
            .get(&member)
            .is_none_or(|member| member.taken < limits.per_member && member.waiting.is_empty());
        self.taken < limits.total && group.taken < limits.per_group && member_has_room
    }

    fn take(&mut self, group: G, member: M) {
        self.taken += 1;
        let group = self.groups.entry(group).or_insert_with(Group::new);
        group.taken += 1;
        group.members.entry(member).or_default().taken += 1;
    }

    fn wait(
        &mut self,
        limits: PermitLimits,
        group_key: G,
        member_key: M,
    ) -> Result<oneshot::Receiver<()>, QueueFull> {
        let group = self.groups.entry(group_key).or_insert_with(Group::new);
        if group.waiting >= limits.waiting_per_group {
            group.remove_cancelled_waiters();
            if group.waiting >= limits.waiting_per_group {
                return Err(QueueFull);
            }
        }
        if !std::mem::replace(&mut group.is_queued, true) {
            self.order.push_back(group_key);
        }
        group.waiting += 1;
        let member = group.members.entry(member_key).or_default();
        if member.waiting.is_empty() {
            group.order.push_back(member_key);
        }
        let (grant, granted) = oneshot::channel();
        member.waiting.push_back(grant);
        Ok(granted)
    }

    fn give_back(&mut self, group_key: G, member_key: M) {
        self.taken -= 1;
        let Some(group) = self.groups.get_mut(&group_key) else { return };
        group.taken -= 1;
        if let Some(member) = group.members.get_mut(&member_key) {
            member.taken -= 1;
            if member.taken == 0 && member.waiting.is_empty() {
                group.members.remove(&member_key);
            }
        }
        if group.members.is_empty() && !group.is_queued {
            self.groups.remove(&group_key);
        }
    }

    /// Gives free permits to waiting callers, one group after the other, until no waiting group can
    /// get another permit.
    fn serve(&mut self, limits: PermitLimits) {
        let mut passed_over = 0;
        while self.taken < limits.total && passed_over < self.order.len() {
            let Some(key) = self.order.pop_front() else { return };
            let Some(group) = self.groups.get_mut(&key) else { continue };
            if group.taken < limits.per_group && group.serve(limits.per_member) {
                self.taken += 1;
                passed_over = 0;
            } else {
                passed_over += 1;
            }
            group.is_queued = !group.order.is_empty();
            if group.is_queued {
                self.order.push_back(key);
            } else if group.members.is_empty() {
                self.groups.remove(&key);
            }
        }
    }
}

impl<M: Key> Group<M> {
    fn new() -> Self {
        Self {
            taken: 0,
            waiting: 0,
            is_queued: false,
            members: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Gives a permit to the next waiting member that is below its limit. Returns false if there is
    /// none.
    fn serve(&mut self, per_member: usize) -> bool {
        for _ in 0..self.order.len() {
            let Some(key) = self.order.pop_front() else { return false };
            let Some(member) = self.members.get_mut(&key) else { continue };
            let mut served = false;
            if member.taken < per_member {
                while let Some(grant) = member.waiting.pop_front() {
                    self.waiting -= 1;
                    // Callers that no longer wait are skipped.
                    if grant.send(()).is_ok() {
                        member.taken += 1;
                        self.taken += 1;
                        served = true;
                        break;
                    }
                }
            }
            if !member.waiting.is_empty() {
                self.order.push_back(key);
            } else if member.taken == 0 {
                self.members.remove(&key);
            }
            if served {
                return true;
            }
        }
        false
    }

    fn remove_cancelled_waiters(&mut self) {
        for member in self.members.values_mut() {
            member.waiting.retain(|grant| !grant.is_closed());
        }
        self.members.retain(|_, member| member.taken > 0 || !member.waiting.is_empty());
        let members = &self.members;
        self.order.retain(|key| members.get(key).is_some_and(|member| !member.waiting.is_empty()));
        self.waiting = self.members.values().map(|member| member.waiting.len()).sum();
    }
}

impl<G: Key, M: Key> Clone for Permits<G, M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<G: Key, M: Key> fmt::Debug for Permits<G, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits")
            .field("limits", &self.0.limits)
            .field("taken", &self.0.lock().taken)
            .finish_non_exhaustive()
    }
}

impl<G: Key, M: Key> fmt::Debug for Permit<G, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn permits(total: usize, per_group: usize, per_member: usize) -> Permits<char, u8> {
        Permits::new(PermitLimits { total, per_group, per_member, waiting_per_group: 3 })
    }

    fn now(permits: &Permits<char, u8>, group: char, member: u8) -> Option<Permit<char, u8>> {
        permits.try_acquire(group, member)
    }

    #[test]
    fn no_group_and_no_member_takes_more_than_its_share() {
        let permits = permits(4, 3, 2);
        let mine = (now(&permits, 'a', 1).unwrap(), now(&permits, 'a', 1).unwrap());
        assert!(now(&permits, 'a', 1).is_none(), "a member has two");
        let other = now(&permits, 'a', 2).unwrap();
        assert!(now(&permits, 'a', 3).is_none(), "a group has three");
        let another = now(&permits, 'b', 1).unwrap();
        assert!(now(&permits, 'c', 1).is_none(), "there are four");
        drop((mine, other, another));
        let state = permits.0.lock();
        assert_eq!((state.taken, state.groups.len()), (0, 0));
    }

    #[test]
    fn groups_and_members_are_served_round_robin() {
        let permits = permits(1, 1, 1);
        let first = now(&permits, 'a', 1).unwrap();
        let mut waiting: Vec<_> = [('a', 1), ('a', 2), ('a', 1), ('b', 1), ('c', 1)]
            .map(|(group, member)| (group, member, Box::pin(permits.acquire(group, member))))
            .into();
        assert!(waiting.iter_mut().all(|(_, _, permit)| permit.now_or_never().is_none()));
        drop(first);
        let mut served = Vec::new();
        while !waiting.is_empty() {
            let next = waiting.iter_mut().position(|(group, member, permit)| {
                let permit = permit.now_or_never();
                served.extend(permit.is_some().then_some((*group, *member)));
                permit.is_some()
            });
            drop(waiting.remove(next.expect("one of them has a permit")));
        }
        assert_eq!(served, [('a', 1), ('b', 1), ('c', 1), ('a', 2), ('a', 1)]);
    }

    #[test]
    fn a_group_with_a_full_queue_is_refused_and_others_are_not() {
        let permits = permits(1, 1, 1);
        let _held = now(&permits, 'a', 1);
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(permits.acquire('a', 1))).collect();
        assert!(waiting.iter_mut().all(|permit| permit.now_or_never().is_none()));
        assert_eq!(permits.acquire('a', 2).now_or_never().unwrap().unwrap_err(), QueueFull);
        assert!(permits.acquire('b', 1).now_or_never().is_none());
        // Callers that no longer wait make room.
        waiting.pop();
        assert!(permits.acquire('a', 2).now_or_never().is_none());
    }

    #[test]
    fn a_permit_granted_to_a_cancelled_caller_is_returned() {
        let permits = permits(1, 1, 1);
        let held = now(&permits, 'a', 1).unwrap();
        let mut gone = Box::pin(permits.acquire('a', 2));
        assert!((&mut gone).now_or_never().is_none());
        drop(held);
        assert!(now(&permits, 'b', 1).is_none(), "the permit is granted");
        drop(gone);
        assert!(now(&permits, 'b', 1).is_some());
    }
}
