//! The types, rules and infrastructure that both servers share.
//!
//! Read in this order: [`ids`] (one newtype per id), the objects that clients receive ([`user`],
//! [`workspace`], [`chat`], [`message`]), [`event`] (the entries of the log about these objects),
//! [`log`] (writing, reading and announcing events), [`stream_event`] (all events of a stream), [`token`] (access tokens and their
//! verification), [`randomness`] (a check of its keys), [`clock`] (the time that expiry is judged
//! by), [`http`] (the layers around every request to either server), [`permits`] and [`rate`] (fair
//! shares), [`finish`], [`config`], [`db`], [`schema`], [`telemetry`], [`metrics`], [`startup`] and
//! [`shutdown`]. [`sabotage`] injects faults, to test the chaos tests.

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
pub mod stream_event;
pub mod telemetry;
pub mod time;
pub mod token;
pub mod user;
pub mod workspace;

pub use ids::{ChatId, FileId, InviteId, MessageId, Position, Seq, SessionId, UserId, WorkspaceId};
pub use time::Timestamp;
