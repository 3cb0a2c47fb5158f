//! The one clock of a scenario, whose time messages carry.

use std::time::{Duration, Instant};

use memchr::memmem;

/// Every message is so long.
const LENGTH: usize = 100;

/// Counts from when it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }

    /// What a message says that is sent right now.
    pub(crate) fn message(self) -> String {
        format!("{:x<LENGTH$}", format!("{} ", self.now().as_nanos()))
    }
}

/// When a message was sent that a stream has received; none if it is not one of ours.
pub(crate) fn sent_at(data: &[u8]) -> Option<Duration> {
    const KEY: &[u8] = b"\"content\":\"";
    let content = &data[memmem::find(data, KEY)? + KEY.len()..];
    let digits = content.split(|byte| !byte.is_ascii_digit()).next()?;
    Some(Duration::from_nanos(str::from_utf8(digits).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_its_time() {
        let clock = Clock::new();
        let content = clock.message();
        assert_eq!(content.len(), LENGTH);
        let data = format!(r#"{{"event":"NewMessage","id":7,"content":"{content}"}}"#);
        let sent = sent_at(data.as_bytes()).unwrap();
        assert!(sent > Duration::ZERO && sent <= clock.now());
        assert_eq!(sent_at(br#"{"content":"hello"}"#), None);
    }
}
