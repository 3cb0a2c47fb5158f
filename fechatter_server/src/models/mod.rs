//! The domain: its types, their rules, their SQL.

pub(crate) mod account;
pub(crate) mod actor;
pub(crate) mod chat;
pub(crate) mod credentials;
pub(crate) mod departure;
pub(crate) mod directory;
pub(crate) mod entrance;
pub(crate) mod history;
pub(crate) mod invite;
pub(crate) mod member;
pub(crate) mod member_role;
pub(crate) mod message;
pub(crate) mod reaction;
pub(crate) mod session;
pub(crate) mod session_list;
pub(crate) mod sidebar;
pub(crate) mod sync;
pub(crate) mod throttle;
pub(crate) mod user;
pub(crate) mod workspace;
pub(crate) mod workspace_role;
pub(crate) mod write_batch;
