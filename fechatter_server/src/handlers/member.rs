//! The members of a chat.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use fechatter_core::chat::ChatMember;
use fechatter_core::log::Log;
use fechatter_core::{ChatId, UserId};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{AppError, ErrorKind, Result};
use crate::handlers::user::next_cursor;
use crate::models::account::words;
use crate::models::chat::member::{self, ListedMember};
use crate::models::chat::member_role::{self, Changed, MemberChange};
use crate::models::chat::membership::{MAX_USERS_PER_REQUEST, Member};
use crate::models::session::current_user::CurrentUser;
use crate::services::limits::RequestLimits;
use crate::state::AppState;
use crate::utils::json::{Json, MaybeJson, MaybeList};
use crate::utils::page::{Cursor, Limit, Page};
use crate::utils::path::{Id, MemberIdInPath};
use crate::utils::query::{Ids, Params};

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    let add_errors = [E::SingleIsFixed, E::Forbidden, E::UserNotFound];
    let remove_errors = [E::SingleIsFixed, E::NoMembersMatched, E::Forbidden, E::OwnerMustTransfer];
    let change_errors = [
        E::SingleIsFixed,
        E::NotAChatMember,
        E::UserNotFound,
        E::Forbidden,
        E::LimitReached,
        E::OwnerMustTransfer,
    ];
    OpenApiRouter::new()
        .routes(routes!(join).errors(&[E::SingleIsFixed]))
        .routes(routes!(leave).errors(&[E::SingleIsFixed, E::OwnerMustTransfer]))
        .routes(routes!(list))
        .routes(routes!(add).errors(&add_errors))
        .routes(routes!(remove).errors(&remove_errors))
        .routes(routes!(change).errors(&change_errors))
}

/// With neither cursor nor limit, the list has all members.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Words that begin words of the name, or the e-mail address, regardless of case and accents.
    q: Option<String>,
    /// Adds the people themselves to the list.
    #[param(inline)]
    expand: Option<Expansion>,
    /// The cursor from the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<2>>,
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Limit>,
}

/// An addition to each entry of the list.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Expansion {
    User,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RemoveParams {
    /// At most 500 ids, separated by commas, if the request has no body.
    #[param(value_type = Option<String>, pattern = "^[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*$")]
    user_ids: Option<Ids<UserId, MAX_USERS_PER_REQUEST>>,
}

/// The changed member or, after a transfer, a message.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ChangedMember {
    Message(&'static str),
    Member(ChatMember),
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
    params(("id" = i64, Path), ListParams), responses((status = 200, body = Vec<ListedMember>, headers(
        ("x-next-cursor" = String, description = "The next page's cursor, if there is one")
    ))))]
async fn list(
    member: Member,
    State(db): State<PgPool>,
    Params(params): Params<ListParams>,
) -> Result<(HeaderMap, Json<Vec<ListedMember>>)> {
    let page = Page::or_all(params.cursor, params.limit);
    let found = words::search(&db, member.user.workspace_id, params.q.as_deref()).await?;
    let with_users = params.expand == Some(Expansion::User);
    let (members, next) = member::list(&db, &member, found.as_deref(), with_users, page).await?;
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
    limits.take_for_ids(member.user.id, people.len())?;
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
        (None, Some(Ids(ids))) => ids,
        _ => return Err(AppError::invalid("user_ids", "must be in the body or in the query")),
    };
    limits.take_for_ids(member.user.id, people.len())?;
    member::remove(&log, member, check_count(&people)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Transfers the chat to a member, or changes a member's role.
#[utoipa::path(patch, path = "/api/chat/{id}/members/{member_id}", operation_id = "change_member",
    params(("id" = i64, Path), ("member_id" = i64, Path)), request_body = Option<MemberChange>,
    responses((status = 200, body = ChangedMember)))]
async fn change(
    caller: CurrentUser,
    Id(chat_id): Id<ChatId>,
    MemberIdInPath(target): MemberIdInPath,
    State(state): State<AppState>,
    MaybeJson(change): MaybeJson<MemberChange>,
) -> Result<Json<ChangedMember>> {
    let stores = (&state.log, &state.config.limits);
    let changed = member_role::change(stores, caller, (chat_id, target), change).await?;
    Ok(Json(match changed {
        Changed::Transferred => ChangedMember::Message("Chat ownership transferred successfully"),
        Changed::Role(member) => ChangedMember::Member(member),
    }))
}

fn check_count(people: &[UserId]) -> Result<&[UserId]> {
    let checked = (people.len() <= MAX_USERS_PER_REQUEST).then_some(people);
    checked.ok_or_else(|| AppError::invalid("body", "must name at most 500 people"))
}
