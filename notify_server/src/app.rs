//! The parts of the server that all streams share.

use std::sync::Arc;

use fechatter_core::UserId;
use fechatter_core::rate::Rates;
use fechatter_core::token::Verifier;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::read::loader::Loader;
use crate::read::tail::Tail;
use crate::stream::limits::StreamLimits;
use crate::workspace::hub::Hub;

/// The parts of the server that a stream uses.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) verifier: Verifier,
    pub(crate) db: Database,
    pub(crate) hub: Arc<Hub>,
    pub(crate) loader: Arc<Loader>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) rates: Rates<UserId>,
    pub(crate) limits: Arc<StreamLimits>,
    pub(crate) shutdown: CancellationToken,
}
