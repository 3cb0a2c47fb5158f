//! Messages and streams work across servers, also after server processes are killed.

use std::{env, path::Path, time::Duration};

use reqwest::StatusCode;
use rig::{Answer, Follower, Heard, Programs, Setup};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn people_talk_across_servers_and_through_their_deaths() {
    let test = env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap();
    let setup = Setup {
        programs: Programs::in_folder(built).unwrap(),
        servers: 2,
        notifiers: 1,
        logs: Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster"),
        environment: Vec::new(),
        settings: Vec::new(),
    };
    let mut cluster = setup.start().await.unwrap();
    let acme = cluster.town.workspace("Acme", 3).await.unwrap();
    let [alice, bob, eve] = acme.people.try_into().unwrap();
    let chat = cluster.town.channel("lunch", &[&alice, &bob]).await.unwrap();

    let (told, mut heard) = mpsc::unbounded_channel();
    let mut follower = Follower {
        addresses: cluster.events.clone(),
        server: 0,
        token: bob.token.clone(),
        cursor: None,
        pause: Duration::from_millis(20),
    };
    tokio::spawn(async move {
        let hear = |what: Heard<'_>| {
            if let Heard::Frame(frame) = what {
                let data: Value = serde_json::from_slice(frame.data).unwrap();
                let _ = told.send((frame.event.to_owned(), data));
            }
        };
        follower.follow(hear).await
    });
    let mut next = async || timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
    assert_eq!(next().await.0, "Ready");

    let key = Uuid::new_v4();
    let sent = alice.at(0).send(chat, "noodles?", key).await.ok().expect("it is sent");
    assert_eq!(next().await.1["id"], sent["id"]);
    let refused = eve.at(1).send(chat, "me too", Uuid::new_v4()).await;
    let not_found = StatusCode::NOT_FOUND;
    assert_eq!(refused, Answer::Refused { status: not_found, kind: "not_found".into() });

    cluster.servers[0].kill().unwrap();
    cluster.notifiers[0].kill().unwrap();
    assert!(matches!(alice.at(0).send(chat, "hello?", Uuid::new_v4()).await, Answer::Unknown(_)));
    let again = alice.at(1).send(chat, "noodles?", key).await;
    assert_eq!(again, Answer::Ok { body: sent, replayed: true });
    let second = alice.at(1).send(chat, "soup?", Uuid::new_v4()).await.ok().unwrap();
    cluster.notifiers[0].start().unwrap();

    let resumed = next().await;
    assert_eq!((resumed.0.as_str(), &resumed.1["resumed"]), ("Ready", &Value::Bool(true)));
    assert_eq!(next().await.1["id"], second["id"]);
}
