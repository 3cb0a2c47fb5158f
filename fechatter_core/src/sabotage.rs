//! Deliberate faults, so that the chaos tests can show that they would notice each of them.
//!
//! They exist in debug builds only, and there only in a process whose environment names one in
//! `FECHATTER_SABOTAGE`.

/// A rule of the design that a sabotaged process breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// `no_lock`: writers do not lock the log.
    NoLock,
    /// `lock_with_check`: a sender's membership is checked in the statement that waits for the
    /// lock, which sees the memberships from before it waited.
    LockWithCheck,
    /// `early_answer`: a message is answered before its commit.
    EarlyAnswer,
    /// `no_catch_up`: what came between a stream's own reading and its attachment is not read.
    NoCatchUp,
    /// `no_rescan`: nothing but a heard doorbell makes the tail look.
    NoRescan,
    /// `no_shares`: nobody's part of anything scarce is bounded, and requests all cost the same.
    NoShares,
}

/// Whether this process breaks this rule.
#[cfg(debug_assertions)]
#[must_use]
pub fn is(sabotage: Sabotage) -> bool {
    use std::sync::LazyLock;

    static CHOSEN: LazyLock<Option<Sabotage>> = LazyLock::new(|| {
        let chosen = match std::env::var("FECHATTER_SABOTAGE").ok()?.as_str() {
            "no_lock" => Sabotage::NoLock,
            "lock_with_check" => Sabotage::LockWithCheck,
            "early_answer" => Sabotage::EarlyAnswer,
            "no_catch_up" => Sabotage::NoCatchUp,
            "no_rescan" => Sabotage::NoRescan,
            "no_shares" => Sabotage::NoShares,
            _ => return None,
        };
        tracing::error!(?chosen, "sabotaged: this process is for testing tests");
        Some(chosen)
    });
    *CHOSEN == Some(sabotage)
}

/// Never in a build that is shipped.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn is(_: Sabotage) -> bool {
    false
}
