//! The other workspace: people who ask for little, each from an address of their own, and how soon they get it.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use reqwest::Method;
use rig::{Answer, Cluster, PASSWORD, Person, Rest};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    delays::Times,
    history::{Past, Send},
    stage::Scene,
};

const LISTS_A_SECOND: u32 = 5;
const SIGN_INS_A_SECOND: u32 = 2;
/// So many that none of them signs in more than a few times a minute.
const ACCOUNTS: usize = 20;
/// Longer than the servers let any request take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Those who ask for lists and sign in; the stage has those who send and listen.
pub(super) struct Neighbours {
    rest: Rest,
    people: Vec<Person>,
    accounts: Vec<Value>,
    /// How many addresses somebody has called from.
    addresses: u32,
}

/// How they were served for a while.
#[derive(Debug)]
pub(super) struct Service {
    began: Instant,
    ended: Instant,
    sends: Times,
    lists: Times,
    sign_ins: Times,
    /// From the beginning of a send to each receipt.
    deliveries: Times,
    /// Whatever was answered with anything else than success.
    pub(super) refusals: Vec<String>,
}

/// A call of one of the two kinds that are made here.
enum Call {
    List,
    SignIn,
}

impl Neighbours {
    /// Gives everybody an address, and makes accounts that can sign in.
    pub(super) async fn move_in(scene: &mut Scene, cluster: &Cluster) -> Result<Self> {
        let members = scene.chats.iter_mut().flat_map(|(_, members)| members);
        let seated = scene.seats.iter_mut().map(|seat| &mut seat.person);
        let people = scene.workspace.people.iter_mut().chain(&mut scene.listeners);
        for person in people.chain(members).chain(seated) {
            let number = u32::try_from(person.id.0)?;
            person.rest = person.rest.on_behalf_of(address(20, number));
        }
        let people = scene.workspace.people.clone();
        let mut neighbours =
            Self { rest: cluster.rest.clone(), people, accounts: Vec::new(), addresses: 0 };
        for number in 0..ACCOUNTS {
            let rest = neighbours.elsewhere();
            let answer = rest.sign_up(0, &format!("neighbour{number}"), "Chaos").await;
            let body = answer.ok().context("nobody can sign up")?;
            let account = json!({ "email": body["user"]["email"], "password": PASSWORD });
            neighbours.accounts.push(account);
        }
        Ok(neighbours)
    }

    /// Asks for so long, and waits for the last answers.
    pub(super) async fn ask(&mut self, duration: Duration) -> Result<Service> {
        let began = Instant::now();
        let mut lists = interval(Duration::from_secs(1) / LISTS_A_SECOND);
        let mut sign_ins = interval(Duration::from_secs(1) / SIGN_INS_A_SECOND);
        let mut open = JoinSet::new();
        for number in 0.. {
            tokio::select! {
                _ = lists.tick() => {
                    let person = self.people[number % self.people.len()].clone();
                    open.spawn(timed(Call::List, async move {
                        person.call(Method::GET, "/api/chat", None).await
                    }));
                }
                _ = sign_ins.tick() => {
                    let (rest, account) = (self.elsewhere(), self.accounts.remove(0));
                    self.accounts.push(account.clone());
                    open.spawn(timed(Call::SignIn, async move {
                        rest.call(0, None, (Method::POST, "/api/signin"), Some(&account)).await
                    }));
                }
            }
            if began.elapsed() >= duration {
                break;
            }
        }
        let ended = Instant::now();
        let (mut lists, mut sign_ins, mut refusals) = (vec![], vec![], vec![]);
        while let Some(answered) = open.join_next().await {
            match answered? {
                (Call::List, Ok(took)) => lists.push(took),
                (Call::SignIn, Ok(took)) => sign_ins.push(took),
                (_, Err(refusal)) => refusals.push(refusal),
            }
        }
        let [lists, sign_ins] = [lists, sign_ins].map(Times::from_iter);
        let [sends, deliveries] = [Times::default(), Times::default()];
        Ok(Service { began, ended, sends, lists, sign_ins, deliveries, refusals })
    }

    /// The way there from an address that nobody has called from.
    fn elsewhere(&mut self) -> Rest {
        self.addresses += 1;
        self.rest.on_behalf_of(address(30, self.addresses))
    }
}

impl Service {
    /// Adds what was sent in the meantime.
    pub(super) fn add(&mut self, past: &Past) {
        let meanwhile = |began: &Instant| (self.began..self.ended).contains(began);
        let sends =
            past.calls.sends.iter().filter(|send| send.invoked().is_some_and(|at| meanwhile(&at)));
        self.sends = sends.filter_map(Send::duration).collect();
        let deliveries = past.deliveries(Send::invoked).filter(|(began, _)| meanwhile(began));
        self.deliveries = deliveries.map(|(began, received)| received - began).collect();
        let attempts = past.calls.sends.iter().flat_map(|send| &send.attempts);
        let attempts = attempts.filter(|attempt| meanwhile(&attempt.invoked));
        self.refusals.extend(attempts.filter_map(|attempt| attempt.refusal.clone()));
    }

    /// All that was measured.
    pub(super) fn kinds(&self) -> [(&'static str, &Times); 4] {
        [
            ("sends", &self.sends),
            ("lists of chats", &self.lists),
            ("sign-ins", &self.sign_ins),
            ("deliveries", &self.deliveries),
        ]
    }
}

/// How long a call took, or what else came of it.
async fn timed(
    call: Call,
    answer: impl Future<Output = Answer>,
) -> (Call, Result<Duration, String>) {
    let began = Instant::now();
    let took = match timeout(PATIENCE, answer).await {
        Ok(Answer::Ok { .. }) => Ok(began.elapsed()),
        Ok(answer) => Err(format!("{answer:?}")),
        Err(_) => Err("no answer".into()),
    };
    (call, took)
}

/// One of a private network's that nobody else has.
fn address(network: u8, number: u32) -> IpAddr {
    let [_, a, b, c] = number.to_be_bytes();
    Ipv4Addr::new(10, network.wrapping_add(a), b, c).into()
}
