//! From the database into memory: what rings, what is read, and how a workspace begins.

pub(crate) mod listener;
pub(crate) mod loader;
mod pace;
pub(crate) mod tail;
