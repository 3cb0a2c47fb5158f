//! Read marks and unread counts.

use axum::extract::State;
use axum::http::StatusCode;
use fechatter_core::chat::ReadState;
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, MessageId, Seq};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{AppError, ErrorKind, Result};
use crate::middlewares::auth::Caller;
use crate::models::chat::read_mark::{self, MarkChange, MarkTarget};
use crate::models::session::current_user::CurrentUser;
use crate::services::read_mark_writer::ReadMarkWriter;
use crate::state::AppState;
use crate::utils::json::{Json, MaybeJson, not_null};
use crate::utils::path::Id;
use crate::utils::query::{Ids, Params};

/// The maximum number of chats in one request.
const MAX_CHATS: usize = 500;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    OpenApiRouter::new()
        .routes(routes!(read))
        .routes(routes!(mark_unread))
        .routes(routes!(read_many).errors(&[E::NotFound]))
        .routes(routes!(list).errors(&[E::NotFound]))
}

/// The last message that was read; by default the newest.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReadUpTo {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = i64, required = false, minimum = 0)]
    seq: Option<Seq>,
}

/// The first message that is unread.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UnreadFrom {
    message_id: MessageId,
}

/// The chats that were read; by default all.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReadChats {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Vec<ChatId>, required = false, max_items = 500)]
    chat_ids: Option<Vec<ChatId>>,
}

/// The caller's read mark and unread counts.
#[derive(Serialize, ToSchema)]
struct ReadPosition {
    last_read_seq: Seq,
    #[schema(minimum = 0, maximum = 100)]
    unread_count: i64,
    #[schema(minimum = 0, maximum = 100)]
    mention_count: i64,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// At most 500 ids of the caller's chats, separated by commas; by default those with something
    /// unread.
    #[param(value_type = Option<String>, pattern = "^[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*$")]
    chat_ids: Option<Ids<ChatId, MAX_CHATS>>,
}

/// The unread messages of the caller, as counts.
#[derive(Serialize, ToSchema)]
struct Unread {
    /// The sum of the unread counts.
    #[schema(minimum = 0)]
    total: i64,
    /// The sum of the mention counts.
    #[schema(minimum = 0)]
    mentions: i64,
    chats: Vec<ReadState>,
}

/// Moves the caller's read mark forward, to a message or to the end.
#[utoipa::path(post, path = "/api/chat/{id}/read", operation_id = "read_chat",
    params(("id" = i64, Path)), request_body = Option<ReadUpTo>,
    responses((status = 200, body = ReadPosition)))]
async fn read(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    State(marks): State<ReadMarkWriter>,
    MaybeJson(upto): MaybeJson<ReadUpTo>,
) -> Result<Json<ReadPosition>> {
    let seq = upto.unwrap_or_default().seq.unwrap_or(Seq(i64::MAX));
    if seq.0 < 0 {
        return Err(AppError::invalid("seq", "must be a number ≥ 0"));
    }
    mark(&marks, caller, chat_id, MarkTarget::UpTo(seq)).await
}

/// Marks a message and all later ones as unread, until the caller writes again.
#[utoipa::path(post, path = "/api/chat/{id}/unread", operation_id = "mark_unread",
    params(("id" = i64, Path)), request_body = UnreadFrom,
    responses((status = 200, body = ReadPosition)))]
async fn mark_unread(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    State(marks): State<ReadMarkWriter>,
    Json(UnreadFrom { message_id }): Json<UnreadFrom>,
) -> Result<Json<ReadPosition>> {
    mark(&marks, caller, chat_id, MarkTarget::Before(message_id)).await
}

/// Moves the caller's read marks to the end of these chats, or of all.
#[utoipa::path(post, path = "/api/read", operation_id = "read_chats",
    request_body = Option<ReadChats>, responses((status = 204)))]
async fn read_many(
    caller: CurrentUser,
    State(state): State<AppState>,
    MaybeJson(chats): MaybeJson<ReadChats>,
) -> Result<StatusCode> {
    let chats = chats.unwrap_or_default().chat_ids;
    if let Some(chats) = &chats {
        if chats.len() > MAX_CHATS {
            return Err(AppError::invalid("chat_ids", "must have at most 500 ids"));
        }
        read_mark::check_chats(&state.db, &caller, chats).await?;
    }
    let changed = read_mark::advance(&state.db, &caller, chats.as_deref()).await?;
    let states = read_mark::states(&state.db, &caller, Some(&changed)).await?;
    for read in states {
        read_mark::publish(&state.log, caller.into(), read);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the unread counts of the caller's chats.
#[utoipa::path(get, path = "/api/unread", operation_id = "list_unread", params(ListParams),
    responses((status = 200, body = Unread)))]
async fn list(
    caller: CurrentUser,
    State(db): State<PgPool>,
    Params(params): Params<ListParams>,
) -> Result<Json<Unread>> {
    let chats = params.chat_ids.map(|Ids(ids)| ids);
    if let Some(chats) = &chats {
        read_mark::check_chats(&db, &caller, chats).await?;
    }
    let chats = read_mark::states(&db, &caller, chats.as_deref()).await?;
    let chats: Vec<_> = chats.into_iter().map(|versioned| versioned.state).collect();
    Ok(Json(Unread {
        total: chats.iter().map(|chat| chat.unread_count).sum(),
        mentions: chats.iter().map(|chat| chat.mention_count).sum(),
        chats,
    }))
}

/// Moves the caller's mark in the next batch, which checks the caller and their membership.
async fn mark(
    marks: &ReadMarkWriter,
    caller: AuthUser,
    chat_id: ChatId,
    target: MarkTarget,
) -> Result<Json<ReadPosition>> {
    let marked = marks.write(MarkChange { actor: caller.into(), chat_id, target }).await?;
    let ReadState { last_read_seq, unread_count, mention_count, .. } = marked.state();
    Ok(Json(ReadPosition { last_read_seq, unread_count, mention_count }))
}
