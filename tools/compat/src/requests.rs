//! The trials of single requests through a proxy: POSTs after pauses, large bodies, forged addresses.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context, Result};
use futures_util::future::join_all;
use hyper::Version;
use rig::{Cluster, PASSWORD};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    conversation::Conversation,
    route::{Answer, Call, Route},
};

/// As many as nginx keeps connections.
const AT_ONCE: usize = 32;
/// The distance of `fechatter_server` from the proxies while they are sent POSTs. For this long a request can be on its way
/// over a connection that the server closes.
pub(crate) const DISTANCE: Duration = Duration::from_millis(100);
/// Values that a client may put into `X-Forwarded-For`.
const FORGED: [&str; 3] = ["203.0.113.7", "203.0.113.7:51234", "[2001:db8::1]:443"];
/// The address from which the client really comes.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The answers to the POSTs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Posts {
    pub(crate) made: usize,
    pub(crate) bad_gateway: usize,
    /// Every other answer that is no 201, and when it came.
    pub(crate) failures: Vec<String>,
}

/// Sends 32 messages at once, so that the proxy has as many idle connections, and 32 more at the end of each pause.
pub(crate) async fn posts(
    routes: &[Route],
    conversation: &Conversation,
    pauses: &[Duration],
) -> Posts {
    let mut posts = Posts::default();
    for pause in pauses {
        let before = format!("before a pause of {pause:?}");
        posts.add(&before, send(routes, conversation).await);
        // The requests then arrive when the connections have been idle for about the length of the pause.
        sleep(pause.saturating_sub(DISTANCE * 2)).await;
        let after = format!("after a pause of {pause:?}");
        posts.add(&after, send(routes, conversation).await);
    }
    posts
}

async fn send(routes: &[Route], conversation: &Conversation) -> Vec<Result<Answer>> {
    let messages: Vec<_> =
        (0..AT_ONCE).map(|_| conversation.message("a POST", Uuid::new_v4())).collect();
    let calls = messages.iter().zip(routes.iter().cycle());
    join_all(calls.map(|(message, route)| route.call(message.call()))).await
}

impl Posts {
    fn add(&mut self, when: &str, answers: Vec<Result<Answer>>) {
        for answer in answers {
            self.made += 1;
            match answer {
                Ok(Answer { status: 201, .. }) => {}
                Ok(Answer { status: 502, .. }) => self.bad_gateway += 1,
                Ok(answer) => self.failures.push(format!("{} {when}", answer.status)),
                Err(error) => self.failures.push(format!("{error:#} {when}")),
            }
        }
    }
}

/// The answer to a body of 2 MiB, in words.
pub(crate) async fn large_body(route: &Route, conversation: &Conversation) -> String {
    let message = conversation.message(&"x".repeat(2 * 1024 * 1024), Uuid::new_v4());
    match route.call(message.call()).await {
        Ok(answer) => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let kind = body["type"].as_str().map_or("a page of the proxy", |kind| kind);
            format!("{} `{kind}`", answer.status)
        }
        Err(error) => format!("no answer: {error:#}"),
    }
}

/// The paths for which no token is needed whose answer is not 200.
pub(crate) async fn unreachable(route: &Route) -> Vec<String> {
    let mut unreachable = Vec::new();
    for path in ["/api/server", "/api-docs/openapi.json"] {
        match route.call(Call::get(path, None)).await {
            Ok(Answer { status: 200, .. }) => {}
            Ok(answer) => unreachable.push(format!("{path} is {}", answer.status)),
            Err(error) => unreachable.push(format!("{path}: {error:#}")),
        }
    }
    unreachable
}

/// Signs in with each forged address. The recorded addresses that are not the client's own.
pub(crate) async fn forged_addresses(
    route: &Route,
    cluster: &Cluster,
    name: &str,
) -> Result<Vec<String>> {
    let account = cluster.rest.sign_up(0, "forger", name).await;
    let account = account.ok().context("nobody can sign up")?;
    let body = json!({ "email": account["user"]["email"], "password": PASSWORD }).to_string();
    let route = Route { from: CLIENT, ..route.clone() };
    let mut believed = Vec::new();
    for forged in FORGED {
        let call = Call::post("/api/signin", None, body.clone());
        let call = Call { header: Some(("x-forwarded-for", forged)), ..call };
        let answer = route.call(call).await?;
        let signed_in: Value = serde_json::from_slice(&answer.body)?;
        let token = signed_in["access_token"].as_str().context("nobody can sign in")?;
        let answer = route.call(Call::get("/api/sessions", Some(token))).await?;
        let sessions: Value = serde_json::from_slice(&answer.body)?;
        let recorded = current_address(&sessions).context("there is no session")?;
        if recorded != CLIENT.to_string() {
            believed.push(format!("{forged} was recorded as {recorded}"));
        }
    }
    Ok(believed)
}

/// Both versions of HTTP that a client may use.
pub(crate) const VERSIONS: [(&str, Version); 2] =
    [("HTTP/1.1", Version::HTTP_11), ("HTTP/2", Version::HTTP_2)];

fn current_address(sessions: &Value) -> Option<&str> {
    let list = sessions["items"].as_array().or_else(|| sessions.as_array())?;
    list.iter().find(|session| session["current"] == true)?["ip"].as_str()
}
