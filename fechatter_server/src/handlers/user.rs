//! The people of the caller's workspace.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use fechatter_core::log::Log;
use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{ChatId, UserId};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::models::account::user::{self, Filter, ListedUser};
use crate::models::account::words;
use crate::models::chat::membership::Member;
use crate::models::session::current_user::CurrentUser;
use crate::models::session::password_reset::ResetLink;
use crate::models::workspace::offboarding;
use crate::models::workspace::reset_link;
use crate::models::workspace::role::{self, UserChanges};
use crate::services::offboarding::Offboardings;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::page::{Cursor, Limit, Page};
use crate::utils::path::Id;
use crate::utils::query::{Ids, OneId, Params};

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    OpenApiRouter::new()
        .routes(routes!(list).errors(&[E::NotFound]))
        .routes(routes!(show))
        .routes(routes!(update).errors(&[E::Forbidden, E::LastOwner]))
        .routes(routes!(remove).errors(&[E::Forbidden, E::LastOwner]))
        .routes(routes!(create_reset_link).errors(&[E::Forbidden, E::SharedAccount]))
}

/// Each given condition narrows the list; with neither cursor, limit, `q` nor `chat_id` it has all people.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Words that begin words of the name, or the e-mail address, regardless of case and accents.
    q: Option<String>,
    /// A chat of the caller, whose members come first.
    #[param(value_type = Option<i64>, minimum = 1)]
    chat_id: Option<OneId<ChatId>>,
    #[param(inline)]
    role: Option<Role>,
    #[param(inline)]
    status: Option<UserStatus>,
    /// At most 100 ids, separated by commas.
    #[param(value_type = Option<String>, pattern = "^[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*$")]
    ids: Option<Ids<UserId, 100>>,
    /// The cursor from the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<2>>,
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Limit>,
}

/// Lists the workspace's people, by id.
#[utoipa::path(get, path = "/api/users", operation_id = "list_users",
    params(ListParams),
    responses((status = 200, body = Vec<ListedUser>, headers(
        ("x-next-cursor" = String, description = "The next page's cursor, if there is one")
    ))))]
async fn list(
    caller: CurrentUser,
    State(db): State<PgPool>,
    Params(params): Params<ListParams>,
) -> Result<(HeaderMap, Json<Vec<ListedUser>>)> {
    let page = if params.q.is_some() || params.chat_id.is_some() {
        Page::new(params.cursor, params.limit)
    } else {
        Page::or_all(params.cursor, params.limit)
    };
    let chat_id = params.chat_id.map(|OneId(id)| id);
    if let Some(chat_id) = chat_id {
        Member::find(&db, caller, chat_id).await?;
    }
    let filter = Filter {
        found: words::search(&db, caller.workspace_id, params.q.as_deref()).await?,
        role: params.role,
        status: params.status,
        ids: params.ids.map(|Ids(ids)| ids),
        chat_id,
    };
    let (users, next) = user::list(&db, caller.workspace_id, filter, page).await?;
    Ok((next_cursor(next), Json(users)))
}

/// Returns a person who is in the workspace or has left it.
#[utoipa::path(get, path = "/api/users/{id}", operation_id = "get_user",
    params(("id" = i64, Path)),
    responses((status = 200, body = User)))]
async fn show(
    caller: CurrentUser,
    Id(id): Id<UserId>,
    State(db): State<PgPool>,
) -> Result<Json<User>> {
    user::find_including_left(&db, caller.workspace_id, id).await.map(Json)
}

/// Changes a person's role or status.
#[utoipa::path(patch, path = "/api/users/{id}", operation_id = "update_user",
    params(("id" = i64, Path)), request_body = UserChanges,
    responses((status = 200, body = User)))]
async fn update(
    caller: CurrentUser,
    Id(id): Id<UserId>,
    State(log): State<Log>,
    Json(changes): Json<UserChanges>,
) -> Result<Json<User>> {
    role::update(&log, caller, id, changes).await.map(Json)
}

/// Removes a person from the workspace and all its chats.
#[utoipa::path(delete, path = "/api/users/{id}", operation_id = "remove_user",
    params(("id" = i64, Path)), responses((status = 204)))]
async fn remove(
    caller: CurrentUser,
    Id(id): Id<UserId>,
    State(log): State<Log>,
    State(offboardings): State<Offboardings>,
) -> Result<StatusCode> {
    offboarding::remove(&log, caller, id).await?;
    offboardings.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// Creates a link with which a person sets a new password within an hour, once. Only this response
/// contains it, and it ends an earlier one.
#[utoipa::path(post, path = "/api/users/{id}/reset-link", operation_id = "create_reset_link",
    params(("id" = i64, Path)), responses((status = 201, body = ResetLink)))]
async fn create_reset_link(
    caller: CurrentUser,
    Id(id): Id<UserId>,
    State(state): State<AppState>,
) -> Result<(StatusCode, Json<ResetLink>)> {
    let link = reset_link::create(&state.log, &state.config, caller, id).await?;
    Ok((StatusCode::CREATED, Json(link)))
}

/// Returns the header with the cursor of the next page, for responses that are plain arrays.
pub(super) fn next_cursor(next: Option<String>) -> HeaderMap {
    let value = next.and_then(|cursor| HeaderValue::try_from(cursor).ok());
    value.map(|value| (HeaderName::from_static("x-next-cursor"), value)).into_iter().collect()
}
