//! Messages.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fechatter_core::ChatId;
use fechatter_core::message::Message;
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Result;
use crate::handlers::chat::replayed;
use crate::middlewares::auth::Caller;
use crate::models::history::{self, Selection};
use crate::models::membership::Member;
use crate::models::message::{self, MessageDraft, Sent};
use crate::services::batch_writer::BatchWriter;
use crate::services::limits::RequestLimits;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::page::Params;
use crate::utils::path::{Id, InMessage};

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, send)).routes(routes!(show))
}

/// Sends a message. The membership is checked in the statement that writes it.
#[utoipa::path(post, path = "/api/chat/{id}/messages", operation_id = "send_message",
    params(("id" = i64, Path)), request_body = MessageDraft,
    responses((status = 201, body = Message)))]
async fn send(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    State(writer): State<BatchWriter>,
    State(limits): State<RequestLimits>,
    Json(draft): Json<MessageDraft>,
) -> Result<Response> {
    let outgoing = draft.into_outgoing(caller.into(), chat_id)?;
    limits.take_for_message(caller.id, outgoing.content.len())?;
    let sent = writer.send(outgoing).await;
    let sent = sent.inspect_err(|error| limits.charge_if_too_slow(caller.id, error))?;
    let response = match sent {
        Sent::New(message) => (StatusCode::CREATED, Json(message)).into_response(),
        Sent::Replayed(message) => (StatusCode::CREATED, replayed(), Json(message)).into_response(),
    };
    Ok(response)
}

/// Returns a page of messages, newest first.
#[utoipa::path(get, path = "/api/chat/{id}/messages", operation_id = "list_messages",
    params(
        ("id" = i64, Path), ("last_id" = Option<i64>, Query), ("before_seq" = Option<i64>, Query),
        ("after_seq" = Option<i64>, Query), ("around_seq" = Option<i64>, Query),
        ("ids" = Option<String>, Query), ("limit" = Option<u8>, Query),
    ),
    responses((status = 200, body = Vec<Message>)))]
async fn list(
    member: Member,
    State(db): State<PgPool>,
    Params(selection): Params<Selection>,
) -> Result<Response> {
    let page = history::page(&db, &member, selection).await?;
    let beyond =
        [("x-has-older", page.has_older.to_string()), ("x-has-newer", page.has_newer.to_string())];
    Ok((beyond, Json(page.messages)).into_response())
}

/// Returns one message.
#[utoipa::path(get, path = "/api/chat/{id}/messages/{mid}", operation_id = "get_message",
    params(("id" = i64, Path), ("mid" = i64, Path)), responses((status = 200, body = Message)))]
async fn show(
    member: Member,
    InMessage(id): InMessage,
    State(db): State<PgPool>,
) -> Result<Json<Message>> {
    message::find(&db, member.chat_id, id).await.map(Json)
}
