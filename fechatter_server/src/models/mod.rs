//! The domain: its types, their rules, their SQL.
//!
//! The modules depend on each other in one direction: `message` → `chat` → `session` → `account`,
//! `message` → `file` → `session`, and `workspace` → `chat`, because an invite may have chats and a
//! person who leaves a workspace leaves its chats. `sign_in` and `sync` may depend on all of them.

pub(crate) mod account;
pub(crate) mod chat;
pub(crate) mod file;
pub(crate) mod integrity;
pub(crate) mod message;
pub(crate) mod session;
pub(crate) mod sign_in;
pub(crate) mod statistics;
pub(crate) mod sync;
pub(crate) mod workspace;
