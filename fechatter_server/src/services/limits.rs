//! Limits of one person, one address and one workspace on this server: requests a second, database
//! connections, bytes of requests and of answers.

use std::net::IpAddr;
use std::time::Duration;

use fechatter_core::config::Config;
use fechatter_core::permits::{Permit, Permits, Shares};
use fechatter_core::rate::Rates;
use fechatter_core::{SessionId, UserId, WorkspaceId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::{AppError, Result};
use crate::services::bytes_in_flight::{BytesInFlight, MiB};
use crate::services::device_token::DeviceId;

/// People that a request may name for one unit of the caller's rate.
const NAMES_PER_UNIT: usize = 10;
/// Bytes of an answer that cost one unit.
const ANSWER_BYTES_PER_UNIT: usize = 64 * 1024;
/// Bytes of a message that cost one unit: each of its readers receives them.
const MESSAGE_BYTES_PER_UNIT: usize = 8 * 1024;
/// How long a request waits for a database connection of its workspace's share.
const UNTIL_CONNECTION: Duration = Duration::from_millis(2_500);
/// Requests of one workspace that may wait so.
const WAITING: usize = 1_000;

/// All of these limits. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct RequestLimits {
    rates: Rates<Caller>,
    connections: Permits<Group, Caller>,
    pub(crate) requests: BytesInFlight,
    pub(crate) answers: BytesInFlight,
}

/// The key of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    Person(UserId),
    /// The session of a refresh token.
    Session(SessionId),
    /// A device that has signed in to the account before.
    Device(DeviceId),
    /// The address of a caller without any token.
    Address(IpAddr),
}

/// A group that shares a part of the database connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Group {
    Workspace(WorkspaceId),
    /// All sign-ups, sign-ins, sign-outs and refreshes.
    Entrance,
}

/// The right to use one database connection at a time, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionShare(
    #[expect(dead_code, reason = "held, not read")] Permit<Group, Caller>,
);

impl RequestLimits {
    pub(crate) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        let pool = config.database.max_connections;
        // The rest is for what no request does: the doorbell, the purge, commits that go on.
        let in_all = pool - pool.div_ceil(10);
        let share = |percent: u32| (in_all * percent).div_ceil(100).clamp(1, in_all) as usize;
        Self {
            rates: Rates::new(config.http.requests_per_second, config.http.burst),
            connections: Permits::new(Shares {
                in_all: in_all as usize,
                per_group: share(limits.database_percent_per_workspace),
                per_member: share(limits.database_percent_per_person),
                waiting_per_group: WAITING,
            }),
            requests: BytesInFlight::new(
                MiB(limits.request_mebibytes),
                MiB(limits.request_mebibytes_per_workspace),
                MiB(limits.request_mebibytes_per_person),
            ),
            answers: BytesInFlight::new(
                MiB(limits.answer_mebibytes),
                MiB(limits.answer_mebibytes_per_workspace),
                MiB(limits.answer_mebibytes_per_person),
            ),
        }
    }

    /// Takes one request from the caller's bucket.
    pub(crate) fn take(&self, caller: Caller) -> Result<()> {
        self.rates.take(caller, 1).map_err(AppError::RateLimited)
    }

    /// Refuses a person whose bucket is in debt, after answers that cost more than it held.
    pub(crate) fn check(&self, user_id: UserId) -> Result<()> {
        self.rates.take(Caller::Person(user_id), 0).map_err(AppError::RateLimited)
    }

    /// Takes what a request costs besides itself that names so many people or chats.
    pub(crate) fn take_for_names(&self, user_id: UserId, count: usize) -> Result<()> {
        self.take_more(user_id, count / NAMES_PER_UNIT)
    }

    /// Takes what a message of so many bytes costs besides its request.
    pub(crate) fn take_for_message(&self, user_id: UserId, bytes: usize) -> Result<()> {
        self.take_more(user_id, bytes / MESSAGE_BYTES_PER_UNIT)
    }

    fn take_more(&self, user_id: UserId, units: usize) -> Result<()> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.rates.take(Caller::Person(user_id), units).map_err(AppError::RateLimited)
    }

    /// Takes what an answer of so many bytes costs besides its request, into debt if need be.
    pub(crate) fn charge_for_answer(&self, user_id: UserId, bytes: usize) {
        let units = u32::try_from(bytes / ANSWER_BYTES_PER_UNIT).unwrap_or(u32::MAX);
        self.rates.charge(Caller::Person(user_id), units);
    }

    /// Takes all that a bucket holds for a request on which the database has spent all the time that it
    /// gives to one.
    pub(crate) fn charge_if_too_slow(&self, user_id: UserId, error: &AppError) {
        if error.is_too_slow() {
            self.rates.charge(Caller::Person(user_id), u32::MAX);
        }
    }

    /// Waits for a database connection of the workspace's share, and of the caller's part of it.
    ///
    /// # Errors
    /// [`AppError::Busy`] when there is none within 2.5 s.
    pub(crate) async fn connection_in(
        &self,
        workspace_id: WorkspaceId,
        caller: Caller,
    ) -> Result<ConnectionShare> {
        self.connection(Group::Workspace(workspace_id), caller).await
    }

    /// Waits for a database connection of the share for sign-ups, sign-ins, sign-outs and refreshes.
    /// It is not for what waits for a workspace's log: all of these would wait with it.
    ///
    /// # Errors
    /// [`AppError::Busy`] when there is none within 2.5 s.
    pub(crate) async fn connection_at_entrance(&self, caller: Caller) -> Result<ConnectionShare> {
        self.connection(Group::Entrance, caller).await
    }

    async fn connection(&self, group: Group, caller: Caller) -> Result<ConnectionShare> {
        match timeout(UNTIL_CONNECTION, self.connections.acquire(group, caller)).await {
            Ok(Ok(permit)) => Ok(ConnectionShare(permit)),
            Ok(Err(_)) | Err(_) => Err(AppError::Busy),
        }
    }

    /// Forgets full buckets now and then, until the end of the server.
    pub(crate) async fn forget_idle(self, shutdown: CancellationToken) {
        self.rates.forget_idle(shutdown).await;
    }
}
