//! The HTTP parts that both servers share: the error format, the layers, the accept loop and the
//! operations port.

mod address;
mod body;
mod connections;
mod error;
mod keep_alive;
mod layers;
mod operations;
mod refusal;
mod serve;
mod socket;
mod takeover;
mod well_formed;

pub use address::network;
pub use connections::{ConnectionLimits, OpenConnection};
pub use error::{ApiError, Detail, ErrorBody};
pub use layers::{RequestId, Requester, Shared, shared};
pub use operations::{Ask, Operations, operations};
pub use serve::{Listeners, Peer, serve};
pub use socket::StallDetectingSocket;
pub use takeover::{TakenConnection, Takeover};
