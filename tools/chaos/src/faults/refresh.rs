//! T13: refresh tokens are used in fifty tabs at once and after lost replies, which signs nobody out; and every older one
//! is tried again, as a thief would, which ends the session.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use rig::{Answer, Person, Rest};
use tokio::{task::JoinSet, time::timeout};

use crate::{checker::Verdict, delays::Delays, report::Row, stage::Options};

const TABS: usize = 50;
/// How often a session is refreshed before its older tokens are tried.
const GENERATIONS: usize = 5;

pub(super) async fn raced(options: &Options) -> Result<Row> {
    let mut cluster = options.cluster(2, 0).await?;
    let mut trial = Trial {
        rest: cluster.rest.clone(),
        rng: StdRng::seed_from_u64(options.seed),
        verdict: Verdict::default(),
        times: 0,
    };
    for _ in 0..options.either(2, 8) {
        let mut device = trial.sign_up().await?;
        for _ in 0..options.either(5, 20) {
            trial.refresh_in_all_tabs(&mut device).await;
            trial.refresh_after_a_lost_reply(&mut device).await;
        }
    }
    // The newest token and, for 30 s, the one before it are good.
    for older in (0..GENERATIONS - 1).cycle().take(options.either(GENERATIONS, 40)) {
        let device = trial.sign_up().await?;
        trial.steal(device, older).await?;
    }
    cluster.check()?;
    Ok(Row { times: trial.times, verdict: trial.verdict, delays: Delays::default() })
}

/// A browser with a session.
struct Device {
    person: Person,
    token: String,
}

struct Trial {
    rest: Rest,
    rng: StdRng,
    verdict: Verdict,
    times: usize,
}

impl Trial {
    async fn sign_up(&mut self) -> Result<Device> {
        let signed_up = self.rest.sign_up(self.rng.random_range(0..2), "tab", "Tabs").await;
        let body = signed_up.ok().context("signing up")?;
        let token = body["refresh_token"].as_str().context("a refresh token")?.to_owned();
        Ok(Device { person: self.rest.person(&body).context("a person")?, token })
    }

    async fn refresh_in_all_tabs(&mut self, device: &mut Device) {
        let mut tabs = JoinSet::new();
        for tab in 0..TABS {
            let (rest, token) = (self.rest.clone(), device.token.clone());
            tabs.spawn(async move { rest.refresh(tab, &token).await });
        }
        let answers = tabs.join_all().await;
        self.times += TABS;
        let tokens: Vec<_> =
            answers.into_iter().filter_map(|answer| self.refreshed(answer)).collect();
        if let Some(first) = tokens.first() {
            if tokens.iter().any(|token| token != first) {
                self.verdict.doubled.push("two tabs have different tokens".into());
            }
            device.token.clone_from(first);
        }
    }

    /// The client goes away at some moment of the call, and asks again with the token that it has.
    async fn refresh_after_a_lost_reply(&mut self, device: &mut Device) {
        let patience = Duration::from_micros(self.rng.random_range(200..20_000));
        let _ =
            timeout(patience, self.rest.refresh(self.rng.random_range(0..2), &device.token)).await;
        let answer = self.rest.refresh(self.rng.random_range(0..2), &device.token).await;
        self.times += 1;
        if let Some(token) = self.refreshed(answer) {
            device.token = token;
        }
    }

    /// Somebody has a copy of the token of that generation, and uses it when it is old.
    async fn steal(&mut self, mut device: Device, generation: usize) -> Result<()> {
        let mut tokens = vec![device.token.clone()];
        for server in 0..GENERATIONS {
            let answer = self.rest.refresh(server, &device.token).await;
            device.token = self.refreshed(answer).context("refreshing one after the other")?;
            tokens.push(device.token.clone());
        }
        self.times += 1;
        let thief = self.rest.refresh(self.rng.random_range(0..2), &tokens[generation]).await;
        let owner = self.rest.refresh(self.rng.random_range(0..2), &device.token).await;
        let access = device.person.call(Method::GET, "/api/me", None).await;
        for (who, answer) in
            [("a thief", thief), ("the owner after a thief", owner), ("access", access)]
        {
            if !matches!(answer, Answer::Refused { .. }) {
                self.verdict
                    .leaked
                    .push(format!("{who} got in with generation {generation}: {answer:?}"));
            }
        }
        Ok(())
    }

    /// The new token; none is a false logout.
    fn refreshed(&mut self, answer: Answer) -> Option<String> {
        match answer {
            Answer::Ok { body, .. } => {
                self.verdict.acknowledged += 1;
                body["refresh_token"].as_str().map(ToOwned::to_owned)
            }
            answer => {
                self.verdict.lost.push(format!("a session: {answer:?}"));
                None
            }
        }
    }
}
