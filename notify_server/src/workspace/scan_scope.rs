//! The workspaces whose logs a scan reads.

use std::collections::BTreeSet;

use fechatter_core::WorkspaceId;

/// The workspaces that may have new events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScanScope {
    All,
    Workspaces(BTreeSet<WorkspaceId>),
}

impl Default for ScanScope {
    fn default() -> Self {
        Self::Workspaces(BTreeSet::new())
    }
}

impl ScanScope {
    pub(crate) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Workspaces(workspaces), Self::Workspaces(more)) => workspaces.extend(more),
            (Self::Workspaces(_), Self::All) => *self = Self::All,
            (Self::All, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_of_all_workspaces_includes_any_others() {
        let mut scope = ScanScope::default();
        scope.add(ScanScope::Workspaces([WorkspaceId(1)].into()));
        scope.add(ScanScope::Workspaces([WorkspaceId(2)].into()));
        assert_eq!(scope, ScanScope::Workspaces([WorkspaceId(1), WorkspaceId(2)].into()));

        scope.add(ScanScope::All);
        scope.add(ScanScope::Workspaces([WorkspaceId(3)].into()));
        assert_eq!(scope, ScanScope::All);
    }
}
