//! Messages.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fechatter_core::message::Message;
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, MessageId, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{AppError, ErrorKind, Result};
use crate::handlers::chat::replayed;
use crate::middlewares::auth::Caller;
use crate::models::chat::membership::Member;
use crate::models::message::change::{Action, Change};
use crate::models::message::history::{self, Place, ReplyPlace};
use crate::models::message::{self, MessageChanges, MessageDraft, Sent};
use crate::models::session::current_user::CurrentUser;
use crate::services::batch_writer::BatchWriter;
use crate::services::limits::{Caller as RateCaller, RequestLimits};
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::page::Limit;
use crate::utils::path::{Id, MessageIdInPath};
use crate::utils::query::{Ids, Number, OneId, Params};

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    let send_errors = [
        E::EmptyMessage,
        E::TooManyMentions,
        E::ReplyNotFound,
        E::FileNotFound,
        E::Archived,
        E::Forbidden,
        E::IdempotencyMismatch,
    ];
    let edit_errors = [E::EmptyMessage, E::TooManyMentions, E::Archived, E::Forbidden];
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(send).errors(&send_errors))
        .routes(routes!(show))
        .routes(routes!(edit).errors(&edit_errors))
        .routes(routes!(locate))
        .routes(routes!(delete).errors(&[E::Archived, E::Forbidden]))
}

/// The default number of messages in a list.
const DEFAULT_LIMIT: i64 = 100;

/// At most one of `last_id`, the three seqs, `around_time` and `ids` may be given. It selects the messages.
/// `reply_to` may be given with `before_seq` or `after_seq`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct HistoryParams {
    /// Messages with a smaller id.
    #[param(value_type = Option<i64>, minimum = 0)]
    last_id: Option<Number>,
    #[param(value_type = Option<i64>, minimum = 0)]
    before_seq: Option<Number>,
    #[param(value_type = Option<i64>, minimum = 0)]
    after_seq: Option<Number>,
    /// A page with this message in its middle.
    #[param(value_type = Option<i64>, minimum = 0)]
    around_seq: Option<Number>,
    /// A page around the first message that was sent at this time or later.
    around_time: Option<Timestamp>,
    /// Only the replies to this message.
    #[param(value_type = Option<i64>, minimum = 1)]
    reply_to: Option<OneId<MessageId>>,
    /// At most 100 ids, separated by commas.
    #[param(value_type = Option<String>, pattern = "^[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*$")]
    ids: Option<Ids<MessageId, 100>>,
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100, default = 100)]
    limit: Option<Limit>,
}

enum Selection {
    Place(Place),
    Ids(Vec<MessageId>),
    Replies(MessageId, ReplyPlace),
}

impl HistoryParams {
    fn selection(&self) -> Result<Selection> {
        let place = |number: Option<Number>, place: fn(i64) -> Place| {
            number.map(|Number(number)| Selection::Place(place(number)))
        };
        let selections = [
            place(self.last_id, Place::BeforeId),
            place(self.before_seq, Place::BeforeSeq),
            place(self.after_seq, Place::AfterSeq),
            place(self.around_seq, Place::AroundSeq),
            self.around_time.map(|time| Selection::Place(Place::AroundTime(time))),
            self.ids.clone().map(|Ids(ids)| Selection::Ids(ids)),
        ];
        let mut selections = selections.into_iter().flatten();
        let selection = selections.next().unwrap_or(Selection::Place(Place::End));
        let selection = match (self.reply_to, selection) {
            (None, selection) => selection,
            (Some(OneId(id)), Selection::Place(Place::End)) => {
                Selection::Replies(id, ReplyPlace::Before(i64::MAX))
            }
            (Some(OneId(id)), Selection::Place(Place::BeforeSeq(seq))) => {
                Selection::Replies(id, ReplyPlace::Before(seq))
            }
            (Some(OneId(id)), Selection::Place(Place::AfterSeq(seq))) => {
                Selection::Replies(id, ReplyPlace::After(seq))
            }
            (Some(_), _) => {
                let issue = "allows only before_seq or after_seq beside it";
                return Err(AppError::invalid("reply_to", issue));
            }
        };
        if selections.next().is_some() {
            let issue = "must have only one of last_id, before_seq, after_seq, around_seq, \
                         around_time, ids";
            return Err(AppError::invalid("query", issue));
        }
        Ok(selection)
    }
}

/// Sends a message. The membership is checked in the statement that writes it.
#[utoipa::path(post, path = "/api/chat/{id}/messages", operation_id = "send_message",
    params(("id" = i64, Path)), request_body = MessageDraft,
    responses((status = 201, body = Message, headers(
        ("idempotency-replayed" = bool, description = "Present if the key was used before")
    ))))]
async fn send(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    State(writer): State<BatchWriter>,
    State(limits): State<RequestLimits>,
    State(db): State<PgPool>,
    Json(draft): Json<MessageDraft>,
) -> Result<Response> {
    let files = draft.file_count();
    limits.take_for_ids(caller.id, files)?;
    let permit = match files {
        0 => None,
        _ => Some(limits.connection_in(caller.workspace_id, RateCaller::Person(caller.id)).await?),
    };
    let outgoing = draft.into_outgoing(&db, caller.into(), chat_id).await?;
    drop(permit);
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
    params(("id" = i64, Path), HistoryParams),
    responses((status = 200, body = Vec<Message>, headers(
        ("x-has-older" = bool, description = "True if there are messages older than this page"),
        ("x-has-newer" = bool, description = "True if there are messages newer than this page")
    ))))]
async fn list(
    member: Member,
    State(db): State<PgPool>,
    Params(params): Params<HistoryParams>,
) -> Result<Response> {
    let limit = params.limit.map_or(DEFAULT_LIMIT, |Limit(limit)| limit);
    let page = match params.selection()? {
        Selection::Place(place) => history::page(&db, &member, place, limit).await?,
        Selection::Ids(ids) => history::by_ids(&db, &member, &ids).await?,
        Selection::Replies(id, place) => history::replies(&db, &member, id, place, limit).await?,
    };
    let headers =
        [("x-has-older", page.has_older.to_string()), ("x-has-newer", page.has_newer.to_string())];
    Ok((headers, Json(page.messages)).into_response())
}

/// Returns one message.
#[utoipa::path(get, path = "/api/chat/{id}/messages/{mid}", operation_id = "get_message",
    params(("id" = i64, Path), ("mid" = i64, Path)), responses((status = 200, body = Message)))]
async fn show(
    member: Member,
    MessageIdInPath(id): MessageIdInPath,
    State(db): State<PgPool>,
) -> Result<Json<Message>> {
    message::find(&db, member.user.id, member.chat_id, id).await.map(Json)
}

/// The place of a message.
#[derive(Serialize, ToSchema)]
struct MessagePlace {
    chat_id: ChatId,
    id: MessageId,
    seq: Seq,
}

/// Finds a message by its id alone, for links.
#[utoipa::path(get, path = "/api/permalink/{mid}", operation_id = "find_message",
    params(("mid" = i64, Path)), responses((status = 200, body = MessagePlace)))]
async fn locate(
    caller: CurrentUser,
    MessageIdInPath(id): MessageIdInPath,
    State(db): State<PgPool>,
) -> Result<Json<MessagePlace>> {
    let (chat_id, seq) = history::locate(&db, &caller, id).await?;
    Ok(Json(MessagePlace { chat_id, id, seq }))
}

/// Changes the text of one's own message. The same text again changes nothing.
#[utoipa::path(patch, path = "/api/chat/{id}/messages/{mid}", operation_id = "edit_message",
    params(("id" = i64, Path), ("mid" = i64, Path)), request_body = MessageChanges,
    responses((status = 200, body = Message)))]
async fn edit(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    MessageIdInPath(id): MessageIdInPath,
    State(state): State<AppState>,
    Json(changes): Json<MessageChanges>,
) -> Result<Json<Message>> {
    if let Some(edit) = changes.into_edit()? {
        state.limits.take_for_message(caller.id, edit.text().len())?;
        change(&state, caller, (chat_id, id), edit).await?;
    } else {
        let AuthUser { id, workspace_id, session_id, .. } = caller;
        let user = CurrentUser::find(&state.db, id, workspace_id, session_id).await?;
        Member::find(&state.db, user, chat_id).await?;
    }
    state.messages.find(caller.id, chat_id, id).await.map(Json)
}

/// Deletes a message: its text goes, its place in the chat stays. The sender may do so and, except in a
/// Single, the owner and the admins of the chat.
#[utoipa::path(delete, path = "/api/chat/{id}/messages/{mid}", operation_id = "delete_message",
    params(("id" = i64, Path), ("mid" = i64, Path)), responses((status = 204)))]
async fn delete(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    MessageIdInPath(id): MessageIdInPath,
    State(state): State<AppState>,
) -> Result<StatusCode> {
    change(&state, caller, (chat_id, id), Action::Delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes a message in the next batch, which checks the caller and their membership.
pub(super) async fn change(
    state: &AppState,
    caller: AuthUser,
    (chat_id, message_id): (ChatId, MessageId),
    action: Action,
) -> Result<()> {
    let change = Change { actor: caller.into(), chat_id, message_id, action };
    let changed = state.writer.change(change).await;
    changed.inspect_err(|error| state.limits.charge_if_too_slow(caller.id, error))
}
