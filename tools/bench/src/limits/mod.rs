//! What the same machine can do at most, in the same minute: nothing of ours in between.

mod database;
mod socket;

pub(crate) use database::{batched_rows, measured_by, single_rows};
pub(crate) use socket::writes;
