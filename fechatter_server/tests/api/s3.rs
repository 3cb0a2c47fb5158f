//! Files in a bucket of a real S3-compatible server, which `cargo xtask s3` starts.

use std::env;
use std::time::Duration;

use fechatter_server::Config;
use reqwest::header::RANGE;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::files::{uploads, uploads_as};
use crate::harness::TestApp;

/// A bucket of a test's own.
struct Bucket {
    endpoint: String,
    name: String,
}

impl Bucket {
    async fn create() -> Self {
        let endpoint = env::var("FECHATTER_TEST_S3");
        let endpoint = endpoint.unwrap_or_else(|_| panic!("this test runs by `cargo xtask s3`"));
        let bucket = Self { endpoint, name: format!("files-{}", Uuid::new_v4()) };
        let url = format!("{}/{}", bucket.endpoint, bucket.name);
        let created = Client::builder().no_proxy().build().unwrap().put(url).send().await.unwrap();
        assert_eq!(created.status(), StatusCode::OK);
        bucket
    }

    fn configures(&self, config: &mut Config) {
        config.files.s3.bucket.clone_from(&self.name);
        config.files.s3.endpoint.clone_from(&self.endpoint);
        config.files.s3.access_key_id = "key".into();
        config.files.s3.secret_access_key = Some("secret".into());
    }

    /// The number of files in it.
    async fn count(&self) -> usize {
        let url = format!("{}/{}?list-type=2", self.endpoint, self.name);
        let listed = Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
        listed.text().await.unwrap().matches("<Key>").count()
    }
}

fn path(file: &Value) -> String {
    format!("/api{}", file["url"].as_str().unwrap())
}

#[tokio::test]
async fn files_are_stored_read_and_removed_in_a_bucket() {
    let bucket = Bucket::create().await;
    let app = TestApp::with(|config| bucket.configures(config)).await;
    let alice = app.user("alice").await;
    // More than one part of S3's protocol.
    let large: Vec<u8> = (0..12_000_000_u32).map(|number| (number % 251) as u8).collect();
    let stored = uploads(&alice, "large", &large).await;
    let empty = uploads(&alice, "empty", b"").await;
    assert_eq!(bucket.count().await, 2);
    assert!(app.stored_files().is_empty());

    let whole = alice.request(Method::GET, &path(&stored)).send().await.unwrap();
    assert_eq!(whole.bytes().await.unwrap(), large);
    let part = alice.request(Method::GET, &path(&stored)).header(RANGE, "bytes=5-8");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap(), large[5..9]);
    let nothing = alice.request(Method::GET, &path(&empty)).send().await.unwrap();
    assert_eq!(nothing.bytes().await.unwrap().len(), 0);

    app.sql("update files set touched_at = touched_at - interval '25 hours'").await;
    let other = alice.creates_private_channel("wakes the removal", []).await;
    alice.deletes(&other).await;
    let removed = async {
        while bucket.count().await > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), removed).await.unwrap();
    let gone = alice.request(Method::GET, &path(&stored)).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn without_the_bucket_uploads_are_refused_and_leave_nothing() {
    let bucket = Bucket { name: "none".into(), ..Bucket::create().await };
    let app = TestApp::with(|config| bucket.configures(config)).await;
    let alice = app.user("alice").await;
    let refused = uploads_as(&alice, "lost", b"lost").await;
    refused.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    let rows: i64 =
        sqlx::query_scalar("select count(*) from files").fetch_one(&app.db).await.unwrap();
    assert_eq!(rows, 0);
}
