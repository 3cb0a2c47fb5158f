//! Accounts: their credentials, the limits on attempts to sign in, the devices, and the people of a
//! workspace.

pub(crate) mod credentials;
pub(crate) mod device;
pub(crate) mod throttle;
pub(crate) mod user;
pub(crate) mod words;
