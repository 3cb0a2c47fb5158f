//! The errors that clients can distinguish.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::CONTENT_RANGE;
use axum::response::{IntoResponse, Response};
use fechatter_core::db;
use fechatter_core::http::ApiError;
use tracing::{error, warn};

pub(crate) type Result<T, E = AppError> = std::result::Result<T, E>;

/// Declares each error that clients can distinguish once: its variant, status, stable type, and
/// human-readable text.
macro_rules! errors {
    ($($variant:ident $(($data:ty))? $({ $($field:ident: $field_type:ty),* })?
        => $status:ident, $name:literal, $text:literal;)*) => {
        /// A failed request.
        #[derive(Debug, thiserror::Error)]
        pub(crate) enum AppError {
            $(
                #[error($text)]
                $variant $(($data))? $({ $($field: $field_type),* })?,
            )*
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

        /// The kind of an error, without the data of a request. The OpenAPI document lists it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum ErrorKind {
            $($variant,)*
        }

        impl ErrorKind {
            pub(crate) fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)*
                }
            }

            /// Returns the stable type, which clients compare.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl AppError {
            fn kind(&self) -> Option<ErrorKind> {
                match self {
                    $(Self::$variant { .. } => Some(ErrorKind::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

errors! {
    // The request itself
    Invalid { field: String, issue: String } => BAD_REQUEST, "invalid_input", "the request is not valid: {field} {issue}";
    MalformedJson(&'static str) => UNPROCESSABLE_ENTITY, "malformed_json", "the body is {0}";
    UnsupportedMediaType => UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the body must be application/json";
    TooLarge(&'static str) => PAYLOAD_TOO_LARGE, "too_large", "{0}";
    RateLimited(Duration) => TOO_MANY_REQUESTS, "rate_limited", "too many requests; wait a moment";
    Busy => SERVICE_UNAVAILABLE, "unavailable", "busy; try again in a moment";
    // Permission
    SessionEnded => UNAUTHORIZED, "unauthenticated", "this session has ended; sign in again";
    Suspended => FORBIDDEN, "suspended", "you are suspended in this workspace";
    WorkspaceSuspended => FORBIDDEN, "workspace_suspended", "the operator has suspended this workspace";
    Forbidden => FORBIDDEN, "forbidden", "you may not do this";
    NotFound => NOT_FOUND, "not_found", "this does not exist, or you have no access to it";
    // Accounts and sessions
    InvalidCredentials => FORBIDDEN, "invalid_credentials", "e-mail or password is wrong";
    WeakPassword(&'static str) => BAD_REQUEST, "weak_password", "{0}";
    EmailTaken => CONFLICT, "email_taken", "there is an account with this e-mail address";
    SharedAccount => CONFLICT, "shared_account", "this account is in another workspace, too; ask the operator for a link";
    TokenInvalid => NOT_FOUND, "token_invalid", "this link is not valid, or no longer valid";
    RefreshMissing => UNAUTHORIZED, "refresh_missing", "there is no refresh token";
    RefreshInvalid => UNAUTHORIZED, "refresh_invalid", "the refresh token is not valid";
    RefreshReused => UNAUTHORIZED, "refresh_reused", "the refresh token was used before; its session has been ended";
    CrossSite => FORBIDDEN, "cross_site", "this request must come from an allowed origin";
    // Workspaces and invites
    InviteRequired => FORBIDDEN, "invite_required", "an invite is required to join this workspace";
    InviteInvalid => NOT_FOUND, "invite_invalid", "this invite is not valid, or no longer valid";
    SetupCodeRequired => FORBIDDEN, "setup_code_required", "the first workspace needs the code of the link that `fechatter_server admin setup-link` prints";
    WorkspaceCreationClosed => FORBIDDEN, "workspace_creation_closed", "workspaces cannot be created here";
    WorkspaceTaken => CONFLICT, "workspace_taken", "there is a workspace of this name";
    LimitReached(&'static str) => FORBIDDEN, "limit_reached", "the maximum number of {0} per person has been reached";
    LastOwner => CONFLICT, "last_owner", "the workspace must keep an active owner";
    LastOwnerOf(Vec<String>) => CONFLICT, "last_owner", "some workspaces would be left without an active owner";
    // Chats and members
    InvalidMembers(&'static str) => BAD_REQUEST, "invalid_members", "{0}";
    UserNotFound => NOT_FOUND, "user_not_found", "there is no such active user in this workspace";
    ChatNameTaken => CONFLICT, "chat_name_taken", "there is a public channel of this name";
    SingleIsFixed => BAD_REQUEST, "single_is_fixed", "a chat of type Single does not allow this operation";
    OwnerMustTransfer => CONFLICT, "owner_must_transfer", "the owner must transfer the chat to another member first";
    NoMembersMatched => BAD_REQUEST, "no_members_matched", "none of these people is a member of the chat";
    NotAChatMember => BAD_REQUEST, "not_a_chat_member", "this person is not a member of the chat";
    // Messages
    EmptyMessage => BAD_REQUEST, "empty_message", "a message needs some content";
    ReplyNotFound => BAD_REQUEST, "reply_not_found", "the message to reply to is not in this chat, or is deleted";
    NotAnImage => BAD_REQUEST, "not_an_image", "this is not a PNG, JPEG, GIF or WebP image";
    FileNotFound => BAD_REQUEST, "file_not_found", "one of the files does not exist, or is not yours to send";
    NoFiles => BAD_REQUEST, "no_files", "the upload has no file";
    BadFilename(&'static str) => BAD_REQUEST, "bad_filename", "{0}";
    QuotaExceeded => INSUFFICIENT_STORAGE, "quota_exceeded", "there is no room for more files";
    RangeNotSatisfiable(u64) => RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "the range lies beyond the file's end";
    Archived => FORBIDDEN, "archived", "this chat is archived";
    TooManyMentions => BAD_REQUEST, "too_many_mentions", "a message mentions at most 50 people";
    InvalidEmoji => BAD_REQUEST, "invalid_emoji", "this is not exactly one emoji";
    TooManyReactions => BAD_REQUEST, "too_many_reactions", "this message has the maximum number of different emojis";
    IdempotencyMismatch => UNPROCESSABLE_ENTITY, "idempotency_mismatch", "this key was used for another request";
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

    /// Returns true if a statement was cancelled, usually because it exceeded its time limit. The
    /// statement has changed nothing.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code == STATEMENT_CANCELLED)
            }
            _ => false,
        }
    }

    fn status_and_type(&self) -> (StatusCode, &'static str) {
        match self.kind() {
            Some(kind) => (kind.status(), kind.name()),
            None if self.is_unavailable() => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            None => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
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
            // The cause is only logged. Clients get the request's id.
            StatusCode::SERVICE_UNAVAILABLE => {
                warn!(cause = %error_chain(&self), "unavailable");
                ApiError::unavailable("busy; try again in a moment")
            }
            StatusCode::INTERNAL_SERVER_ERROR => {
                error!(cause = %error_chain(&self), "a request failed");
                ApiError::internal()
            }
            _ => {
                let error = ApiError::new(status, kind, self.to_string());
                match self {
                    Self::Invalid { field, issue } => error.detail(field, issue),
                    Self::LastOwnerOf(names) => names.into_iter().fold(error, |error, name| {
                        error.detail(name, "would have no active owner")
                    }),
                    Self::RangeNotSatisfiable(size) => {
                        let mut response = error.into_response();
                        if let Ok(range) = format!("bytes */{size}").parse() {
                            response.headers_mut().insert(CONTENT_RANGE, range);
                        }
                        return response;
                    }
                    Self::RateLimited(wait) => error.retry_after(wait),
                    _ => error,
                }
            }
        }
        .into_response()
    }
}

fn error_chain(error: &dyn Error) -> String {
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
