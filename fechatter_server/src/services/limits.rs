//! Limits per person, address and workspace on this server: requests per second, database
//! connections, bytes of requests and of responses.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::Config;
use fechatter_core::permits::{Permit, PermitLimits, Permits};
use fechatter_core::rate::Rates;
use fechatter_core::{SessionId, UserId, WorkspaceId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::{AppError, Result};
use crate::services::bytes_in_flight::{BytesInFlight, MiB};
use crate::services::device_token::DeviceId;

/// The number of people or chats in a request that cost one unit of the caller's rate.
const IDS_PER_UNIT: usize = 10;
/// The bytes of a response that cost one unit.
const RESPONSE_BYTES_PER_UNIT: usize = 64 * 1024;
/// The bytes of a message that cost one unit, because each of its readers receives them.
const MESSAGE_BYTES_PER_UNIT: usize = 8 * 1024;
/// The maximum number of uploads at a time, of which one workspace has half, and of one person.
const MAX_UPLOADS: usize = 64;
const MAX_UPLOADS_PER_PERSON: usize = 4;
/// The `Retry-After` of an upload beyond these.
const UPLOAD_RETRY: Duration = Duration::from_secs(2);
/// The longest time that a request waits for a permit to use a database connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(2_500);
/// The maximum number of waiting requests per [`Group`].
const MAX_WAITING_PER_GROUP: usize = 1_000;

/// The limits of requests. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct RequestLimits {
    rates: Rates<Caller>,
    connections: Permits<Group, Caller>,
    uploads: Permits<WorkspaceId, UserId>,
    pub(crate) request_bytes: BytesInFlight,
    pub(crate) response_bytes: BytesInFlight,
}

/// Identifies the requests that are counted together.
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

/// A group of requests with a common quota of the database connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Group {
    Workspace(WorkspaceId),
    /// All sign-ups, sign-ins, sign-outs and refreshes.
    Authentication,
}

/// A permit to use one database connection at a time, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(
    #[expect(dead_code, reason = "held, not read")] Permit<Group, Caller>,
);

impl RequestLimits {
    pub(crate) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        let pool = config.database.max_connections;
        // One tenth of the pool is reserved for work outside of requests: the doorbell, the purge,
        // and commits that continue after their callers have stopped waiting.
        let total = pool - pool.div_ceil(10);
        let quota = |percent: u32| (total * percent).div_ceil(100).clamp(1, total) as usize;
        Self {
            rates: Rates::new(config.http.requests_per_second, config.http.burst),
            connections: Permits::new(PermitLimits {
                total: total as usize,
                per_group: quota(limits.database_percent_per_workspace),
                per_member: quota(limits.database_percent_per_person),
                waiting_per_group: MAX_WAITING_PER_GROUP,
            }),
            uploads: Permits::new(PermitLimits {
                total: MAX_UPLOADS,
                per_group: MAX_UPLOADS / 2,
                per_member: MAX_UPLOADS_PER_PERSON,
                waiting_per_group: 0,
            }),
            request_bytes: BytesInFlight::new(
                MiB(limits.request_mebibytes),
                MiB(limits.request_mebibytes_per_workspace),
                MiB(limits.request_mebibytes_per_person),
            ),
            response_bytes: BytesInFlight::new(
                MiB(limits.answer_mebibytes),
                MiB(limits.answer_mebibytes_per_workspace),
                MiB(limits.answer_mebibytes_per_person),
            ),
        }
    }

    /// Returns a permit to upload, unless too many uploads are in progress.
    pub(crate) fn upload(
        &self,
        workspace_id: WorkspaceId,
        user_id: UserId,
    ) -> Result<Permit<WorkspaceId, UserId>> {
        self.uploads.try_acquire(workspace_id, user_id).ok_or(AppError::RateLimited(UPLOAD_RETRY))
    }

    /// Takes one request from the caller's bucket.
    pub(crate) fn take(&self, caller: Caller) -> Result<()> {
        self.rates.take(caller, 1).map_err(AppError::RateLimited)
    }

    /// Refuses a person whose bucket is in debt after expensive responses.
    pub(crate) fn check_debt(&self, user_id: UserId) -> Result<()> {
        self.rates.take(Caller::Person(user_id), 0).map_err(AppError::RateLimited)
    }

    /// Takes the additional cost of a request with this many people or chats.
    pub(crate) fn take_for_ids(&self, user_id: UserId, count: usize) -> Result<()> {
        self.take_more(user_id, count / IDS_PER_UNIT)
    }

    /// Takes the additional cost of a message with this many bytes.
    pub(crate) fn take_for_message(&self, user_id: UserId, bytes: usize) -> Result<()> {
        self.take_more(user_id, bytes / MESSAGE_BYTES_PER_UNIT)
    }

    fn take_more(&self, user_id: UserId, units: usize) -> Result<()> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.rates.take(Caller::Person(user_id), units).map_err(AppError::RateLimited)
    }

    /// Takes the additional cost of a response with this many bytes, into debt if necessary.
    pub(crate) fn charge_for_response(&self, user_id: UserId, bytes: usize) {
        let units = u32::try_from(bytes / RESPONSE_BYTES_PER_UNIT).unwrap_or(u32::MAX);
        self.rates.charge(Caller::Person(user_id), units);
    }

    /// Empties the person's bucket if the database cancelled a statement of the request as too
    /// slow.
    pub(crate) fn charge_if_too_slow(&self, user_id: UserId, error: &AppError) {
        if error.is_cancelled() {
            self.rates.charge(Caller::Person(user_id), u32::MAX);
        }
    }

    /// Waits for a permit to use a database connection, within the quota of the workspace and that
    /// of the caller.
    ///
    /// # Errors
    /// Returns [`AppError::Busy`] if none is free within 2.5 s, or too many requests wait.
    pub(crate) async fn connection_in(
        &self,
        workspace_id: WorkspaceId,
        caller: Caller,
    ) -> Result<ConnectionPermit> {
        self.connection_permit(Group::Workspace(workspace_id), caller).await
    }

    /// Waits for a permit to use a database connection, within the quota for all sign-ups,
    /// sign-ins, sign-outs and refreshes, and that of the caller. Release it before you wait for
    /// the lock of a workspace's log: otherwise sign-ins would wait for that log.
    ///
    /// # Errors
    /// Returns [`AppError::Busy`] if none is free within 2.5 s, or too many requests wait.
    pub(crate) async fn connection_for_authentication(
        &self,
        caller: Caller,
    ) -> Result<ConnectionPermit> {
        self.connection_permit(Group::Authentication, caller).await
    }

    async fn connection_permit(&self, group: Group, caller: Caller) -> Result<ConnectionPermit> {
        match timeout(CONNECTION_TIMEOUT, self.connections.acquire(group, caller)).await {
            Ok(Ok(permit)) => Ok(ConnectionPermit(permit)),
            Ok(Err(_)) | Err(_) => Err(AppError::Busy),
        }
    }

    /// Periodically removes the buckets of idle callers, until the shutdown. (Such a bucket is
    /// full, so it equals a new one.)
    pub(crate) async fn forget_idle(self, shutdown: CancellationToken) {
        self.rates.forget_idle(shutdown).await;
    }
}
