//! Preferences: a person's own for a chat, and an object that their clients store for them.

use std::collections::BTreeMap;

use fechatter_core::chat::NotifyLevel;
use fechatter_core::{ChatId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgExecutor;
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::error::Result;
use crate::models::session::actor::Actor;
use crate::models::session::current_user::CurrentUser;
use crate::utils::json::{Change, not_null};

/// A change of a person's preferences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreferenceChange {
    pub(crate) actor: Actor,
    /// The chat that they are for; none for those of the clients.
    pub(crate) chat_id: Option<ChatId>,
    /// The new values, as JSON. An absent value stays; null clears one.
    pub(crate) values: String,
}

/// New preferences for a chat. An absent field changes nothing.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatPreferences {
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = NotifyLevel, required = false)]
    notify_level: Option<NotifyLevel>,
    /// The end of the time without notifications.
    #[serde(default, skip_serializing_if = "Change::is_absent")]
    #[schema(value_type = Option<Timestamp>, required = false)]
    muted_until: Change<Timestamp>,
    /// Pinned chats come first in the list.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool, required = false)]
    pinned: Option<bool>,
}

/// An object of the clients' own, at most 8 KiB of JSON.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "BTreeMap<String, Value>")]
pub(crate) struct Preferences(BTreeMap<String, Value>);

impl TryFrom<BTreeMap<String, Value>> for Preferences {
    type Error = &'static str;

    fn try_from(values: BTreeMap<String, Value>) -> Result<Self, &'static str> {
        let has_nul = values.iter().any(|(key, value)| key.contains('\0') || has_nul(value));
        if has_nul { Err("must not contain NUL") } else { Ok(Self(values)) }
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(values) => {
            values.iter().any(|(key, value)| key.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Reads the object that the caller's clients have stored.
pub(crate) async fn read(db: impl PgExecutor<'_>, caller: &CurrentUser) -> Result<Preferences> {
    let stored = sqlx::query_scalar!(
        r#"select preferences as "preferences: Json<Preferences>"
           from user_preferences
           where workspace_id = $1 and user_id = $2"#,
        caller.workspace_id as _,
        caller.id as _
    )
    .fetch_optional(db)
    .await?;
    Ok(stored.map(|Json(preferences)| preferences).unwrap_or_default())
}
