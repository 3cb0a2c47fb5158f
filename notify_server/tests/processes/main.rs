//! Both real binaries, as their users meet them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod delivery;
mod endings;
mod failover;
mod fechatter;
mod operating;
mod states;
mod sync;
