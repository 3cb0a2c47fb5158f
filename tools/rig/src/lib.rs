//! A complete Fechatter installation for tools that test it from outside: server processes, users
//! that call the REST API, and clients that read event streams.
//!
//! In reading order: `cluster` starts PostgreSQL and any number of processes of both servers;
//! `town` creates workspaces, people and chats in bulk, and `history` creates messages in bulk;
//! `rest` is a client of the REST API, and `keep_alive` a minimal HTTP client for very many
//! requests; `connection` is one event stream, `frames` parses its frames, and `follower` is a
//! client that reconnects to its stream.

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
