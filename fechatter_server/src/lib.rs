//! The REST API: accounts, workspaces, chats, members, messages.
//!
//! `handlers` contain the HTTP code, `models` contain the rules and the SQL; both have a module for
//! each kind of object. `middlewares` find the caller and the device. `services` provide what the models need
//! besides PostgreSQL. `utils` parse input.

pub mod admin;
mod config;
mod document;
mod error;
mod handlers;
mod keygen;
mod middlewares;
mod models;
mod services;
mod state;
mod utils;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use fechatter_core::clock::Clock;
use fechatter_core::http::{
    Ask, ConnectionLimits, Listeners, Operations, Shared, operations, serve as serve_http, shared,
};
use fechatter_core::log::Log;
use fechatter_core::metrics::{self, Countable, Metrics};
use fechatter_core::token::{Signer, Verifier};
use fechatter_core::{db, schema, startup};
use secrecy::ExposeSecret;
use sqlx::{ConnectOptions, Connection, PgPool};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;
use tracing::{info, warn};

use crate::middlewares::admission;
use crate::middlewares::parameters::KnownParameters;
use crate::models::workspace;
use crate::services::batch_writer::{BatchWriter, Health};
use crate::services::chat_lists::ChatLists;
use crate::services::file_store::FileStore;
use crate::services::limits::RequestLimits;
use crate::services::message_reader::MessageReader;
use crate::services::offboarding::Offboardings;
use crate::services::password::Passwords;
use crate::services::purge::Purge;
use crate::services::read_mark_writer::ReadMarkWriter;
use crate::services::refresh_token::RefreshKey;
use crate::services::typing::TypingLimit;
use crate::state::{App, AppState};

pub use config::{
    AccountsConfig, Config, FilesConfig, RetentionConfig, S3Config, SigningConfig,
    WorkspaceCreation,
};
pub use keygen::{keygen, write_keys};

/// The longest time that a request may take.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that the last connections may take to close at the shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const APPLICATION: &str = "fechatter_server";
const COUNTERS: [Countable; 6] = [
    (metrics::CHAT_LISTS, Some(("outcome", &["miss", "hit", "not_modified"]))),
    (metrics::COMMANDS_REFUSED, Some(("reason", &["full", "late"]))),
    (metrics::EVENTS_WRITTEN, None),
    (metrics::EVENTS_PRUNED, None),
    (metrics::DOORBELLS_RUNG, Some(("outcome", &["rung", "failed"]))),
    (metrics::CLOCKS_AHEAD, None),
];

/// Checks that the server supports the database, if the database answers.
///
/// # Errors
/// Describes the problem and its solution.
pub async fn check_database(config: &Config) -> anyhow::Result<()> {
    startup::check_database(&db::options(&config.database, APPLICATION)?).await
}

/// Logs the problems of a database schema that this process does not migrate.
///
/// # Errors
/// Fails if the configuration has no valid address of a database.
pub async fn check_schema(config: &Config) -> anyhow::Result<()> {
    startup::check_schema(&db::options(&config.database, APPLICATION)?).await;
    Ok(())
}

/// Migrates the database to the schema of this version.
///
/// # Errors
/// Fails if the database cannot be reached, or has another schema.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    let options = db::options(&config.database, APPLICATION)?;
    let connection = options.connect().await;
    let mut connection =
        connection.context("the database of database.url, or DATABASE_URL, cannot be reached")?;
    schema::migrate(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Checks the keys of the configuration, before the rest of it is used.
///
/// # Errors
/// Names the key that is missing or invalid.
pub fn check_keys(config: &Config) -> anyhow::Result<()> {
    keys(config).map(|_| ())
}

fn keys(config: &Config) -> anyhow::Result<(Verifier, Signer, RefreshKey)> {
    let verifier = Verifier::new(&config.auth.public_keys)?;
    let signer = Signer::new(config.signing.private_key.as_ref(), &verifier)?;
    let refresh_key = RefreshKey::new(config.signing.refresh_key.as_ref())?;
    let others = [config.signing.private_key.as_ref().map_or("", ExposeSecret::expose_secret)];
    let mut others = others.into_iter().chain(config.auth.public_keys.iter().map(String::as_str));
    let refresh = config.signing.refresh_key.as_ref().map_or("", ExposeSecret::expose_secret);
    ensure!(
        !others.any(|key| key == refresh),
        "auth.refresh_key must differ from the other keys; `fechatter_server keygen` makes one"
    );
    Ok((verifier, signer, refresh_key))
}

/// Serves the API until the token is cancelled, and then finishes the running requests.
///
/// # Errors
/// Fails if the keys of the configuration are invalid, or a part of the server cannot start.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (verifier, signer, refresh_key) = keys(&config)?;
    let clock = verifier.clock().clone();
    let options = db::options(&config.database, APPLICATION)?;
    // The server starts with half of the connections. They can serve many requests until the others
    // are open.
    let db = db::connect(options, &config.database, config.database.max_connections / 2, &[]).await;
    let log = Log::new(db.clone());
    let log = log.with_writers_per_log(config.limits.log_connections_per_workspace);
    let limits = RequestLimits::new(&config);
    let connections = ConnectionLimits {
        port: "public",
        total: config.limits.connections,
        per_address: config.limits.connections_per_address,
        exempt: config.http.trusted_proxies.clone(),
        idle: Duration::from_secs(config.http.keep_alive_seconds.into()),
    };
    let purge = Purge::default();
    let offboardings = Offboardings::default();
    let (writer, writer_ended) = BatchWriter::start(log.clone())?;
    // Only the requests may keep the writer alive.
    let writer_health = writer.health();
    let (retention, creation) = (config.retention, config.accounts.workspace_creation);
    let passwords = Passwords::new(config.limits.hashes_per_address)?;
    tokio::spawn(passwords.forget_idle(shutdown.clone()));
    let (router, _) = handlers::routes().split_for_parts();
    let (uploads, _) = handlers::file::uploads().split_for_parts();
    let document = handlers::document();
    let files = FileStore::open(&config.files)?;
    let state = AppState::from(App {
        files: files.clone(),
        purge: purge.clone(),
        offboardings: offboardings.clone(),
        writer,
        typing: TypingLimit::new(),
        messages: MessageReader::start(db.clone()),
        read_marks: ReadMarkWriter::start(log.clone()),
        chat_lists: ChatLists::new(config.chat_list_cache_mebibytes),
        passwords,
        config: Arc::new(config),
        limits: limits.clone(),
        parameters: KnownParameters::of(&document),
        db: db.clone(),
        log: log.clone(),
        verifier,
        signer,
        refresh_key,
    });
    tokio::spawn(limits.forget_idle(shutdown.clone()));
    tokio::spawn(clock.clone().follow(db.clone(), shutdown.clone()));
    tokio::spawn(purge.run(db.clone(), files, retention, shutdown.clone()));
    tokio::spawn(offboardings.run(log, shutdown.clone()));
    tokio::spawn(note_setup(db.clone(), creation));

    let metrics = Metrics::start()?;
    metrics::begin_at_zero(&COUNTERS);
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(metrics.clone().upkeep()));
    let ready = readiness(db.clone(), clock, writer_health, shutdown.clone());
    let measured_pool = db.clone();
    let measure: Ask<()> = Arc::new(move || {
        fechatter_core::db::measure(&measured_pool);
        Box::pin(async {})
    });
    let callbacks = Operations { ready, measure, metrics };
    if let (Ok(public), Ok(operations)) =
        (listeners.public.local_addr(), listeners.operations.local_addr())
    {
        info!(%public, %operations, "listening");
    }
    // The operations port stays open while the last requests finish, so that operators can watch
    // them.
    let operations_shutdown = CancellationToken::new();
    let operations = tokio::spawn(serve_http(
        listeners.operations,
        operations(callbacks),
        ConnectionLimits::operations(),
        operations_shutdown.clone(),
    ));
    serve_http(listeners.public, layered(router, uploads, state), connections, shutdown).await;
    operations_shutdown.cancel();
    let closing = async {
        // All queued commands are written, even if their callers have stopped waiting.
        let _ = writer_ended.await;
        tokio::join!(operations, db.close())
    };
    if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
        warn!("the server stops before all of its connections are closed");
    }
    Ok(())
}

/// Returns the function that says whether the server can serve requests now.
fn readiness(
    db: PgPool,
    clock: Clock,
    writer: Health,
    shutdown: CancellationToken,
) -> Ask<Result<(), &'static str>> {
    Arc::new(move || {
        let (db, clock) = (db.clone(), clock.clone());
        let (writer, shutdown) = (writer.clone(), shutdown.clone());
        Box::pin(async move {
            if shutdown.is_cancelled() {
                return Err("the server is about to stop");
            }
            if !writer.is_healthy() {
                return Err("messages are not being written");
            }
            clock.check()?;
            db::check(&db).await.inspect_err(|reason| {
                if *reason == db::READ_ONLY {
                    db::note_read_only();
                }
            })
        })
    })
}

/// Tells the operator of a new server how the first workspace is created.
async fn note_setup(db: PgPool, creation: WorkspaceCreation) {
    if creation == WorkspaceCreation::FirstOnly
        && matches!(workspace::is_first(&db).await, Ok(true))
    {
        info!(
            "there is no workspace yet; `fechatter_server admin setup-link` prints the link that creates it"
        );
    }
}

/// Returns the OpenAPI document of all routes.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    handlers::document()
}

fn layered(router: Router<AppState>, uploads: Router<AppState>, state: AppState) -> Router {
    let layers = Shared {
        allowed_origins: state.config.http.allowed_origins.clone(),
        hsts: state.config.http.hsts(&state.config.server.public_url),
        is_for_probes: false,
    };
    let router = router.fallback(async || StatusCode::NOT_FOUND).layer((
        TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, HANDLER_TIMEOUT),
        middleware::from_fn_with_state(state.clone(), admission::admit),
        DefaultBodyLimit::max(admission::MAX_BODY),
    ));
    // Uploads take their time, and have limits of their own.
    let uploads = uploads.layer((
        middleware::from_fn_with_state(state.clone(), admission::admit),
        DefaultBodyLimit::disable(),
    ));
    let router = router.merge(uploads);
    shared(router, &layers).with_state(state)
}
