//! The database, with fair permits: the queries of a busy workspace wait for each other, and the
//! queries of other workspaces do not wait for them.

use fechatter_core::config::Config;
use fechatter_core::finish::Finish;
use fechatter_core::permits::{Permit, PermitLimits, Permits};
use fechatter_core::token::AuthUser;
use fechatter_core::{UserId, WorkspaceId};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

/// Connections that are reserved for readiness checks and metrics.
const RESERVE: usize = 2;
/// The maximum number of concurrent queries that read much of a log.
const REPLAYS: usize = 4;

pub(crate) type WorkspacePermit = Permit<WorkspaceId, UserId>;
pub(crate) type WorkspacePermits = Permits<WorkspaceId, UserId>;

/// The pool for all queries of streams. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: PgPool,
    connections: WorkspacePermits,
    replays: WorkspacePermits,
}

/// The cost of a query, by the amount of a log that it reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QueryCost {
    Small,
    /// The query may read a whole log: only [`REPLAYS`] of these run at the same time.
    Large,
}

impl Database {
    pub(crate) fn new(pool: PgPool, config: &Config) -> Self {
        let limits = &config.limits;
        let all = usize::try_from(config.database.max_connections).unwrap_or(usize::MAX);
        let of_all = |percent: u32| (all * percent as usize / 100).max(1);
        let connections = Permits::new(PermitLimits {
            total: all.saturating_sub(RESERVE).max(1),
            per_group: of_all(limits.database_percent_per_workspace),
            per_member: of_all(limits.database_percent_per_person),
            waiting_per_group: config.notify.streams,
        });
        let replays = Permits::new(PermitLimits {
            total: REPLAYS,
            per_group: limits.replays_per_workspace,
            per_member: limits.replays_per_person,
            waiting_per_group: config.notify.streams,
        });
        Self { pool, connections, replays }
    }

    /// Waits for the person's permits, and runs work on a connection.
    ///
    /// Work that has begun is finished even if the caller no longer waits, because PostgreSQL
    /// continues a query whose client has left, and the permits must be held until it ends.
    pub(crate) async fn work<T, E, Work>(
        &self,
        user: &AuthUser,
        cost: QueryCost,
        work: impl FnOnce(PoolConnection<Postgres>) -> Work,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
        Work: Future<Output = Result<T, E>> + Send + 'static,
    {
        let replay = match cost {
            QueryCost::Small => None,
            QueryCost::Large => Some(acquire(&self.replays, user).await?),
        };
        let permits = (replay, acquire(&self.connections, user).await?);
        let work = work(self.pool.acquire().await?);
        let done = Finish::new(async move {
            let done = work.await;
            drop(permits);
            done
        });
        done.await
    }
}

/// Waits for the person's permit. The queue has room for the maximum number of streams, so no
/// caller is refused.
pub(crate) async fn acquire(
    permits: &WorkspacePermits,
    user: &AuthUser,
) -> sqlx::Result<WorkspacePermit> {
    let permit = permits.acquire(user.workspace_id, user.id).await;
    permit.map_err(|_| sqlx::Error::PoolTimedOut)
}

#[cfg(test)]
mod tests {
    use fechatter_core::SessionId;
    use futures_util::FutureExt;

    use super::*;

    fn database(max_connections: u32) -> Database {
        let mut config = Config::from_yaml(include_str!("../../app.yml.example")).unwrap();
        config.database.max_connections = max_connections;
        config.limits.database_percent_per_workspace = 50;
        config.limits.database_percent_per_person = 20;
        let pool = PgPool::connect_lazy("postgres:///unused").unwrap();
        Database::new(pool, &config)
    }

    /// Returns the permits that these people of a workspace get at once; the caller holds them.
    fn taken(permits: &WorkspacePermits, workspace: i64, people: i64) -> Vec<WorkspacePermit> {
        let user = |id| AuthUser {
            id: UserId(id),
            workspace_id: WorkspaceId(workspace),
            session_id: SessionId(uuid::Uuid::nil()),
            expires_at: 0,
        };
        let now = |id| acquire(permits, &user(id)).now_or_never().map(Result::unwrap);
        (0..people).flat_map(|id| std::iter::from_fn(move || now(id))).collect()
    }

    #[tokio::test]
    async fn one_workspace_never_has_all_connections() {
        let permits = database(20).connections;
        let one_person = taken(&permits, 1, 1);
        assert_eq!(one_person.len(), 4);
        drop(one_person);
        let crowd = taken(&permits, 1, 100);
        let others = taken(&permits, 2, 100);
        assert_eq!((crowd.len(), others.len()), (10, 8));
    }

    #[tokio::test]
    async fn the_smallest_pool_serves_everybody_in_turn() {
        let permits = database(2).connections;
        assert_eq!(taken(&permits, 1, 1).len(), 1);
        assert_eq!(taken(&permits, 2, 1).len(), 1);
    }

    #[tokio::test]
    async fn one_workspace_never_has_all_replays() {
        let permits = database(20).replays;
        let crowd = taken(&permits, 1, 100);
        let others = [taken(&permits, 2, 1), taken(&permits, 3, 1)];
        assert_eq!((crowd.len(), others.map(|permits| permits.len())), (2, [1, 1]));
    }
}
