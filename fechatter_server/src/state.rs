//! The parts of a running server that its handlers use.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use fechatter_core::log::Log;
use fechatter_core::token::{Signer, Verifier};
use sqlx::PgPool;

use crate::config::Config;
use crate::middlewares::parameters::KnownParameters;
use crate::models::session::authentication::Authentication;
use crate::services::batch_writer::BatchWriter;
use crate::services::chat_lists::ChatLists;
use crate::services::file_store::FileStore;
use crate::services::limits::RequestLimits;
use crate::services::message_reader::MessageReader;
use crate::services::offboarding::Offboardings;
use crate::services::password::Passwords;
use crate::services::purge::Purge;
use crate::services::read_mark_writer::ReadMarkWriter;
use crate::services::refresh_token::RefreshKey;
use crate::services::typing::TypingLimit;

/// The parts of the server. Clones share them, because each layer clones this for each request.
#[derive(Clone)]
pub(crate) struct AppState(Arc<App>);

pub(crate) struct App {
    pub(crate) config: Arc<Config>,
    pub(crate) db: PgPool,
    pub(crate) log: Log,
    pub(crate) writer: BatchWriter,
    pub(crate) messages: MessageReader,
    pub(crate) read_marks: ReadMarkWriter,
    pub(crate) typing: TypingLimit,
    pub(crate) chat_lists: ChatLists,
    pub(crate) passwords: Passwords,
    pub(crate) files: FileStore,
    pub(crate) purge: Purge,
    pub(crate) offboardings: Offboardings,
    pub(crate) limits: RequestLimits,
    pub(crate) parameters: KnownParameters,
    pub(crate) verifier: Verifier,
    pub(crate) signer: Signer,
    pub(crate) refresh_key: RefreshKey,
}

impl From<App> for AppState {
    fn from(app: App) -> Self {
        Self(Arc::new(app))
    }
}

impl Deref for AppState {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

/// Allows handlers and extractors to extract a single part.
macro_rules! parts {
    ($($field:ident: $part:ty,)*) => {$(
        impl FromRef<AppState> for $part {
            fn from_ref(state: &AppState) -> Self {
                state.$field.clone()
            }
        }
    )*};
}

parts! {
    db: PgPool,
    log: Log,
    writer: BatchWriter,
    messages: MessageReader,
    read_marks: ReadMarkWriter,
    typing: TypingLimit,
    chat_lists: ChatLists,
    purge: Purge,
    offboardings: Offboardings,
    limits: RequestLimits,
    verifier: Verifier,
}

impl FromRef<AppState> for Authentication {
    fn from_ref(state: &AppState) -> Self {
        Self {
            db: state.db.clone(),
            log: state.log.clone(),
            config: Arc::clone(&state.config),
            device_key: state.refresh_key.device_key(),
            passwords: state.passwords.clone(),
            limits: state.limits.clone(),
        }
    }
}
