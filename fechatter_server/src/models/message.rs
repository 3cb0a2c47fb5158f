//! Messages: the request to send one, and a lookup by id.

pub(crate) mod change;
pub(crate) mod history;
pub(crate) mod mentions;
pub(crate) mod reaction;
pub(crate) mod write_batch;

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};
use fechatter_core::message::{Mentions, Message, MessageKind, MessageObject};
use fechatter_core::{ChatId, MessageId, Seq, Timestamp, UserId};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{AppError, Result};
use crate::models::file::{self, Attached};
use crate::models::message::change::Action;
use crate::models::session::actor::Actor;
use crate::utils::json::not_null;
use crate::utils::text::{Alt, Content};

/// The request to send a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageDraft {
    /// May be empty if there are files.
    content: Content,
    /// Addresses of files that the sender has uploaded, or that are in a chat of theirs.
    #[schema(max_items = 20)]
    files: Option<Vec<String>>,
    /// A description of each file, by its address, for those who cannot see it.
    file_alts: Option<HashMap<String, Alt>>,
    idempotency_key: Option<Uuid>,
    /// The message of the same chat that this one answers.
    reply_to_id: Option<MessageId>,
}

/// A message that is not written yet: its sender, chat and content.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) actor: Actor,
    pub(crate) chat_id: ChatId,
    pub(crate) content: String,
    /// The people whom the content mentions, members of the chat or not.
    pub(crate) mentions: Mentions,
    pub(crate) reply_to_id: Option<MessageId>,
    pub(crate) attached: Attached,
    pub(crate) idempotency_key: Uuid,
    /// Distinguishes a retry from another message with the same key.
    pub(crate) digest: Digest,
}

/// The result of sending a message.
#[derive(Debug)]
pub(crate) enum Sent {
    New(Message),
    /// It was sent before under this key; this is its current state.
    Replayed(Message),
}

impl Outgoing {
    pub(crate) fn new(
        actor: Actor,
        chat_id: ChatId,
        content: String,
        idempotency_key: Uuid,
    ) -> Self {
        let digest = digest(&SHA256, content.as_bytes());
        let mentions = mentions::parse(&content);
        Self {
            actor,
            chat_id,
            content,
            mentions,
            reply_to_id: None,
            attached: Attached::default(),
            idempotency_key,
            digest,
        }
    }

    /// Returns true if it neither answers a message nor mentions anybody, and has no file.
    pub(crate) fn is_plain(&self) -> bool {
        self.reply_to_id.is_none() && !self.has_mentions() && !self.has_files()
    }

    /// Returns true if it has files, found or not.
    pub(crate) fn has_files(&self) -> bool {
        self.attached.is_missing || !self.attached.files.is_empty()
    }

    /// Returns true if its text names people to mention. Those who are not in the chat will not be
    /// mentioned.
    pub(crate) fn has_mentions(&self) -> bool {
        self.mentions.all || !self.mentions.user_ids.is_empty()
    }

    /// Makes it a reply to a message of the same chat.
    pub(crate) fn replying_to(self, id: MessageId) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(self.digest.as_ref());
        digest.update(format!("reply_to_id={id}").as_bytes());
        Self { reply_to_id: Some(id), digest: digest.finish(), ..self }
    }

    /// Gives it files, each by its address and with its description.
    fn with_files(self, urls: &[String], alts: &BTreeMap<&str, &str>, attached: Attached) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(self.digest.as_ref());
        for url in urls {
            digest.update(format!("file={url}\n").as_bytes());
        }
        for (url, alt) in alts {
            digest.update(format!("alt={url}\n{alt}\n").as_bytes());
        }
        Self { attached, digest: digest.finish(), ..self }
    }

    /// Returns the written message, if it mentions nobody and has no file.
    pub(crate) fn into_message(self, id: MessageId, seq: Seq, created_at: Timestamp) -> Message {
        Message::from(MessageObject {
            id,
            chat_id: self.chat_id,
            sender_id: self.actor.user_id(),
            content: self.content,
            created_at,
            idempotency_key: self.idempotency_key,
            seq,
            kind: MessageKind::User,
            edited_at: None,
            deleted_at: None,
            reply_to_id: self.reply_to_id,
            parts: None,
            system: None,
            has_files: false,
        })
    }
}

impl MessageDraft {
    /// Returns the number of files in the request.
    pub(crate) fn file_count(&self) -> usize {
        self.files.as_ref().map_or(0, Vec::len)
    }

    /// Makes the message that this sender sends to this chat. A request without an idempotency key
    /// gets a new one.
    pub(crate) async fn into_outgoing(
        self,
        db: &PgPool,
        sender: Actor,
        chat_id: ChatId,
    ) -> Result<Outgoing> {
        let urls = self.files.unwrap_or_default();
        if urls.len() > file::MAX_FILES {
            return Err(AppError::invalid("files", "must have at most 20 items"));
        }
        let alts = self.file_alts.unwrap_or_default();
        let alts: BTreeMap<_, _> =
            alts.iter().map(|(url, alt)| (url.as_str(), alt.as_str())).collect();
        if !alts.keys().all(|url| urls.iter().any(|attached| attached == url)) {
            return Err(AppError::invalid("file_alts", "must have addresses of the files only"));
        }
        let content = if urls.is_empty() {
            self.content.into_message()?
        } else {
            self.content.into_caption()?
        };
        let key = self.idempotency_key.unwrap_or_else(Uuid::now_v7);
        let outgoing = Outgoing::new(sender, chat_id, content, key);
        mentions::check_count(&outgoing.mentions)?;
        let outgoing = match self.reply_to_id {
            Some(id) => outgoing.replying_to(id),
            None => outgoing,
        };
        if urls.is_empty() {
            return Ok(outgoing);
        }
        let owner = (sender.workspace_id(), sender.user_id());
        let attached = file::attach(db, owner, &urls, &alts).await?;
        Ok(outgoing.with_files(&urls, &alts, attached))
    }
}

/// A change of a message by its sender. An absent field changes nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageChanges {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Content, required = false)]
    content: Option<Content>,
}

impl MessageChanges {
    /// Returns the edit, if the request has a new text.
    pub(crate) fn into_edit(self) -> Result<Option<Action>> {
        let Some(content) = self.content else { return Ok(None) };
        let content = content.into_message()?;
        let mentions = mentions::parse(&content);
        mentions::check_count(&mentions)?;
        Ok(Some(Action::Edit(content, mentions)))
    }
}

/// Finds messages, in any order. Their reactions do not say whether they are the viewer's own.
pub(crate) async fn find_many(
    db: &PgPool,
    messages: &[(ChatId, MessageId)],
) -> Result<Vec<Message>> {
    let (chats, ids): (Vec<_>, Vec<_>) = messages.iter().copied().unzip();
    let objects = sqlx::query_scalar!(
        r#"select found.message as "message!: MessageObject"
           from unnest($1::bigint[], $2::bigint[]) as wanted (chat_id, id)
           cross join lateral (
               select m as message
               from message_objects as m
               where m.chat_id = wanted.chat_id and m.id between wanted.id and wanted.id
               order by m.id
               limit 1
           ) as found"#,
        &chats as _,
        &ids as _
    )
    .fetch_all(db)
    .await?;
    Ok(objects.into_iter().map(Message::from).collect())
}

/// Finds a message, as this person sees it.
pub(crate) async fn find(
    db: &PgPool,
    viewer: UserId,
    chat_id: ChatId,
    id: MessageId,
) -> Result<Message> {
    let object = sqlx::query_scalar!(
        r#"select m as "message!: MessageObject"
           from message_objects as m
           where chat_id = $1 and id = $2"#,
        chat_id as _,
        id as _
    )
    .fetch_optional(db)
    .await?;
    let mut message = object.map(Message::from).ok_or(AppError::NotFound)?;
    reaction::mark_own(db, viewer, std::slice::from_mut(&mut message)).await?;
    Ok(message)
}
