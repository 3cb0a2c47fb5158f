//! Reading from the database into memory: notifications, logs, and the initial state of workspaces.

pub(crate) mod listener;
pub(crate) mod loader;
mod pace;
pub(crate) mod read_states;
pub(crate) mod tail;
