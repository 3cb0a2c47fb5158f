//! A private PostgreSQL, and processes of our servers, for development and tests: PostgreSQL is found or fetched, and all
//! of them end with the process that started them.
//!
//! In reading order: `find` looks for the server's programs, `leash` ties a child process to ours, `postgres` starts a
//! server from the two and knows its standbys and poolers, `process` starts a server of ours, `scratch` is a folder for several, `testdb` hands each test a database of
//! its own, `proxy` breaks connections.

mod find;
mod leash;
mod postgres;
mod process;
mod proxy;
mod scratch;
mod testdb;

pub use leash::{Ending, Leash};
pub use postgres::{
    Pooler, Postgres, configured_url, create_database_if_absent, persistent_home, reserve_port,
};
pub use process::{Process, log_tail};
pub use proxy::Proxy;
pub use scratch::Scratch;
pub use testdb::{Code, TestDatabase, test_server, with_database};
