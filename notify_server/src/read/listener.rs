//! Receives the doorbell and ephemeral events on a dedicated connection.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::counter;
use anyhow::Context;
use fechatter_core::log::{DOORBELL_CHANNEL, DoorbellPayload, EPHEMERAL_CHANNEL, Ephemeral};
use fechatter_core::metrics;
use fechatter_core::sabotage::{self, Sabotage};
use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use sqlx::{Executor, PgPool};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::read::read_states;
use crate::read::tail::Tail;
use crate::workspace::hub::Hub;

/// The pause between two attempts to connect to the database.
const RETRY: Duration = Duration::from_secs(1);
/// The silence after which the connection is tested with a query.
const SILENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(2);

/// Listens for ever and reconnects after each lost connection.
pub(crate) async fn run(options: PgConnectOptions, db: PgPool, hub: Arc<Hub>, tail: Arc<Tail>) {
    let mut failing = false;
    // The last time at which the connection was known to work.
    let mut heard_at = Instant::now();
    loop {
        let ended = match connect(&options).await {
            Ok(listener) => {
                if std::mem::take(&mut failing) {
                    info!("the doorbell can be heard again");
                }
                // Notifications before this moment were missed.
                wake(&tail);
                let missed_time = heard_at.elapsed();
                let hearing = hear(listener, &hub, &tail, &mut heard_at);
                let (ended, ()) =
                    tokio::join!(hearing, read_states::resend(&db, &hub, missed_time));
                ended
            }
            Err(error) => Err(error),
        };
        wake(&tail);
        if let Err(error) = ended
            && !failing
        {
            warn!(error = format_args!("{error:#}"), "the doorbell cannot be heard; polling");
            failing = true;
        }
        sleep(RETRY).await;
    }
}

fn wake(tail: &Tail) {
    if !sabotage::is(Sabotage::NoRescan) {
        tail.on_doorbell(DoorbellPayload::default());
    }
}

async fn connect(options: &PgConnectOptions) -> anyhow::Result<PgListener> {
    // The listener needs a pool; this one has a single connection.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ANSWER)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // A lost connection is reported here, so that the logs are read after the reconnect.
    listener.eager_reconnect(false);
    let listening = listener.listen_all([DOORBELL_CHANNEL, EPHEMERAL_CHANNEL]);
    timeout(ANSWER, listening).await.context("listening takes too long")??;
    Ok(listener)
}

/// Returns when the connection is lost.
async fn hear(
    mut listener: PgListener,
    hub: &Hub,
    tail: &Tail,
    heard_at: &mut Instant,
) -> anyhow::Result<()> {
    loop {
        *heard_at = Instant::now();
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => act_on(&notification, hub, tail),
            Ok(Ok(None)) => anyhow::bail!("the connection was lost"),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                let answer = timeout(ANSWER, listener.execute("select 1")).await;
                answer.context("the database does not answer")??;
            }
        }
    }
}

fn act_on(notification: &PgNotification, hub: &Hub, tail: &Tail) {
    let payload = notification.payload();
    if notification.channel() == DOORBELL_CHANNEL {
        counter!(metrics::DOORBELLS_HEARD).increment(1);
        tail.on_doorbell(DoorbellPayload::parse(payload));
        return;
    }
    match serde_json::from_str::<Vec<Ephemeral>>(payload) {
        Ok(all) => all.iter().for_each(|ephemeral| hub.send(ephemeral)),
        Err(error) => warn!(%error, "ephemeral events cannot be read"),
    }
}
