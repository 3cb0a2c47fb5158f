//! The workspaces that have streams here: their state, and its way to the streams.

pub(crate) mod endings;
pub(crate) mod hub;
pub(crate) mod memberships;
pub(crate) mod outbox;
pub(crate) mod recent;
pub(crate) mod scan_scope;
pub(crate) mod state;
mod typing;
