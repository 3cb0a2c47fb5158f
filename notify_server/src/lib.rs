//! Delivers the events of workspace logs to clients as server-sent events (SSE).
//!
//! In reading order: `read::listener` receives the doorbell, `read::tail` reads new events from the
//! logs (at each workspace's `read::pace`), `workspace::hub` passes them to the streams.
//! `workspace::state` holds the rules of one workspace: `memberships` has the members of its chats,
//! `recent` its newest events, `endings` the reasons for which an event ends a stream, `outbox` the
//! queued frames of a stream; `read::loader` loads its initial state. `stream::request` answers
//! `GET /events`, `start` decides where a stream begins, `catch_up` sends missed events, for which
//! `replay` reads the events that are no longer in memory, `life` runs the stream until it ends,
//! and `writer` writes it. `frame` is the text of a stream, `database` shares connections among
//! workspaces, `measure` sets the gauges.

mod app;
mod database;
mod frame;
mod measure;
mod read;
mod stream;
mod workspace;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use fechatter_core::clock::Clock;
use fechatter_core::config::Config;
use fechatter_core::http::{self, Ask, ConnectionLimits, Listeners, Operations, Shared};
use fechatter_core::metrics::{self, Countable, Metrics};
use fechatter_core::rate::Rates;
use fechatter_core::stream_event::ResetReason;
use fechatter_core::token::Verifier;
use fechatter_core::{db, log, startup};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use app::App;
use database::Database;
use read::listener;
use read::loader::Loader;
use read::tail::Tail;
use stream::limits::StreamLimits;
use stream::{life, request};
use workspace::hub::{Hub, RecentLimits};

const APPLICATION: &str = "notify_server";
const COUNTERS: [Countable; 7] = [
    (metrics::DOORBELLS_HEARD, None),
    (metrics::EVENTS_READ, Some(("found_by", &["announcement", "doorbell", "poll"]))),
    (metrics::LOG_BREAKS, None),
    (metrics::STREAMS_CLOSED, Some(("reason", &life::REASONS))),
    (metrics::RESETS, Some(("reason", ResetReason::NAMES))),
    (metrics::DELIVERIES, None),
    (metrics::CLOCKS_AHEAD, None),
];
/// Connections besides those of all streams.
const EXTRA_CONNECTIONS: usize = 1_000;
/// The interval of the periodic tick, and so the maximum delay in detecting an expired token.
/// Heartbeats are sent every 15 ticks.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// The time that the pool's connections have to close at shutdown.
const POOL_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Checks that the database meets the server's requirements, if it can be reached.
///
/// # Errors
/// Names the problem and its remedy.
pub async fn check_database(config: &Config) -> anyhow::Result<()> {
    let options = db::options(&config.database, APPLICATION)?;
    let listen_options = db::listen_options(&config.database, APPLICATION)?;
    startup::check_database(&options).await?;
    startup::check_schema(&options).await;
    match config.database.listen_url {
        Some(_) => startup::check_listening(&options, &listen_options).await,
        None => Ok(()),
    }
}

/// Serves streams until the token is cancelled. Every stream then sends `Goodbye`, and the server
/// ends within 20 s.
///
/// # Errors
/// When the configuration has no valid public key or database address, or a part of the server
/// ended prematurely.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let verifier = Verifier::new(&config.auth.public_keys)?;
    let clock = verifier.clock().clone();
    let options = db::options(&config.database, APPLICATION)?;
    let initial_connections = config.database.max_connections / 4;
    let settings = &log::PLAN_ONCE;
    let db = db::connect(options.clone(), &config.database, initial_connections, settings).await;
    let hub = Arc::new(Hub::new(RecentLimits {
        events: config.notify.recent_events,
        bytes: config.notify.recent_mebibytes * 1024 * 1024,
    }));
    let tail = Arc::new(Tail::new(Arc::clone(&hub), options));
    // A child token: a failed part stops the other parts, but not other users of the caller's
    // token.
    let shutdown = shutdown.child_token();
    let shared = Database::new(db.clone(), &config);
    let streams = config.notify.streams;
    let loader = Loader::new(shared.clone(), Arc::clone(&hub), Arc::clone(&tail), streams);
    let rates = Rates::new(config.http.requests_per_second, config.http.burst);
    let app = App {
        verifier,
        db: shared,
        hub: Arc::clone(&hub),
        loader: Arc::new(loader),
        tail: Arc::clone(&tail),
        rates: rates.clone(),
        limits: Arc::new(StreamLimits::new(&config.notify)),
        shutdown: shutdown.clone(),
    };
    if let (Ok(public), Ok(operations)) =
        (listeners.public.local_addr(), listeners.operations.local_addr())
    {
        info!(%public, %operations, "listening");
    }

    let mut tasks = JoinSet::new();
    let metrics = Metrics::start()?;
    metrics::begin_at_zero(&COUNTERS);
    let operations = http::operations(Operations {
        ready: readiness_callback(db.clone(), Arc::clone(&tail), clock.clone()),
        measure: measure_callback(db.clone(), Arc::clone(&hub), Arc::clone(&tail)),
        metrics: metrics.clone(),
    });
    let listen_options = db::listen_options(&config.database, APPLICATION)?;
    let listening = listener::run(listen_options, db.clone(), Arc::clone(&hub), Arc::clone(&tail));
    tasks.spawn(rates.forget_idle(shutdown.clone()));
    tasks.spawn(run_ticks(hub, clock.clone(), shutdown.clone()));
    tasks.spawn(clock.follow(db.clone(), shutdown.clone()));
    tasks.spawn(run_until_shutdown(shutdown.clone(), async move { tail.run().await }));
    tasks.spawn(run_until_shutdown(shutdown.clone(), listening));
    tasks.spawn(run_until_shutdown(shutdown.clone(), metrics.upkeep()));
    let public = http::serve(
        listeners.public,
        router(app, &config),
        connection_limits(&config),
        shutdown.clone(),
    );
    let operations_limits = ConnectionLimits::operations();
    tasks.spawn(public);
    tasks.spawn(http::serve(listeners.operations, operations, operations_limits, shutdown.clone()));
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        if let Err(panic) = ended {
            shutdown.cancel();
            result = Err(panic).context("a part of the server failed");
        }
    }
    if timeout(POOL_CLOSE_TIMEOUT, db.close()).await.is_err() {
        warn!("connections to the database were left open");
    }
    result
}

/// Runs the periodic tick: sends heartbeats and ends streams whose token has expired. At shutdown
/// it ends all streams.
async fn run_ticks(hub: Arc<Hub>, clock: Clock, shutdown: CancellationToken) {
    let mut ticks = interval(TICK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1.. {
        tokio::select! {
            _ = ticks.tick() => hub.tick(number, clock.timestamp()),
            () = shutdown.cancelled() => return hub.drain(),
        }
    }
}

fn router(app: App, config: &Config) -> Router {
    let shared = Shared {
        allowed_origins: config.http.allowed_origins.clone(),
        hsts: config.http.hsts(&config.notify.public_url),
        is_for_probes: false,
    };
    let router = Router::new().route("/events", get(request::events)).with_state(app);
    http::shared(router, &shared)
}

fn connection_limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits {
        port: "public",
        // In addition to the configured number of streams, clients may be requesting one.
        total: config.notify.streams.saturating_add(EXTRA_CONNECTIONS),
        per_address: config.limits.connections_per_address,
        exempt: config.http.trusted_proxies.clone(),
        idle: Duration::from_secs(config.http.keep_alive_seconds.into()),
    }
}

fn measure_callback(db: PgPool, hub: Arc<Hub>, tail: Arc<Tail>) -> Ask<()> {
    Arc::new(move || {
        let (db, hub, tail) = (db.clone(), Arc::clone(&hub), Arc::clone(&tail));
        Box::pin(async move { measure::all(&db, &hub, &tail).await })
    })
}

async fn run_until_shutdown(shutdown: CancellationToken, part: impl Future<Output = ()>) {
    shutdown.run_until_cancelled_owned(part).await;
}

/// Returns the readiness check: the server reaches its database, follows the logs, and its clock is
/// trusted.
fn readiness_callback(db: PgPool, tail: Arc<Tail>, clock: Clock) -> Ask<Result<(), &'static str>> {
    Arc::new(move || {
        let (db, tail, clock) = (db.clone(), Arc::clone(&tail), clock.clone());
        Box::pin(async move {
            match db::check(&db).await {
                // A read-only database is sufficient, because this server only reads.
                Err(why) if why != db::READ_ONLY => return Err(why),
                _ => {}
            }
            if !tail.is_current() {
                return Err("the logs cannot be followed");
            }
            clock.check()
        })
    })
}
