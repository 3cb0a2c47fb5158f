//! The pace at which the tail reads workspaces that would delay others: in smaller parts if their
//! events are long, and after a pause if their outboxes are backlogged.

use std::collections::{BTreeSet, HashMap};

use fechatter_core::WorkspaceId;
use fechatter_core::log::Cursor;
use tokio::time::Instant;

/// The workspaces that are read at a reduced pace.
#[derive(Debug)]
pub(crate) struct Paces {
    /// The maximum number of new events that one read of a workspace takes.
    most: usize,
    paces: HashMap<WorkspaceId, Pace>,
}

#[derive(Debug)]
struct Pace {
    /// The current maximum for this workspace.
    events: usize,
    /// The time at which it is read again, if it is paused.
    resumes: Option<Instant>,
}

impl Paces {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, paces: HashMap::new() }
    }

    /// Returns the number of new events that the next read of a workspace takes.
    pub(crate) fn events(&self, workspace_id: WorkspaceId) -> usize {
        self.paces.get(&workspace_id).map_or(self.most, |pace| pace.events)
    }

    /// Records that a read found `found` new events, of which `enough` would have been sufficient.
    pub(crate) fn note(&mut self, workspace_id: WorkspaceId, found: usize, enough: usize) {
        if enough < found {
            self.of(workspace_id).events = enough.max(1);
        } else if let Some(pace) = self.paces.get_mut(&workspace_id) {
            pace.events = (2 * pace.events).min(self.most);
        }
    }

    /// Pauses a workspace: it is not read until then.
    pub(crate) fn put_off(&mut self, workspace_id: WorkspaceId, until: Instant) {
        self.of(workspace_id).resumes = Some(until);
    }

    /// Returns true if a workspace is paused.
    pub(crate) fn is_put_off(&self, workspace_id: WorkspaceId) -> bool {
        self.paces.get(&workspace_id).is_some_and(|pace| pace.resumes.is_some())
    }

    /// Returns the workspaces that are not paused.
    pub(crate) fn ready(
        &self,
        mut heads: Vec<(WorkspaceId, Cursor)>,
    ) -> Vec<(WorkspaceId, Cursor)> {
        heads.retain(|(id, _)| !self.is_put_off(*id));
        heads
    }

    /// Returns the time at which the next pause ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.paces.values().filter_map(|pace| pace.resumes).min()
    }

    /// Ends the pauses that are over, and returns their workspaces.
    pub(crate) fn resume(&mut self, now: Instant) -> BTreeSet<WorkspaceId> {
        let mut resumed = BTreeSet::new();
        let most = self.most;
        self.paces.retain(|id, pace| {
            if pace.resumes.take_if(|resumes| *resumes <= now).is_some() {
                resumed.insert(*id);
            }
            pace.resumes.is_some() || pace.events < most
        });
        resumed
    }

    /// Removes the workspaces that are not here.
    pub(crate) fn keep(&mut self, is_here: impl Fn(WorkspaceId) -> bool) {
        self.paces.retain(|id, _| is_here(*id));
    }

    fn of(&mut self, workspace_id: WorkspaceId) -> &mut Pace {
        let pace = Pace { events: self.most, resumes: None };
        self.paces.entry(workspace_id).or_insert(pace)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: WorkspaceId = WorkspaceId(1);
    const TWO: WorkspaceId = WorkspaceId(2);

    #[test]
    fn long_events_are_read_in_parts_that_grow_again() {
        let mut paces = Paces::new(255);
        paces.note(ONE, 255, 12);
        assert_eq!((paces.events(ONE), paces.events(TWO)), (12, 255));
        paces.note(ONE, 12, 12);
        assert_eq!(paces.events(ONE), 24);
        paces.note(ONE, 24, 0);
        assert_eq!(paces.events(ONE), 1);
        (0..8).for_each(|_| paces.note(ONE, 0, 0));
        assert_eq!(paces.events(ONE), 255);
        paces.resume(Instant::now());
        assert!(paces.paces.is_empty());
    }

    #[test]
    fn what_is_put_off_is_read_later_and_nothing_else_is() {
        let (mut paces, now) = (Paces::new(255), Instant::now());
        let later = now + Duration::from_millis(10);
        let head = "00000001-1".parse().unwrap();
        let heads = || vec![(ONE, head), (TWO, head)];
        paces.put_off(ONE, later);
        assert_eq!((paces.ready(heads()), paces.next()), (vec![(TWO, head)], Some(later)));
        assert_eq!(paces.resume(now), [].into());
        assert_eq!(paces.resume(later), [ONE].into());
        assert_eq!((paces.ready(heads()), paces.next()), (heads(), None));
    }
}
