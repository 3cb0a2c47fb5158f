//! What both servers must agree on.
//!
//! Read in this order: [`ids`] (one newtype an id), the objects that clients receive ([`user`],
//! [`workspace`], [`chat`], [`message`]), [`event`] (what the log holds of them), [`log`] (how
//! events are written, read and announced), [`token`] (who is calling), [`randomness`] (whether its
//! keys are any good), [`clock`] (by which it is judged), [`http`] (what every request to either server shares), [`permits`] and [`rate`]
//! (fair shares), [`finish`], [`config`], [`db`], [`schema`], [`telemetry`], [`metrics`],
//! [`startup`] and [`shutdown`].
//! [`sabotage`] is for tests of the tests.

pub mod chat;
pub mod clock;
pub mod commit;
pub mod config;
pub mod db;
pub mod event;
pub mod finish;
pub mod http;
pub mod ids;
pub mod log;
pub mod message;
pub mod metrics;
pub mod permits;
pub mod randomness;
pub mod rate;
pub mod sabotage;
pub mod schema;
pub mod shutdown;
pub mod startup;
pub mod telemetry;
pub mod time;
pub mod token;
pub mod user;
pub mod workspace;

pub use ids::{ChatId, InviteId, MessageId, Position, Seq, SessionId, UserId, WorkspaceId};
pub use time::Timestamp;
