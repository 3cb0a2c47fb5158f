//! The domain: its types, their rules, their SQL.

pub(crate) mod account;
pub(crate) mod chat;
pub(crate) mod directory;
pub(crate) mod history;
pub(crate) mod invite;
pub(crate) mod member;
pub(crate) mod member_role;
pub(crate) mod message;
pub(crate) mod session;
pub(crate) mod sidebar;
pub(crate) mod throttle;
pub(crate) mod user;
pub(crate) mod workspace;
