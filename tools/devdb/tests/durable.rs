//! After SIGKILL and a restart, a durable server has all committed data. It removes its data at the
//! end.

use std::path::Path;

use devdb::Postgres;
use sqlx::{Connection, PgConnection, query, query_scalar};

#[tokio::test]
async fn what_was_committed_survives_a_kill() {
    let mut postgres = Postgres::durable(&["shared_buffers=16MB"]).unwrap();
    let home = postgres.log().parent().map(Path::to_owned).unwrap();
    let url = postgres.url("postgres");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    query("create table notes as select 'kept' as content").execute(&mut connection).await.unwrap();

    postgres.kill().unwrap();
    assert!(!postgres.is_running());
    assert!(PgConnection::connect(&url).await.is_err());
    postgres.restart().unwrap();

    let mut connection = PgConnection::connect(&url).await.unwrap();
    let content: String =
        query_scalar("select content from notes").fetch_one(&mut connection).await.unwrap();
    assert_eq!(content, "kept");
    let setting: String =
        query_scalar("show shared_buffers").fetch_one(&mut connection).await.unwrap();
    assert_eq!(setting, "16MB");

    postgres.stop().unwrap();
    assert!(!home.exists());
}
