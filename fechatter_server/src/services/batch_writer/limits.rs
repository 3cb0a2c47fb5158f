//! Limits that the queue and the choice of batches share.

use std::time::Duration;

/// Commands that one batch holds at most.
pub(super) const BATCH_COMMANDS: usize = 256;
/// Bytes of their text, at most.
pub(super) const BATCH_BYTES: usize = 1024 * 1024;
/// The time that a command may wait for its batch.
pub(super) const UNTIL_BATCH: Duration = Duration::from_millis(2_500);
