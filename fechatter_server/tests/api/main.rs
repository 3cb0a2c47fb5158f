//! The REST API, met as its clients meet it: over HTTP, on a real PostgreSQL, a database a test.
//!
//! The contract is `docs/API.md`; a test is named for the fact it holds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod accounts;
mod admin;
mod archive;
mod audit;
mod avatars;
mod bad_input;
mod chat_lists;
mod chats;
mod closing;
mod devices;
mod edits;
mod erasure;
mod files;
mod harness;
mod invites;
mod leaving;
mod matrix;
mod members;
mod membership_model;
mod mentions;
mod messages;
mod names;
mod offboarding;
mod old_client;
mod password_reset;
mod plans;
mod preferences;
mod profile;
mod reactions;
mod read_state;
mod replies;
mod retention;
mod roles;
#[cfg(feature = "s3")]
mod s3;
mod schema;
mod server;
mod sessions;
mod shares;
mod sync;
mod system_messages;
mod throttling;
mod tokens;
mod typing;
mod users;
mod workspaces;
