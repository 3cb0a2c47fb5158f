//! A private PostgreSQL for development and tests: found or fetched, started on a free port, and gone with the process
//! that started it.
//!
//! In reading order: `find` looks for the server's programs, `leash` ties a child process to ours, `postgres` starts a
//! server from the two and knows its standbys and poolers, `scratch` is a folder for several, `testdb` hands each test a database of
//! its own, `proxy` breaks connections.

mod find;
mod leash;
mod postgres;
mod proxy;
mod scratch;
mod testdb;

pub use leash::{Ending, Leash};
pub use postgres::{
    Pooler, Postgres, configured_url, create_database_if_absent, lasting_port, persistent_home,
};
pub use proxy::Proxy;
pub use scratch::Scratch;
pub use testdb::{Code, TestDatabase, test_server, with_database};
