//! What every request to either server shares: the errors' one form, the layers, the accept loop
//! and the operations port.

mod body;
mod error;
mod layers;
mod operations;
mod serve;
mod socket;
mod takeover;
mod well_formed;

pub use error::{ApiError, Detail, ErrorBody};
pub use layers::{RequestId, Shared, shared};
pub use operations::{Ask, Operations, operations};
pub use serve::{Listeners, Peer, serve};
pub use socket::Watched;
pub use takeover::{Taken, Takeover};
