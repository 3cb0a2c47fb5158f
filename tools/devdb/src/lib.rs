//! Starts PostgreSQL servers and Fechatter server processes for development and tests. If the
//! PostgreSQL programs are not installed, they are downloaded. All child processes end when the
//! process that started them ends.
//!
//! In reading order: `find` locates or downloads the PostgreSQL programs, `leash` starts a child
//! process that ends with this process, `postgres` starts PostgreSQL servers, standbys and
//! poolers, `process` starts a `fechatter_server` or `notify_server`, `scratch` creates a temporary
//! folder for several PostgreSQL servers, `testdb` creates a database for each test, and `proxy` is
//! a TCP proxy that simulates network faults.

mod find;
mod leash;
mod postgres;
mod process;
mod proxy;
mod scratch;
mod testdb;

pub use leash::{ChildGuard, ShutdownMethod};
pub use postgres::{
    Pooler, Postgres, configured_url, create_database_if_absent, persistent_home, reserve_port,
};
pub use process::{Process, log_tail};
pub use proxy::Proxy;
pub use scratch::Scratch;
pub use testdb::{Code, TestDatabase, test_server, with_database};
