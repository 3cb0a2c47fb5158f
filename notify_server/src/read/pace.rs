//! The pace at which the tail reads workspaces that would delay others: in smaller parts if their
//! events are long, and after a pause if their outboxes are backlogged.

use std::collections::{BTreeSet, HashMap};

use fechatter_core::WorkspaceId;
use fechatter_core::log::Cursor;
use tokio::time::Instant;

/// The workspaces that are read at a reduced pace.
#[derive(Debug)]
pub(crate) struct Pacing {
    /// The maximum number of new events that one read of a workspace takes.
    max_events: usize,
    paces: HashMap<WorkspaceId, Pace>,
}

#[derive(Debug)]
struct Pace {
    /// The current maximum for this workspace.
    max_events: usize,
    /// The time at which it is read again, if it is paused.
    resumes: Option<Instant>,
}

impl Pacing {
    pub(crate) fn new(max_events: usize) -> Self {
        Self { max_events, paces: HashMap::new() }
    }

    /// Returns the number of new events that the next read of a workspace takes.
    pub(crate) fn max_events(&self, workspace_id: WorkspaceId) -> usize {
        self.paces.get(&workspace_id).map_or(self.max_events, |pace| pace.max_events)
    }

    /// Records that a read found `found` new events, of which the first step takes `enough`.
    pub(crate) fn record(&mut self, workspace_id: WorkspaceId, found: usize, enough: usize) {
        if enough < found {
            self.of(workspace_id).max_events = enough.max(1);
        } else if let Some(pace) = self.paces.get_mut(&workspace_id) {
            pace.max_events = (2 * pace.max_events).min(self.max_events);
        }
    }

    /// Pauses a workspace: it is not read until then.
    pub(crate) fn pause(&mut self, workspace_id: WorkspaceId, until: Instant) {
        self.of(workspace_id).resumes = Some(until);
    }

    /// Returns true if a workspace is paused.
    pub(crate) fn is_paused(&self, workspace_id: WorkspaceId) -> bool {
        self.paces.get(&workspace_id).is_some_and(|pace| pace.resumes.is_some())
    }

    /// Returns the workspaces that are not paused.
    pub(crate) fn not_paused(
        &self,
        mut heads: Vec<(WorkspaceId, Cursor)>,
    ) -> Vec<(WorkspaceId, Cursor)> {
        heads.retain(|(id, _)| !self.is_paused(*id));
        heads
    }

    /// Returns the time at which the next pause ends.
    pub(crate) fn next_resume(&self) -> Option<Instant> {
        self.paces.values().filter_map(|pace| pace.resumes).min()
    }

    /// Ends the pauses that are over, and returns their workspaces.
    pub(crate) fn resume_due(&mut self, now: Instant) -> BTreeSet<WorkspaceId> {
        let mut resumed = BTreeSet::new();
        let max_events = self.max_events;
        self.paces.retain(|id, pace| {
            if pace.resumes.take_if(|resumes| *resumes <= now).is_some() {
                resumed.insert(*id);
            }
            pace.resumes.is_some() || pace.max_events < max_events
        });
        resumed
    }

    /// Keeps only the workspaces that are loaded here.
    pub(crate) fn retain(&mut self, is_here: impl Fn(WorkspaceId) -> bool) {
        self.paces.retain(|id, _| is_here(*id));
    }

    fn of(&mut self, workspace_id: WorkspaceId) -> &mut Pace {
        let pace = Pace { max_events: self.max_events, resumes: None };
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
        let mut pacing = Pacing::new(255);
        pacing.record(ONE, 255, 12);
        assert_eq!((pacing.max_events(ONE), pacing.max_events(TWO)), (12, 255));
        pacing.record(ONE, 12, 12);
        assert_eq!(pacing.max_events(ONE), 24);
        pacing.record(ONE, 24, 0);
        assert_eq!(pacing.max_events(ONE), 1);
        (0..8).for_each(|_| pacing.record(ONE, 0, 0));
        assert_eq!(pacing.max_events(ONE), 255);
        pacing.resume_due(Instant::now());
        assert!(pacing.paces.is_empty());
    }

    #[test]
    fn a_paused_workspace_is_read_later_and_the_others_are_not_paused() {
        let (mut pacing, now) = (Pacing::new(255), Instant::now());
        let later = now + Duration::from_millis(10);
        let head = "00000001-1".parse().unwrap();
        let heads = || vec![(ONE, head), (TWO, head)];
        pacing.pause(ONE, later);
        assert_eq!(
            (pacing.not_paused(heads()), pacing.next_resume()),
            (vec![(TWO, head)], Some(later))
        );
        assert_eq!(pacing.resume_due(now), [].into());
        assert_eq!(pacing.resume_due(later), [ONE].into());
        assert_eq!((pacing.not_paused(heads()), pacing.next_resume()), (heads(), None));
    }
}
