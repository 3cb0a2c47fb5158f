//! Telling others that one is typing. Its delivery is tested with both servers.

use reqwest::StatusCode;

use crate::harness::{NOTHING, TestApp};

#[tokio::test]
async fn members_may_type_and_it_writes_nothing() {
    let app = TestApp::start().await;
    let [alice, bob, eve] = app.users(["alice", "bob", "eve"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let typing = format!("{}/typing", chat.path);
    let before = app.state().await;

    for _ in 0..3 {
        bob.post(&typing, NOTHING).await.expect(StatusCode::NO_CONTENT);
    }
    eve.post(&typing, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    assert_eq!(app.state().await, before);
    bob.leaves(&chat).await;
    bob.post(&typing, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
}
