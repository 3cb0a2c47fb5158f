//! The members of a chat.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fechatter_core::chat::ChatMember;
use fechatter_core::log::Log;
use fechatter_core::{ChatId, UserId};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{AppError, Result};
use crate::handlers::invite::PageParams;
use crate::handlers::user::next_cursor;
use crate::models::current_user::CurrentUser;
use crate::models::member;
use crate::models::member_role::{self, Changed, MemberChange};
use crate::models::membership::{MAX_NAMED, Member};
use crate::services::limits::RequestLimits;
use crate::state::AppState;
use crate::utils::json::{Json, MaybeJson, MaybeList};
use crate::utils::page::{self, Params};
use crate::utils::path::{Id, InMember};

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(join))
        .routes(routes!(leave))
        .routes(routes!(list, add, remove))
        .routes(routes!(change))
}

#[derive(Deserialize, IntoParams)]
struct RemoveParams {
    user_ids: Option<String>,
}

/// Joins a public channel.
#[utoipa::path(post, path = "/api/chat/{id}/join", operation_id = "join_chat",
    params(("id" = i64, Path)), responses((status = 200, body = ChatMember)))]
async fn join(
    caller: CurrentUser,
    Id(id): Id<ChatId>,
    State(log): State<Log>,
) -> Result<Json<ChatMember>> {
    member::join(&log, caller, id).await.map(Json)
}

/// Leaves a chat.
#[utoipa::path(post, path = "/api/chat/{id}/leave", operation_id = "leave_chat",
    params(("id" = i64, Path)), responses((status = 204)))]
async fn leave(member: Member, State(log): State<Log>) -> Result<StatusCode> {
    member::leave(&log, member).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the members, oldest first.
#[utoipa::path(get, path = "/api/chat/{id}/members", operation_id = "list_members",
    params(("id" = i64, Path), PageParams), responses((status = 200, body = Vec<ChatMember>)))]
async fn list(
    member: Member,
    State(db): State<PgPool>,
    Params(params): Params<PageParams>,
) -> Result<(HeaderMap, Json<Vec<ChatMember>>)> {
    let (cursor, limit) = (params.cursor.as_deref(), params.limit.as_deref());
    let (members, next) = member::list(&db, &member, cursor, limit).await?;
    Ok((next_cursor(next), Json(members)))
}

/// Adds people to a chat, and returns those who were not in it.
#[utoipa::path(post, path = "/api/chat/{id}/members", operation_id = "add_members",
    params(("id" = i64, Path)), request_body = Vec<i64>,
    responses((status = 201, body = Vec<ChatMember>)))]
async fn add(
    member: Member,
    State(log): State<Log>,
    State(limits): State<RequestLimits>,
    MaybeList(people): MaybeList<UserId>,
) -> Result<(StatusCode, Json<Vec<ChatMember>>)> {
    let people = people.ok_or(AppError::MalformedJson("missing"))?;
    limits.take_for_names(member.user.id, people.len())?;
    let added = member::add(&log, member, check_count(&people)?).await?;
    Ok((StatusCode::CREATED, Json(added)))
}

/// Removes the people in the body or in the query from a chat.
#[utoipa::path(delete, path = "/api/chat/{id}/members", operation_id = "remove_members",
    params(("id" = i64, Path), RemoveParams), request_body = Option<Vec<i64>>,
    responses((status = 204)))]
async fn remove(
    member: Member,
    State(log): State<Log>,
    State(limits): State<RequestLimits>,
    Params(params): Params<RemoveParams>,
    MaybeList(people): MaybeList<UserId>,
) -> Result<StatusCode> {
    let people = match (people, params.user_ids) {
        (Some(people), None) => people,
        (None, Some(ids)) => page::ids("user_ids", &ids)?,
        _ => return Err(AppError::invalid("user_ids", "must be in the body or in the query")),
    };
    limits.take_for_names(member.user.id, people.len())?;
    member::remove(&log, member, check_count(&people)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Transfers the chat to a member, or changes a member's role.
#[utoipa::path(patch, path = "/api/chat/{id}/members/{member_id}", operation_id = "change_member",
    params(("id" = i64, Path), ("member_id" = i64, Path)), request_body = Option<MemberChange>,
    responses((status = 200, body = ChatMember)))]
async fn change(
    caller: CurrentUser,
    Id(chat_id): Id<ChatId>,
    InMember(target): InMember,
    State(state): State<AppState>,
    MaybeJson(change): MaybeJson<MemberChange>,
) -> Result<Response> {
    let stores = (&state.log, &state.config.limits);
    let response = match member_role::change(stores, caller, (chat_id, target), change).await? {
        Changed::Transferred => Json("Chat ownership transferred successfully").into_response(),
        Changed::Role(member) => Json(member).into_response(),
    };
    Ok(response)
}

fn check_count(people: &[UserId]) -> Result<&[UserId]> {
    let checked = (people.len() <= MAX_NAMED).then_some(people);
    checked.ok_or_else(|| AppError::invalid("body", "must name at most 500 people"))
}
