//! Deliberate faults, to test that the chaos tests detect each of them.
//!
//! They exist only with the feature `sabotage`, which release builds reject, and only in a process
//! whose environment names one in `FECHATTER_SABOTAGE`.

/// A rule of the design that a process with the fault breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// `no_catch_up`: events between a stream's first query and its attachment are not sent.
    NoCatchUp,
    /// `no_rescan`: the tail reads the logs only after a received doorbell.
    NoRescan,
    /// `no_shares`: no group's or member's share is limited, and all requests cost the same.
    NoShares,
    /// `old_frames`: the recent events in memory keep messages in their state before a change.
    OldFrames,
}

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!("the feature `sabotage` is for debug builds");

/// Returns true if this process breaks this rule.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn is(sabotage: Sabotage) -> bool {
    use std::sync::LazyLock;

    static CHOSEN: LazyLock<Option<Sabotage>> = LazyLock::new(|| {
        let chosen = match std::env::var("FECHATTER_SABOTAGE").ok()?.as_str() {
            "no_catch_up" => Sabotage::NoCatchUp,
            "no_rescan" => Sabotage::NoRescan,
            "no_shares" => Sabotage::NoShares,
            "old_frames" => Sabotage::OldFrames,
            _ => return None,
        };
        tracing::error!(?chosen, "sabotaged: this process is for testing tests");
        Some(chosen)
    });
    *CHOSEN == Some(sabotage)
}

/// Returns false: this build breaks no rule.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn is(_: Sabotage) -> bool {
    false
}
