//! A whole Fechatter for tools that try it from outside: real processes, people who call them, streams that listen.
//!
//! In reading order: `cluster` starts a database and any number of both servers; `town`
//! makes workspaces, people and chats in bulk, and `history` what they said; `rest` has the people's calls, and
//! `keep_alive` the cheapest way of making very many; `connection` is one stream, `frames` what comes through it, and
//! `follower` a client that always comes back to its
//! stream.

mod cluster;
mod connection;
mod follower;
mod frames;
mod history;
mod keep_alive;
mod rest;
mod town;

pub use cluster::{Cluster, Programs, Setup};
pub use connection::{Connection, OpenError, Target};
pub use devdb::Process;
pub use follower::{End, Follower, Heard};
pub use frames::{Frame, split};
pub use keep_alive::{KeepAlive, Response, request};
pub use rest::{Answer, PASSWORD, Person, Rest};
pub use town::{Town, Workspace};
