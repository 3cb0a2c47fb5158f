//! The layer that admits requests, and the extractors of the caller, the device and the membership.

pub(crate) mod admission;
pub(crate) mod auth;
pub(crate) mod device;
pub(crate) mod membership;
pub(crate) mod parameters;
