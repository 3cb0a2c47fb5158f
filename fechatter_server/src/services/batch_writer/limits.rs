//! Limits that the queue and the choice of batches share.

use std::time::Duration;

/// The maximum number of commands in a batch.
pub(super) const BATCH_COMMANDS: usize = 256;
/// The maximum size of their texts, in bytes.
pub(super) const BATCH_BYTES: usize = 1024 * 1024;
/// The longest time that a command may wait in the queue until a batch takes it.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_millis(2_500);
