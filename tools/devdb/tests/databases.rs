//! Each test has a separate database.

#![expect(clippy::unwrap_used, reason = "tests and their helpers")]

use std::{
    borrow::Cow,
    sync::LazyLock,
    time::{Instant, UNIX_EPOCH},
};

use devdb::{TestDatabase, create_database_if_absent, test_server};
use sqlx::{
    Connection, PgConnection, PgPool, SqlSafeStr, SqlStr,
    migrate::{Migration, MigrationType, Migrator},
    query, query_scalar,
};

static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let statement: SqlStr = "create table notes (content text not null)".into_sql_str();
    let kind = MigrationType::Simple;
    let migration = Migration::new(1, Cow::Borrowed("notes"), kind, statement, false);
    Migrator { migrations: Cow::Owned(vec![migration]), ..Migrator::DEFAULT }
});

#[tokio::test]
async fn two_databases_share_nothing_and_are_dropped() {
    let [one, other] =
        [TestDatabase::create(&MIGRATOR, &[]).await, TestDatabase::create(&MIGRATOR, &[]).await];
    let [one_pool, other_pool] = [
        PgPool::connect(&one.url()).await.unwrap(),
        PgPool::connect_with(other.options()).await.unwrap(),
    ];

    query("insert into notes (content) values ('only here')").execute(&one_pool).await.unwrap();

    assert_eq!(count(&one_pool).await, 1);
    assert_eq!(count(&other_pool).await, 0);

    let url = one.url();
    drop(one);
    assert!(PgConnection::connect(&url).await.is_err(), "the database is still there");
    assert_eq!(count(&other_pool).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_databases_are_made_side_by_side() {
    drop(TestDatabase::create(&MIGRATOR, &[]).await);
    let began = Instant::now();

    let creations: Vec<_> =
        (0..30).map(|_| tokio::spawn(TestDatabase::create(&MIGRATOR, &[]))).collect();
    for creation in creations {
        let database = creation.await.unwrap();
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        query("insert into notes (content) values ('x')").execute(&mut connection).await.unwrap();
    }

    println!("{:?} each", began.elapsed() / 30);
}

#[tokio::test]
async fn creating_a_database_twice_is_fine() {
    // The name contains the current time, like that of other test databases: other tests drop old
    // ones.
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let name = format!("fechatter_test_{now}_{}", uuid::Uuid::new_v4().simple());
    let mut url: Vec<_> = test_server().split('/').map(str::to_owned).collect();
    *url.last_mut().unwrap() = name.clone();
    let url = url.join("/");

    create_database_if_absent(&url).await.unwrap();
    create_database_if_absent(&url).await.unwrap();

    let mut connection = PgConnection::connect(&url).await.unwrap();
    let connected: String =
        query_scalar("select current_database()::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(connected, name);
}

async fn count(db: &PgPool) -> i64 {
    query_scalar("select count(*) from notes").fetch_one(db).await.unwrap()
}
