//! Crash recovery, standbys and their promotion, and copies of a server's data.

#![expect(clippy::unwrap_used, reason = "tests and their helpers")]

use std::{
    env, fs,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use devdb::{Postgres, Proxy, Scratch};
use sqlx::{Connection, PgConnection, query, query_scalar};

#[tokio::test]
async fn a_standby_takes_over_with_what_had_reached_it() {
    let scratch = Scratch::new().unwrap();
    let mut primary = primary(&scratch).await;
    let replication = Proxy::start(primary.address()).await.unwrap();
    let home = scratch.path().join("standby");
    let standby = primary.standby(&home, replication.address()).await.unwrap();
    write(&primary, "arrives").await.unwrap();
    standby.catch_up_with(&primary).await.unwrap();
    assert!(write(&standby, "refused").await.is_err(), "a standby takes no writes");

    replication.black_hole(true);
    write(&primary, "is lost").await.unwrap();
    primary.kill().unwrap();
    standby.promote().unwrap();

    write(&standby, "goes on").await.unwrap();
    assert_eq!(notes(&standby).await, ["first", "arrives", "goes on"]);
}

#[tokio::test]
async fn commits_wait_for_the_standby() {
    let scratch = Scratch::new().unwrap();
    let mut primary = primary(&scratch).await;
    let replication = Proxy::start(primary.address()).await.unwrap();
    let home = scratch.path().join("standby");
    let standby = primary.standby(&home, replication.address()).await.unwrap();
    primary.commit_to_standby().await.unwrap();
    write(&primary, "arrives").await.unwrap();

    replication.black_hole(true);
    let unheard = tokio::time::timeout(Duration::from_millis(300), write(&primary, "x")).await;
    assert!(unheard.is_err(), "a commit did not wait");

    primary.kill().unwrap();
    standby.promote().unwrap();
    assert_eq!(notes(&standby).await, ["first", "arrives"]);
}

#[tokio::test]
async fn a_killed_server_and_a_copy_of_it_have_all_that_was_committed() {
    let scratch = Scratch::new().unwrap();
    let [home, copy] = ["primary", "copy"].map(|name| scratch.path().join(name));
    primary(&scratch).await.kill().unwrap();
    Postgres::copy(&home, &copy).unwrap();

    let [original, copy] = [home, copy].map(|home| Postgres::in_scratch_folder(&home).unwrap());
    write(&original, "here").await.unwrap();
    write(&copy, "there").await.unwrap();

    assert_eq!(notes(&original).await, ["first", "here"]);
    assert_eq!(notes(&copy).await, ["first", "there"]);
}

/// This test runs itself again as another process, which starts a server and is then killed.
#[tokio::test]
async fn a_scratch_folder_goes_with_an_owner_that_was_killed() {
    if let Some(note) = env::var_os("SCRATCH_TEST_OWNER") {
        let scratch = Scratch::new().unwrap();
        let _primary = primary(&scratch).await;
        fs::write(note, scratch.path().to_str().unwrap()).unwrap();
        sleep(Duration::from_mins(1));
        return;
    }
    let note = env::temp_dir().join(format!("fechatter-scratch-{}", std::process::id()));
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_scratch_folder_goes_with_an_owner_that_was_killed"])
        .env("SCRATCH_TEST_OWNER", &note)
        .spawn()
        .unwrap();
    wait_for(|| fs::read_to_string(&note).is_ok_and(|folder| !folder.is_empty()));
    let folder = fs::read_to_string(&note).unwrap();
    fs::remove_file(&note).unwrap();
    assert!(Path::new(&folder).join("primary/data").exists());

    owner.kill().unwrap();
    owner.wait().unwrap();

    wait_for(|| !Path::new(&folder).exists());
}

async fn primary(scratch: &Scratch) -> Postgres {
    let primary = Postgres::in_scratch_folder(&scratch.path().join("primary")).unwrap();
    let mut connection = PgConnection::connect(&primary.url("postgres")).await.unwrap();
    query("create table notes (content text not null, at timestamptz default clock_timestamp())")
        .execute(&mut connection)
        .await
        .unwrap();
    write(&primary, "first").await.unwrap();
    primary
}

async fn write(server: &Postgres, content: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(&server.url("postgres")).await?;
    query("insert into notes (content) values ($1)").bind(content).execute(&mut connection).await?;
    Ok(())
}

async fn notes(server: &Postgres) -> Vec<String> {
    let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
    query_scalar("select content from notes order by at").fetch_all(&mut connection).await.unwrap()
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        sleep(Duration::from_millis(10));
    }
}
