//! The layer that admits requests, and the extractors that say who calls, from where, in which chat.

pub(crate) mod admission;
pub(crate) mod auth;
pub(crate) mod device;
pub(crate) mod membership;
pub(crate) mod parameters;
