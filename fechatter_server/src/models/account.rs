//! Accounts: their credentials, the limits on guessing these, and the people behind them.

pub(crate) mod credentials;
pub(crate) mod device;
pub(crate) mod throttle;
pub(crate) mod user;
