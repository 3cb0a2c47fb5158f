//! The errors that clients can tell apart.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fechatter_core::db;
use fechatter_core::http::ApiError;
use tracing::{error, warn};

pub(crate) type Result<T, E = AppError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    #[error("this session has ended; sign in again")]
    SessionEnded,
    #[error("you are suspended in this workspace")]
    Suspended,
    #[error("you may not do this")]
    Forbidden,
    #[error("there is no such thing here")]
    NotFound,
    #[error("the request is not valid: {field} {issue}")]
    Invalid { field: String, issue: String },
    #[error("the body is {0}")]
    MalformedJson(&'static str),
    #[error("the body must be application/json")]
    UnsupportedMediaType,
    #[error("{0}")]
    TooLarge(&'static str),
    #[error("too many requests; wait a moment")]
    RateLimited(Duration),
    #[error("busy; try again in a moment")]
    Busy,

    #[error("e-mail or password is wrong")]
    InvalidCredentials,
    #[error("{0}")]
    WeakPassword(&'static str),
    #[error("there is an account with this e-mail address")]
    EmailTaken,
    #[error("this workspace takes people by invite only")]
    InviteRequired,
    #[error("this invite is not valid, or not any more")]
    InviteInvalid,
    #[error("workspaces cannot be created here")]
    WorkspaceCreationClosed,
    #[error("there is a workspace of this name")]
    WorkspaceTaken,
    #[error("there is no refresh token")]
    RefreshMissing,
    #[error("the refresh token is not valid")]
    RefreshInvalid,
    #[error("the refresh token was used before; its session has been ended")]
    RefreshReused,
    #[error("this call must come from our own pages")]
    CrossSite,

    #[error("you have as many {0} as one person may have")]
    LimitReached(&'static str),
    #[error("the workspace would be without an owner")]
    LastOwner,

    #[error("{0}")]
    InvalidMembers(&'static str),
    #[error("there is no such active user in this workspace")]
    UserNotFound,
    #[error("there is a public channel of this name")]
    ChatNameTaken,
    #[error("the two people of a Single are fixed")]
    SingleIsFixed,
    #[error("the owner must give the chat to somebody else first")]
    OwnerMustTransfer,
    #[error("none of them is a member")]
    NoMembersMatched,
    #[error("this person is not a member of the chat")]
    NotAChatMember,
    #[error("a message needs some content")]
    EmptyMessage,
    #[error("this chat is archived")]
    Archived,
    #[error("this message has as many kinds of reactions as one may have")]
    TooManyReactions,
    #[error("this key was used for another request")]
    IdempotencyMismatch,

    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("a token could not be signed")]
    Signing(#[from] jsonwebtoken::errors::Error),
    #[error("a password could not be hashed")]
    Hashing(#[from] argon2::password_hash::Error),
    #[error("a task failed")]
    Task(#[from] tokio::task::JoinError),
}

/// The SQLSTATE of a statement that exceeded its time limit, or that an operator cancelled.
pub(crate) const STATEMENT_CANCELLED: &str = "57014";

impl AppError {
    pub(crate) fn invalid(field: &str, issue: &str) -> Self {
        Self::Invalid { field: field.into(), issue: issue.into() }
    }

    /// Returns true if the database was unavailable, so that a retry may help.
    pub(crate) fn is_unavailable(&self) -> bool {
        match self {
            Self::Database(error) if db::is_read_only(error) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                // Connection errors, lack of resources, cancellation or shutdown by an operator,
                // aborted or timed-out transactions and locks, and tables, columns or functions
                // that are not migrated yet.
                let code = error.code().unwrap_or_default();
                ["08", "53", "57", "25P0", "40", "55P03", "42P01", "42703", "42883"]
                    .iter()
                    .any(|class| code.starts_with(class))
            }
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Io(_)
                    // Another server answered, for example a proxy whose database is down.
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
                    | sqlx::Error::Tls(_)
            ),
            _ => false,
        }
    }

    /// Returns true if a statement was cancelled, mostly by its time limit. It has changed nothing.
    pub(crate) fn is_too_slow(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code == STATEMENT_CANCELLED)
            }
            _ => false,
        }
    }

    fn status_and_type(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::SessionEnded => (S::UNAUTHORIZED, "unauthenticated"),
            Self::Suspended => (S::FORBIDDEN, "suspended"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden"),
            Self::NotFound => (S::NOT_FOUND, "not_found"),
            Self::Invalid { .. } => (S::BAD_REQUEST, "invalid_input"),
            Self::MalformedJson(_) => (S::UNPROCESSABLE_ENTITY, "malformed_json"),
            Self::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "too_large"),
            Self::RateLimited(_) => (S::TOO_MANY_REQUESTS, "rate_limited"),
            Self::InvalidCredentials => (S::FORBIDDEN, "invalid_credentials"),
            Self::WeakPassword(_) => (S::BAD_REQUEST, "weak_password"),
            Self::EmailTaken => (S::CONFLICT, "email_taken"),
            Self::InviteRequired => (S::FORBIDDEN, "invite_required"),
            Self::InviteInvalid => (S::NOT_FOUND, "invite_invalid"),
            Self::WorkspaceCreationClosed => (S::FORBIDDEN, "workspace_creation_closed"),
            Self::WorkspaceTaken => (S::CONFLICT, "workspace_taken"),
            Self::RefreshMissing => (S::UNAUTHORIZED, "refresh_missing"),
            Self::RefreshInvalid => (S::UNAUTHORIZED, "refresh_invalid"),
            Self::RefreshReused => (S::UNAUTHORIZED, "refresh_reused"),
            Self::CrossSite => (S::FORBIDDEN, "cross_site"),
            Self::LimitReached(_) => (S::FORBIDDEN, "limit_reached"),
            Self::LastOwner => (S::CONFLICT, "last_owner"),
            Self::InvalidMembers(_) => (S::BAD_REQUEST, "invalid_members"),
            Self::UserNotFound => (S::NOT_FOUND, "user_not_found"),
            Self::ChatNameTaken => (S::CONFLICT, "chat_name_taken"),
            Self::SingleIsFixed => (S::BAD_REQUEST, "single_is_fixed"),
            Self::OwnerMustTransfer => (S::CONFLICT, "owner_must_transfer"),
            Self::NoMembersMatched => (S::BAD_REQUEST, "no_members_matched"),
            Self::NotAChatMember => (S::BAD_REQUEST, "not_a_chat_member"),
            Self::EmptyMessage => (S::BAD_REQUEST, "empty_message"),
            Self::Archived => (S::FORBIDDEN, "archived"),
            Self::TooManyReactions => (S::BAD_REQUEST, "too_many_reactions"),
            Self::IdempotencyMismatch => (S::UNPROCESSABLE_ENTITY, "idempotency_mismatch"),
            Self::Busy => (S::SERVICE_UNAVAILABLE, "unavailable"),
            error if error.is_unavailable() => (S::SERVICE_UNAVAILABLE, "unavailable"),
            _ => (S::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        if let Self::Api(error) = self {
            return error.into_response();
        }
        let (status, kind) = self.status_and_type();
        match status {
            // The cause is only logged: clients get the request's id.
            StatusCode::SERVICE_UNAVAILABLE => {
                warn!(cause = %chain(&self), "unavailable");
                ApiError::unavailable("busy; try again in a moment")
            }
            StatusCode::INTERNAL_SERVER_ERROR => {
                error!(cause = %chain(&self), "a request failed");
                ApiError::internal()
            }
            _ => {
                let error = ApiError::new(status, kind, self.to_string());
                match self {
                    Self::Invalid { field, issue } => error.detail(field, issue),
                    Self::RateLimited(wait) => error.retry_after(wait),
                    _ => error,
                }
            }
        }
        .into_response()
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Maps the violation of one of these constraints to an error.
pub(crate) trait OnConstraint<T> {
    fn on_constraint(self, names: &[&str], meaning: AppError) -> Result<T>;
}

impl<T> OnConstraint<T> for Result<T, sqlx::Error> {
    fn on_constraint(self, names: &[&str], meaning: AppError) -> Result<T> {
        self.map_err(|error| match &error {
            sqlx::Error::Database(inner)
                if inner.constraint().is_some_and(|name| names.contains(&name)) =>
            {
                meaning
            }
            _ => error.into(),
        })
    }
}
