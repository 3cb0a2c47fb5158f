//! Telling the other members of a chat that a person is typing.

use axum::extract::State;
use axum::http::StatusCode;
use fechatter_core::event::EphemeralEvent;
use fechatter_core::log::Log;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::models::chat::membership::Member;
use crate::services::typing::{EXPIRES_IN, TypingLimit};
use crate::state::AppState;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(typing).errors(&[ErrorKind::Archived]))
}

/// Tells the other members that the caller is typing, at most once in 3 s.
#[utoipa::path(post, path = "/api/chat/{id}/typing", operation_id = "typing",
    params(("id" = i64, Path)), responses((status = 204)))]
async fn typing(
    member: Member,
    State(log): State<Log>,
    State(limit): State<TypingLimit>,
) -> Result<StatusCode> {
    member.require_not_archived()?;
    let Member { user, chat_id, .. } = member;
    if limit.admit(chat_id, user.id) {
        let event = EphemeralEvent::Typing { chat_id, user_id: user.id, expires_in: EXPIRES_IN };
        log.send_ephemeral(user.workspace_id, user.id, event);
    }
    Ok(StatusCode::NO_CONTENT)
}
