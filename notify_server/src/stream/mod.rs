//! The handling of `GET /events`, from the request to the last frame.

mod catch_up;
pub(crate) mod life;
pub(crate) mod limits;
mod refusals;
mod replay;
pub(crate) mod request;
mod start;
mod writer;
