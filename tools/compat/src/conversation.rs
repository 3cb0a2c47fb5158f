//! Two people in a chat: one sends messages, the other one's clients receive them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use fechatter_core::ChatId;
use rig::{Answer, Cluster, Person};
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::route::{Call, Route};

/// The time for which a message is sent again until it is accepted.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Conversation {
    sender: Person,
    pub(crate) receiver: Person,
    pub(crate) chat: ChatId,
    /// The proxy through which the sender sends; none is straight to `fechatter_server`.
    way: Option<Route>,
    sent: Mutex<Vec<String>>,
    /// The answers that were no 201.
    failures: Mutex<Vec<String>>,
}

impl Conversation {
    pub(crate) async fn begin(cluster: &Cluster, name: &str, way: Option<Route>) -> Result<Self> {
        let workspace = cluster.town.workspace(name, 2).await?;
        let [sender, receiver]: [Person; 2] =
            workspace.people.try_into().ok().context("a workspace of two people")?;
        let chat = cluster.town.channel("chat", &[&sender, &receiver]).await?;
        let (sent, failures) = (Mutex::default(), Mutex::default());
        Ok(Self { sender, receiver, chat, way, sent, failures })
    }

    /// Sends a message, again under the same key if need be.
    pub(crate) async fn send(&self, content: &str) -> Result<()> {
        let key = Uuid::new_v4();
        let deadline = Instant::now() + PATIENCE;
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(content.to_owned());
        while let Err(failure) = self.try_to_send(content, key).await {
            if Instant::now() > deadline {
                bail!("a message is not accepted: {failure}");
            }
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Sends so many messages, whose contents begin with the name of the phase.
    pub(crate) async fn talk(&self, phase: &str, count: usize, gap: Duration) -> Result<()> {
        for number in 0..count {
            self.send(&format!("{phase} {number}")).await?;
            sleep(gap).await;
        }
        Ok(())
    }

    pub(crate) fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The path, token and body of a message, for a request of one's own.
    pub(crate) fn message(&self, content: &str, key: Uuid) -> Message {
        Message {
            path: format!("/api/chat/{}/messages", self.chat),
            token: self.sender.token.to_string(),
            body: json!({ "content": content, "idempotency_key": key }).to_string(),
        }
    }

    async fn try_to_send(&self, content: &str, key: Uuid) -> Result<(), String> {
        let Some(way) = &self.way else {
            return match self.sender.send(self.chat, content, key).await {
                Answer::Ok { .. } => Ok(()),
                answer => Err(format!("{answer:?}")),
            };
        };
        let message = self.message(content, key);
        match way.call(message.call()).await {
            Ok(answer) if answer.status == 201 => Ok(()),
            Ok(answer) => Err(answer.status.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    }
}

/// A request that sends a message.
#[derive(Debug)]
pub(crate) struct Message {
    path: String,
    token: String,
    body: String,
}

impl Message {
    pub(crate) fn call(&self) -> Call<'_> {
        Call::post(&self.path, Some(&self.token), self.body.clone())
    }
}
