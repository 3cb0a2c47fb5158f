//! A private PostgreSQL for development and tests: found or fetched, started on a free port, and gone with the process
//! that started it.
//!
//! In reading order: `find` looks for the server's programs, `leash` ties a child process to ours, `postgres` starts a
//! server from the two, `testdb` hands each test a database of its own.

mod find;
mod leash;
mod postgres;
mod testdb;

pub use leash::{Ending, Leash};
pub use postgres::{
    Postgres, configured_url, create_database_if_absent, lasting_port, persistent_home,
};
pub use testdb::{TestDatabase, test_server};
