//! Reactions to messages.

use axum::extract::State;
use fechatter_core::message::Reaction;
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, MessageId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::handlers::message::change;
use crate::middlewares::auth::Caller;
use crate::models::chat::membership::Member;
use crate::models::message::change::Action;
use crate::models::message::reaction;
use crate::models::message::reaction::ReactionPage;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::page::{Cursor, Limit, Page};
use crate::utils::path::{EmojiInPath, Id, MessageIdInPath};
use crate::utils::query::Params;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(add).errors(&[E::InvalidEmoji, E::TooManyReactions, E::Archived]))
        .routes(routes!(remove).errors(&[E::InvalidEmoji, E::Archived]))
}

/// The reactions to a message.
#[derive(Debug, Serialize, ToSchema)]
struct Reactions {
    reactions: Vec<Reaction>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Only reactions with this emoji.
    emoji: Option<String>,
    /// The cursor from the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<1>>,
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<Limit>,
}

/// Lists who has reacted to a message, and how, oldest first.
#[utoipa::path(get, path = "/api/chat/{id}/messages/{mid}/reactions", operation_id = "list_reactions",
    params(("id" = i64, Path), ("mid" = i64, Path), ListParams),
    responses((status = 200, body = ReactionPage)))]
async fn list(
    member: Member,
    MessageIdInPath(id): MessageIdInPath,
    State(state): State<AppState>,
    Params(params): Params<ListParams>,
) -> Result<Json<ReactionPage>> {
    let page = Page::new(params.cursor, params.limit);
    let emoji = params.emoji.as_deref().map(|text| emojis::get(text).map_or(text, |e| e.as_str()));
    reaction::list(&state.db, (member.chat_id, id), emoji, page).await.map(Json)
}

/// Adds one's reaction. Adding it again changes nothing.
#[utoipa::path(put, path = "/api/chat/{id}/messages/{mid}/reactions/{emoji}",
    operation_id = "add_reaction",
    params(("id" = i64, Path), ("mid" = i64, Path), ("emoji" = String, Path)),
    responses((status = 200, body = Reactions)))]
async fn add(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    MessageIdInPath(id): MessageIdInPath,
    EmojiInPath(emoji): EmojiInPath,
    State(state): State<AppState>,
) -> Result<Json<Reactions>> {
    react(&state, caller, (chat_id, id), Action::AddReaction(emoji.into())).await
}

/// Removes one's reaction. Removing it again changes nothing.
#[utoipa::path(delete, path = "/api/chat/{id}/messages/{mid}/reactions/{emoji}",
    operation_id = "remove_reaction",
    params(("id" = i64, Path), ("mid" = i64, Path), ("emoji" = String, Path)),
    responses((status = 200, body = Reactions)))]
async fn remove(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    MessageIdInPath(id): MessageIdInPath,
    EmojiInPath(emoji): EmojiInPath,
    State(state): State<AppState>,
) -> Result<Json<Reactions>> {
    react(&state, caller, (chat_id, id), Action::RemoveReaction(emoji.into())).await
}

/// Makes the change, and returns the reactions to the message after it.
async fn react(
    state: &AppState,
    caller: AuthUser,
    message: (ChatId, MessageId),
    action: Action,
) -> Result<Json<Reactions>> {
    change(state, caller, message, action).await?;
    let (chat_id, id) = message;
    let message = state.messages.find(caller.id, chat_id, id).await?;
    Ok(Json(Reactions { reactions: message.reactions }))
}
