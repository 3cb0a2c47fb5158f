//! What requests pass before their handlers, and what handlers ask for about their origin: who
//! calls, from where, and how much they may take.

pub(crate) mod admission;
pub(crate) mod auth;
pub(crate) mod bytes_in_flight;
pub(crate) mod device;
pub(crate) mod limits;
