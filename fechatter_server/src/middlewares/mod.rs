//! What handlers ask for about a request's origin: who calls, from where.

pub(crate) mod auth;
pub(crate) mod device;
pub(crate) mod limits;
