//! The demands of five people of one workspace, each over many connections and again after every answer.

mod demands;
mod raw;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use fechatter_core::{ChatId, UserId, log::Cursor};
use reqwest::Method;
use rig::{Cluster, PASSWORD, Person, Rest};
use serde_json::json;
use sqlx::query_as;
use tokio::task::JoinSet;

const WORKSPACE: &str = "Greed";
const PEOPLE: usize = 5;
/// Other members of their workspace: as many as one request may name.
const OTHERS: usize = 500;
/// The one address that all of them have.
const FROM: (&str, &str) = ("x-forwarded-for", "203.0.113.66");
/// A page of history of 4 MB.
const PAGE: usize = 100;
const LONG: usize = 10_000;
/// Old events, and how many of them a stream has missed.
const EVENTS: usize = 100_000;
const MISSED: i64 = 95_000;
/// Chats that each of them adds people to and removes them from.
const CHATS: usize = 4;
const SESSIONS: usize = 4;
/// Further sessions that each of them ends.
const ENDED_SESSIONS: usize = 80;

/// All that they need.
pub(super) struct Greed {
    rest: SocketAddr,
    events: SocketAddr,
    people: Vec<Greedy>,
    others: Vec<UserId>,
    /// With a long history of long messages.
    chat: ChatId,
    cursor: Cursor,
}

/// One of them.
struct Greedy {
    person: Person,
    chats: Vec<ChatId>,
    refresh_tokens: Vec<String>,
    ended_sessions: Vec<Person>,
}

/// Them at work.
pub(super) struct Asking {
    tasks: JoinSet<()>,
    tally: Tally,
}

/// How often each kind of demand was answered with each status; 0 is no answer.
#[derive(Debug, Clone, Default)]
struct Tally(Arc<Mutex<BTreeMap<&'static str, BTreeMap<u16, usize>>>>);

impl Greed {
    /// Makes their workspace and everything in it.
    pub(super) async fn prepare(cluster: &Cluster) -> Result<Self> {
        let workspace = cluster.town.workspace(WORKSPACE, OTHERS).await?;
        let mut people = Vec::new();
        for number in 0..PEOPLE {
            people.push(Greedy::sign_up(number, cluster).await?);
        }
        let members: Vec<_> = people.iter().map(|greedy| &greedy.person).collect();
        let chat = cluster.town.channel("history", &members).await?;
        cluster.town.history(members[0], chat, EVENTS).await?;
        let content = "🍜".repeat(LONG);
        cluster.town.ancient_history_of(content, members[0], chat, PAGE).await?;
        let (stamp, position) = query_as(
            "select stamp, position from events
             where workspace_id = $1
               and position = (select max(position) - $2 from events where workspace_id = $1)",
        )
        .bind(workspace.id)
        .bind(MISSED)
        .fetch_one(&cluster.db)
        .await?;
        Ok(Self {
            rest: cluster.servers[0].address(),
            events: cluster.events[0],
            people,
            others: workspace.people.iter().map(|person| person.id).collect(),
            chat,
            cursor: Cursor { stamp, position },
        })
    }

    /// Lets them ask from now on.
    pub(super) fn begin(&self) -> Asking {
        let mut asking = Asking { tasks: JoinSet::new(), tally: Tally::default() };
        demands::begin(self, &mut asking);
        asking
    }
}

impl Greedy {
    async fn sign_up(number: usize, cluster: &Cluster) -> Result<Self> {
        // From elsewhere, which leaves them all that their address may try.
        let address = Ipv4Addr::new(10, 66, 0, u8::try_from(number)?);
        let rest = cluster.rest.on_behalf_of(IpAddr::V4(address));
        let body = rest.sign_up(0, "greedy", WORKSPACE).await.ok().context("signing up")?;
        let person = rest.person(&body).context("a person")?;
        let account = json!({ "email": body["user"]["email"], "password": PASSWORD });
        let mut refresh_tokens = Vec::new();
        for _ in 0..SESSIONS {
            refresh_tokens.push(refresh_token(&rest, &account).await?);
        }
        let mut ended_sessions = Vec::new();
        for _ in 0..ENDED_SESSIONS {
            ended_sessions.push(cluster.town.sign_in_again(&person).await?);
        }
        let mut chats = Vec::new();
        for chat in 0..CHATS {
            let name = format!("crowd {number} {chat}");
            chats.push(cluster.town.channel(&name, &[&person]).await?);
        }
        Ok(Self { person, chats, refresh_tokens, ended_sessions })
    }
}

async fn refresh_token(rest: &Rest, account: &serde_json::Value) -> Result<String> {
    let answer = rest.call(0, None, (Method::POST, "/api/signin"), Some(account)).await;
    let body = answer.ok().context("signing in")?;
    Ok(body["refresh_token"].as_str().context("a refresh token")?.to_owned())
}

impl Asking {
    /// Ends it all; tells how they were answered.
    pub(super) async fn end(mut self) -> String {
        self.tasks.shutdown().await;
        self.tally.to_string()
    }
}

impl Tally {
    fn count(&self, kind: &'static str, status: u16) {
        *self.lock().entry(kind).or_default().entry(status).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, BTreeMap<u16, usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = self.lock();
        let kinds = tally.iter().map(|(kind, statuses)| {
            let statuses = statuses.iter().map(|(status, count)| format!("{count} x {status:03}"));
            format!("{kind} {}", statuses.collect::<Vec<_>>().join(", "))
        });
        f.write_str(&kinds.collect::<Vec<_>>().join("; "))
    }
}
