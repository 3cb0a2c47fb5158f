//! Deliberate faults, so that the chaos tests can show that they would notice each of them.
//!
//! They exist with the feature `sabotage` only, which no release build can have, and there only in a process
//! whose environment names one in `FECHATTER_SABOTAGE`.

/// A rule of the design that a sabotaged process breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// `no_catch_up`: what came between a stream's own reading and its attachment is not read.
    NoCatchUp,
    /// `no_rescan`: nothing but a heard doorbell makes the tail look.
    NoRescan,
    /// `no_shares`: nobody's part of anything scarce is bounded, and requests all cost the same.
    NoShares,
    /// `old_frames`: the memory of recent events keeps messages as they were before a change.
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
