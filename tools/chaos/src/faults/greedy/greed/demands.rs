//! The demands, each kind over connections of its own.

use std::{net::SocketAddr, time::Duration};

use fechatter_core::{ChatId, UserId};
use rig::{KeepAlive, Person, request};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Asking, FROM, Greed, Greedy, LONG, PAGE, Tally, raw};

/// After a refusal; shorter than they are told.
/// A debug build takes several times as long to refuse.
const PAUSE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1_500 } else { 250 });
/// Connections of each person for each kind.
const CONNECTIONS: usize = 4;
const UNREAD_PAGES: usize = 20;
const RESUMES: usize = 10;
/// Connections of all of them together; each of the first makes 4 calls a second.
const SIGN_INS: usize = 50;
const SIGN_UPS: usize = 16;
const HALF_HEADERS: usize = 200;
const HALF_BODIES: usize = 100;
/// It takes an estimate of its strength very long.
const PASSWORD: &str = "4@8({[<369&#!1/|0$57+%2";
const PASSWORD_LENGTH: usize = 128;

pub(super) fn begin(greed: &Greed, asking: &mut Asking) {
    for greedy in &greed.people {
        begin_with(greed, greedy, asking);
    }
    let mut insist = |kind, count, next: fn() -> String| {
        for _ in 0..count {
            let asks = Demand { kind, address: greed.rest, tally: asking.tally.clone() };
            asking.tasks.spawn(asks.insist(move |_| next()));
        }
    };
    insist("sign-ins", SIGN_INS, wrong_password);
    insist("sign-ups", SIGN_UPS, sign_up);
    for number in 0..HALF_HEADERS {
        let address = [greed.rest, greed.events][number % 2];
        let asks = Demand { kind: "half headers", address, tally: asking.tally.clone() };
        asking.tasks.spawn(asks.hold(raw::half_header(number)));
    }
    for number in 0..HALF_BODIES {
        let greedy = &greed.people[number % greed.people.len()];
        let asks = Demand { kind: "half bodies", address: greed.rest, tally: asking.tally.clone() };
        asking.tasks.spawn(asks.hold(raw::half_body(number, &greedy.person, greed.chat)));
    }
}

/// Starts the demands of one person.
fn begin_with(greed: &Greed, greedy: &Greedy, asking: &mut Asking) {
    let demand = |kind, address| Demand { kind, address, tally: asking.tally.clone() };
    let rest = |kind| demand(kind, greed.rest);
    let tasks = &mut asking.tasks;
    for number in 0..CONNECTIONS {
        let person = || greedy.person.clone();
        tasks.spawn(rest("new chats").insist(new_chat(person(), greed.others.clone())));
        let crowd = greedy.chats[number % greedy.chats.len()];
        tasks.spawn(rest("members").insist(members(&greedy.person, crowd, &greed.others)));
        tasks.spawn(rest("lists").insist(lists(&greedy.person)));
        tasks.spawn(rest("long messages").insist(long_messages(person(), greed.chat)));
        tasks.spawn(rest("strange sessions").insist(strange_sessions(person())));
        let sessions = greedy.ended_sessions.iter().skip(number).step_by(CONNECTIONS);
        tasks.spawn(rest("logouts").insist(logouts(sessions.cloned().collect())));
    }
    for token in &greedy.refresh_tokens {
        tasks.spawn(rest("refreshes").refresh(token.clone()));
    }
    let path = format!("GET /api/chat/{}/messages?limit={PAGE}", greed.chat);
    let page = greedy.person.raw_request_with_headers(&path, &[FROM], "");
    for _ in 0..UNREAD_PAGES {
        tasks.spawn(rest("unread pages").leave_unread(page.clone()));
    }
    let cursor = greed.cursor.to_string();
    let resume = [FROM, ("last-event-id", &*cursor)];
    let resume = greedy.person.raw_request_with_headers("GET /events", &resume, "");
    for _ in 0..RESUMES {
        tasks.spawn(demand("resumes", greed.events).resume(resume.clone()));
    }
}

/// One connection's.
#[derive(Debug, Clone)]
struct Demand {
    kind: &'static str,
    address: SocketAddr,
    tally: Tally,
}

impl Demand {
    /// Makes the request of this number until it is served, and then the next one, for ever.
    async fn insist(self, mut next: impl FnMut(usize) -> String) {
        let mut served = 0;
        loop {
            let Ok(mut connection) = KeepAlive::connect(self.address).await else {
                self.refused(0).await;
                continue;
            };
            loop {
                let answer = connection.call(&next(served)).await.map(|answer| answer.status);
                match answer {
                    Ok(status @ (403 | 429 | 503)) => self.refused(status).await,
                    Ok(status) => {
                        self.tally.count(self.kind, status);
                        served += 1;
                    }
                    Err(_) => {
                        self.refused(0).await;
                        break;
                    }
                }
            }
        }
    }

    /// Exchanges a refresh token for the next one, for ever.
    async fn refresh(self, mut token: String) {
        loop {
            let Ok(mut connection) = KeepAlive::connect(self.address).await else {
                self.refused(0).await;
                continue;
            };
            loop {
                let bearer = format!("Bearer {token}");
                let request = request("POST /api/refresh", &[FROM, ("authorization", &bearer)], "");
                let Ok(answer) = connection.call(&request).await else {
                    self.refused(0).await;
                    break;
                };
                let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
                match (answer.status, body["refresh_token"].as_str()) {
                    (200, Some(next)) => {
                        self.tally.count(self.kind, 200);
                        next.clone_into(&mut token);
                    }
                    (status, _) => self.refused(status).await,
                }
            }
        }
    }

    /// Takes nothing of an answer, for as long as the server bears it.
    async fn leave_unread(self, request: String) {
        loop {
            match raw::ask(self.address, Some(raw::SMALL_BUFFER), request.as_bytes()).await {
                Ok((socket, 200)) => {
                    self.tally.count(self.kind, 200);
                    raw::until_closed(socket).await;
                }
                Ok((_, status)) => self.refused(status).await,
                Err(_) => self.refused(0).await,
            }
        }
    }

    /// Reads the beginning of what was missed, and asks again.
    async fn resume(self, request: String) {
        loop {
            match raw::ask(self.address, None, request.as_bytes()).await {
                Ok((socket, 200)) => {
                    self.tally.count(self.kind, 200);
                    raw::read_some(socket).await;
                }
                Ok((_, status)) => self.refused(status).await,
                Err(_) => self.refused(0).await,
            }
        }
    }

    /// Sends what is no whole request and waits, for as long as the server bears it.
    async fn hold(self, half: Vec<u8>) {
        loop {
            let status = raw::ask(self.address, None, &half).await.map_or(0, |(_, status)| status);
            self.refused(status).await;
        }
    }

    async fn refused(&self, status: u16) {
        self.tally.count(self.kind, status);
        sleep(PAUSE).await;
    }
}

fn new_chat(person: Person, others: Vec<UserId>) -> impl FnMut(usize) -> String {
    move |_| {
        let name = Uuid::new_v4().to_string();
        let body = json!({ "chat_type": "Group", "name": name, "members": others });
        person.raw_request_with_headers("POST /api/chat", &[FROM], &body.to_string())
    }
}

/// Adds everybody and removes everybody.
fn members(
    person: &Person,
    chat: ChatId,
    others: &[UserId],
) -> impl FnMut(usize) -> String + use<> {
    let body = json!(others).to_string();
    let requests = ["POST", "DELETE"].map(|method| {
        person.raw_request_with_headers(
            &format!("{method} /api/chat/{chat}/members"),
            &[FROM],
            &body,
        )
    });
    move |number| requests[number % 2].clone()
}

fn lists(person: &Person) -> impl FnMut(usize) -> String + use<> {
    let requests = ["sync", "users", "chat"]
        .map(|name| person.raw_request_with_headers(&format!("GET /api/{name}"), &[FROM], ""));
    move |number| requests[number % requests.len()].clone()
}

fn long_messages(person: Person, chat: ChatId) -> impl FnMut(usize) -> String {
    let content = "🍜".repeat(LONG);
    move |_| {
        let body = json!({ "content": content, "idempotency_key": Uuid::new_v4() }).to_string();
        person.raw_request_with_headers(&format!("POST /api/chat/{chat}/messages"), &[FROM], &body)
    }
}

fn strange_sessions(person: Person) -> impl FnMut(usize) -> String {
    move |_| {
        let line = format!("DELETE /api/sessions/{}", Uuid::new_v4());
        person.raw_request_with_headers(&line, &[FROM], "")
    }
}

fn logouts(sessions: Vec<Person>) -> impl FnMut(usize) -> String {
    move |number| {
        sessions[number % sessions.len()].raw_request_with_headers("POST /api/logout", &[FROM], "")
    }
}

fn wrong_password() -> String {
    let email = format!("{}@rig.test", Uuid::new_v4().simple());
    let body = json!({ "email": email, "password": "wrong battery" });
    request("POST /api/signin", &[FROM], &body.to_string())
}

/// Into a workspace that does not exist.
fn sign_up() -> String {
    let unique = Uuid::new_v4().simple();
    let password: String = PASSWORD.chars().cycle().take(PASSWORD_LENGTH).collect();
    let body = json!({
        "fullname": "Greedy", "email": format!("{unique}@rig.test"), "password": password,
        "workspace": unique.to_string(),
    });
    request("POST /api/signup", &[FROM], &body.to_string())
}
