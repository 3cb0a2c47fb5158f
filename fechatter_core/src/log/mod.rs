//! The log of a workspace: written under its lock, read by position, announced by a doorbell.

mod access;
mod announcement;
mod cursor;
mod doorbell;
mod read;
mod writer;

pub use access::Log;
pub use announcement::Announcement;
pub use cursor::{BadCursor, Cursor, Stamp};
pub use doorbell::{DOORBELL_CHANNEL, DoorbellPayload, EPHEMERAL_CHANNEL, Ephemeral};
pub use read::{
    CursorLookup, Entry, Head, PLAN_ONCE, Range, count_for, head, look_up_cursor, read,
};
pub use writer::LogWriter;
