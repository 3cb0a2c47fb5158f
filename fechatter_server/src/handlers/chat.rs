//! Chats.

use ::metrics::counter;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_extra::TypedHeader;
use axum_extra::headers::{HeaderMapExt, IfNoneMatch};
use fechatter_core::chat::Chat;
use fechatter_core::log::Log;
use fechatter_core::{ChatId, metrics};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::models::chat::directory::{self, DirectoryEntry};
use crate::models::chat::lookup;
use crate::models::chat::membership::Member;
use crate::models::chat::sidebar::{self, ChatSidebar};
use crate::models::chat::{self, ChatChanges, ChatDraft, Created};
use crate::models::session::current_user::CurrentUser;
use crate::services::chat_lists::ChatLists;
use crate::services::purge::Purge;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::key::search_key;
use crate::utils::page::{Cursor, Limit, Page};
use crate::utils::path::Id;
use crate::utils::query::Params;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    let create_errors = [
        E::InvalidMembers,
        E::UserNotFound,
        E::NotFound,
        E::ChatNameTaken,
        E::LimitReached,
        E::IdempotencyMismatch,
    ];
    let update_errors = [E::SingleIsFixed, E::Forbidden, E::ChatNameTaken];
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(create).errors(&create_errors))
        .routes(routes!(directory))
        .routes(routes!(show))
        .routes(routes!(update).errors(&update_errors))
        .routes(routes!(archive).errors(&[E::SingleIsFixed, E::Forbidden]))
        .routes(routes!(unarchive).errors(&[E::SingleIsFixed, E::Forbidden]))
        .routes(routes!(delete).errors(&[E::Forbidden]))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// True selects only archived chats, false only the others.
    #[serde(default)]
    archived: bool,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DirectoryParams {
    /// A part of the name, regardless of case and accents.
    q: Option<String>,
    /// The cursor from the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<1>>,
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<Limit>,
}

#[derive(Serialize, ToSchema)]
struct Directory {
    items: Vec<DirectoryEntry>,
    next_cursor: Option<String>,
}

/// A chat. If the caller is a member, `me` is the chat as in the caller's list.
#[derive(Serialize, ToSchema)]
struct ChatWithMe {
    #[serde(flatten)]
    chat: Chat,
    me: Option<ChatSidebar>,
}

/// Lists the caller's chats, latest activity first.
#[utoipa::path(get, path = "/api/chat", operation_id = "list_chats", params(ListParams),
    responses((status = 200, body = Vec<ChatSidebar>), (status = 304)))]
async fn list(
    caller: CurrentUser,
    State(db): State<PgPool>,
    State(lists): State<ChatLists>,
    Params(params): Params<ListParams>,
    headers: HeaderMap,
) -> Result<Response> {
    let (list, is_cached) = lists.get(&db, &caller, params.archived).await?;
    // An invalid header counts as absent.
    let condition = headers.typed_get::<IfNoneMatch>();
    let is_unmodified =
        condition.is_some_and(|condition| !condition.precondition_passes(&list.etag));
    let outcome = match (is_cached, is_unmodified) {
        (false, _) => "miss",
        (true, false) => "hit",
        (true, true) => "not_modified",
    };
    counter!(metrics::CHAT_LISTS, "outcome" => outcome).increment(1);
    let validators = ([(CACHE_CONTROL, "private, no-cache")], TypedHeader(list.etag));
    if is_unmodified {
        return Ok((StatusCode::NOT_MODIFIED, validators).into_response());
    }
    Ok((validators, [(CONTENT_TYPE, "application/json")], list.json).into_response())
}

/// Creates a chat, or returns the existing Single of two people.
#[utoipa::path(post, path = "/api/chat", operation_id = "create_chat", request_body = ChatDraft,
    responses((status = 201, body = Chat), (status = 200, body = Chat)))]
async fn create(
    caller: CurrentUser,
    State(state): State<AppState>,
    Json(draft): Json<ChatDraft>,
) -> Result<Response> {
    state.limits.take_for_ids(caller.id, draft.id_count())?;
    let limits = &state.config.limits;
    let response = match chat::create(&state.log, limits, &caller, draft).await? {
        Created::New(chat) => (StatusCode::CREATED, Json(chat)).into_response(),
        Created::Existing(chat) => Json(chat).into_response(),
        Created::Replayed(chat) => (StatusCode::CREATED, replayed(), Json(chat)).into_response(),
    };
    Ok(response)
}

/// Lists the workspace's public channels.
#[utoipa::path(get, path = "/api/chat/directory", operation_id = "list_directory",
    params(DirectoryParams), responses((status = 200, body = Directory)))]
async fn directory(
    caller: CurrentUser,
    State(db): State<PgPool>,
    Params(params): Params<DirectoryParams>,
) -> Result<Json<Directory>> {
    let page = Page::new(params.cursor, params.limit);
    let q = search_key(params.q.as_deref())?;
    let (items, next_cursor) = directory::list(&db, &caller, q, page).await?;
    Ok(Json(Directory { items, next_cursor }))
}

/// Returns a chat that the caller is in, or a public channel.
#[utoipa::path(get, path = "/api/chat/{id}", operation_id = "get_chat", params(("id" = i64, Path)),
    responses((status = 200, body = ChatWithMe)))]
async fn show(
    caller: CurrentUser,
    Id(id): Id<ChatId>,
    State(db): State<PgPool>,
) -> Result<Json<ChatWithMe>> {
    let me = sidebar::list(&db, &caller, Some(id), None).await?.pop();
    if me.is_none() {
        lookup::check_public(&db, caller.workspace_id, id).await?;
    }
    let chat = lookup::find(&db, caller.workspace_id, id).await?;
    Ok(Json(ChatWithMe { chat, me }))
}

/// Renames, describes or converts a chat.
#[utoipa::path(patch, path = "/api/chat/{id}", operation_id = "update_chat",
    params(("id" = i64, Path)), request_body = ChatChanges,
    responses((status = 200, body = Chat)))]
async fn update(
    member: Member,
    State(log): State<Log>,
    Json(changes): Json<ChatChanges>,
) -> Result<Json<Chat>> {
    chat::update(&log, member, changes).await.map(Json)
}

/// Archives a chat: it can be read, but nobody can write to it or change its messages.
#[utoipa::path(post, path = "/api/chat/{id}/archive", operation_id = "archive_chat",
    params(("id" = i64, Path)), responses((status = 200, body = Chat)))]
async fn archive(member: Member, State(log): State<Log>) -> Result<Json<Chat>> {
    chat::set_archived(&log, member, true).await.map(Json)
}

/// Brings an archived chat back.
#[utoipa::path(post, path = "/api/chat/{id}/unarchive", operation_id = "unarchive_chat",
    params(("id" = i64, Path)), responses((status = 200, body = Chat)))]
async fn unarchive(member: Member, State(log): State<Log>) -> Result<Json<Chat>> {
    chat::set_archived(&log, member, false).await.map(Json)
}

/// Deletes a chat and its messages.
#[utoipa::path(delete, path = "/api/chat/{id}", operation_id = "delete_chat",
    params(("id" = i64, Path)), responses((status = 204)))]
async fn delete(
    member: Member,
    State(log): State<Log>,
    State(purge): State<Purge>,
) -> Result<StatusCode> {
    chat::delete(&log, member).await?;
    purge.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the header that marks a replayed response.
pub(super) fn replayed() -> [(HeaderName, HeaderValue); 1] {
    [(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"))]
}
