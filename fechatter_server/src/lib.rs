//! x

/// The schema: applied by `fechatter_server migrate`, at start, and for every test's database.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");
