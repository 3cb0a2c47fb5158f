//! The layer that admits requests, the limits, and the extractors that say who calls and from where.

pub(crate) mod admission;
pub(crate) mod auth;
pub(crate) mod bytes_in_flight;
pub(crate) mod device;
pub(crate) mod limits;
pub(crate) mod parameters;
