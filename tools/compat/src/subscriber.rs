//! A client that follows a stream through a proxy by the rules of `docs/events.md`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use rig::Frame;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    observed::{Observed, What},
    route::{Call, Route},
};

/// Between the end of a stream and the next request.
const PAUSE: Duration = Duration::from_millis(200);
/// After this time without a byte the connection is dead.
const SILENCE: Duration = Duration::from_secs(40);

/// A stream to follow.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub(crate) route: Route,
    pub(crate) token: String,
    /// Where the token goes: into the address, or into a header.
    pub(crate) token_in_address: bool,
    pub(crate) observed: Observed,
}

impl Subscriber {
    /// Follows the stream for ever; each change of `cuts` breaks the connection.
    pub(crate) async fn follow(self, mut cuts: watch::Receiver<u64>) {
        let mut cursor = None;
        loop {
            let text = tokio::select! {
                ended = self.listen(&mut cursor) => match ended {
                    Ok(()) => "the end".to_owned(),
                    Err(error) => format!("{error:#}"),
                },
                _ = cuts.changed() => "cut".to_owned(),
            };
            self.observed.add(What::Ended { text });
            sleep(PAUSE).await;
        }
    }

    async fn listen(&self, cursor: &mut Option<String>) -> Result<()> {
        let address = format!("/events?access_token={}", self.token);
        let mut call = if self.token_in_address {
            Call::get(&address, None)
        } else {
            Call::get("/events", Some(&self.token))
        };
        let after = cursor.clone();
        call.header = after.as_deref().map(|cursor| ("last-event-id", cursor));
        self.observed.add(What::Asked);
        let response = self.route.open(call).await?;
        ensure!(response.status() == 200, "{}", response.status());
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = timeout(SILENCE, body.frame()).await.context("silence")? {
            let Ok(data) = frame?.into_data() else { continue };
            bytes.extend_from_slice(&data);
            let taken = rig::split(&bytes, &mut |frame: Frame<'_>| self.hear(frame, cursor));
            bytes.drain(..taken);
        }
        Ok(())
    }

    fn hear(&self, frame: Frame<'_>, cursor: &mut Option<String>) {
        let data = serde_json::from_slice(frame.data).unwrap_or_default();
        self.observed.add(What::Event { event: frame.event.to_owned(), data });
        if let Some(id) = frame.id {
            *cursor = Some(id.to_owned());
        }
    }
}
