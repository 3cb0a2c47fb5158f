//! The workspaces whose logs are to be read.

use std::collections::BTreeSet;

use fechatter_core::WorkspaceId;

/// The workspaces that may have new events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Anywhere,
    In(BTreeSet<WorkspaceId>),
}

impl Default for News {
    fn default() -> Self {
        Self::In(BTreeSet::new())
    }
}

impl News {
    pub(crate) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::In(workspaces), Self::In(more)) => workspaces.extend(more),
            (Self::In(_), Self::Anywhere) => *self = Self::Anywhere,
            (Self::Anywhere, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_anywhere_outweighs_news_of_some() {
        let mut news = News::default();
        news.add(News::In([WorkspaceId(1)].into()));
        news.add(News::In([WorkspaceId(2)].into()));
        assert_eq!(news, News::In([WorkspaceId(1), WorkspaceId(2)].into()));

        news.add(News::Anywhere);
        news.add(News::In([WorkspaceId(3)].into()));
        assert_eq!(news, News::Anywhere);
    }
}
