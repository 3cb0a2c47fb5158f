//! `fechatter_server admin doctor`: checks of an installation.

use std::fmt::{Display, Write as _};
use std::time::{Duration, Instant};

use chrono::Utc;
use fechatter_core::{db, schema};
use serde::Serialize;
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::context::{Report, allow_long_queries};
use crate::APPLICATION;
use crate::config::Config;
use crate::error::Result;
use crate::models::integrity;
use crate::services::file_store::FileStore;

/// The channel of the check's own notification.
const CHANNEL: &str = "fechatter_doctor";
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Access tokens are refused by a clock that is further off than this.
const MAX_CLOCK_OFFSET_SECONDS: i64 = 60;
/// The share of free space in the file store below which the doctor warns.
const MIN_FREE_PERCENT: u64 = 10;
/// The ids that a finding lists at most.
const LISTED: usize = 10;

/// The result of one check.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// All findings so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

/// Checks the configuration, the database's settings, the clock, notifications and the file store; with
/// `database`, also all stored messages and events.
///
/// # Errors
/// Fails only if its result cannot be written.
pub(super) async fn examine(config: &Config, database: bool) -> anyhow::Result<Report> {
    let mut findings = Findings::default();
    findings.check_config(config);
    findings.check_files(config);
    match connect(config).await {
        Ok(mut connection) => {
            findings.ok("database", "reached");
            findings.check_settings(&mut connection).await;
            findings.check_clock(&mut connection).await;
            findings.check_schema(&mut connection).await;
            findings.check_notifications(config, &mut connection).await;
            if database {
                findings.check_data(&mut connection).await;
            }
        }
        Err(error) => findings.fail(
            "database",
            format_args!("{error:#}; correct database.url, or DATABASE_URL, or start PostgreSQL"),
        ),
    }
    findings.report()
}

async fn connect(config: &Config) -> anyhow::Result<PgConnection> {
    crate::check_database(config).await?;
    let options = db::options(&config.database, APPLICATION)?;
    Ok(PgConnection::connect_with(&options).await?)
}

impl Findings {
    fn add(&mut self, check: &'static str, status: Status, detail: impl Display) {
        self.0.push(Finding { check, status, detail: detail.to_string() });
    }

    fn ok(&mut self, check: &'static str, detail: impl Display) {
        self.add(check, Status::Ok, detail);
    }

    fn fail(&mut self, check: &'static str, detail: impl Display) {
        self.add(check, Status::Fail, detail);
    }

    fn report(self) -> anyhow::Result<Report> {
        let mut text = String::new();
        for Finding { check, status, detail } in &self.0 {
            let status = format!("{status:?}").to_lowercase();
            let _ = writeln!(text, "{status:4}  {check}: {detail}");
        }
        let is_failure = self.0.iter().any(|finding| finding.status == Status::Fail);
        Ok(Report { is_failure, ..Report::new(text, &self.0)? })
    }

    fn check_config(&mut self, config: &Config) {
        match crate::check_keys(config) {
            Ok(()) => self.ok("keys", "fit each other"),
            Err(error) => self.fail("keys", format_args!("{error:#}")),
        }
        for unknown in &config.unknown_keys {
            self.add("configuration", Status::Warn, unknown);
        }
        let is_https = config.server.public_url.starts_with("https://");
        match (is_https, config.signing.secure_cookie) {
            (true, true) => self.ok("public address", &config.server.public_url),
            (true, false) => self.add(
                "public address",
                Status::Warn,
                "auth.secure_cookie is off although server.public_url is https; switch it on",
            ),
            (false, true) => self.fail(
                "public address",
                "server.public_url is not https, so browsers do not send the cookies: use https, or \
                 switch auth.secure_cookie off on a development machine",
            ),
            (false, false) => self.add(
                "public address",
                Status::Warn,
                "server.public_url is not https: passwords can be read on the way",
            ),
        }
    }

    fn check_files(&mut self, config: &Config) {
        const CHECK: &str = "files";
        let path = &config.files.path;
        let free = FileStore::open(&config.files).and_then(|store| store.free_percent());
        match free {
            Ok(free) if free < MIN_FREE_PERCENT => self.add(
                CHECK,
                Status::Warn,
                format_args!("only {free} % of the disk of {} is free", path.display()),
            ),
            Ok(free) => self.ok(CHECK, format_args!("{free} % of the disk is free")),
            Err(error) => {
                self.fail(CHECK, format_args!("{error:#}; correct files.path, or its permissions"));
            }
        }
    }

    async fn check_settings(&mut self, connection: &mut PgConnection) {
        let settings = sqlx::query!(
            r#"select name as "name!", setting as "setting!"
               from pg_settings
               where name in ('fsync', 'synchronous_commit', 'full_page_writes')
               order by name"#
        );
        match settings.fetch_all(connection).await {
            Ok(settings) => {
                let off = settings.iter().filter(|row| row.setting == "off");
                let off: Vec<_> = off.map(|row| &*row.name).collect();
                if off.is_empty() {
                    self.ok("durability", "acknowledged messages are on the disk");
                } else {
                    let off = off.join(", ");
                    self.fail(
                        "durability",
                        format_args!("{off} is off: a crash loses messages; switch it on"),
                    );
                }
            }
            Err(error) => self.fail("durability", error),
        }
    }

    async fn check_clock(&mut self, connection: &mut PgConnection) {
        const CHECK: &str = "clock";
        let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#);
        match now.fetch_one(connection).await {
            Ok(now) => {
                let offset = (Utc::now() - now).num_seconds().abs();
                let detail = format!("{offset} s from the database's");
                if offset > MAX_CLOCK_OFFSET_SECONDS {
                    self.fail(CHECK, format_args!("{detail}; synchronize both with NTP"));
                } else if offset > 1 {
                    self.add(
                        CHECK,
                        Status::Warn,
                        format_args!("{detail}; synchronize both with NTP"),
                    );
                } else {
                    self.ok(CHECK, detail);
                }
            }
            Err(error) => self.fail(CHECK, error),
        }
    }

    async fn check_schema(&mut self, connection: &mut PgConnection) {
        match schema::check(connection).await {
            Ok(Ok(())) => self.ok("schema", "serves this version"),
            Ok(Err(problem)) => {
                self.fail("schema", format_args!("{problem}; run `fechatter_server migrate`"));
            }
            Err(error) => self.fail("schema", error),
        }
    }

    async fn check_notifications(&mut self, config: &Config, connection: &mut PgConnection) {
        const CHECK: &str = "notifications";
        let begin = Instant::now();
        let trip = async {
            let options = db::listen_options(&config.database, APPLICATION)?;
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1);
            let mut listener = PgListener::connect_with(&pool.connect_with(options).await?).await?;
            listener.listen(CHANNEL).await?;
            sqlx::query!("select pg_notify($1, '')", CHANNEL).fetch_one(connection).await?;
            listener.recv().await?;
            anyhow::Ok(begin.elapsed())
        };
        match timeout(NOTIFICATION_TIMEOUT, trip).await {
            Ok(Ok(elapsed)) => {
                self.ok(CHECK, format_args!("arrive ({} ms)", elapsed.as_millis()));
            }
            Ok(Err(error)) => self.fail(CHECK, format_args!("{error:#}")),
            Err(_) => self.fail(
                CHECK,
                "do not arrive: database.listen_url must lead to the same database, past any pooler \
                 in transaction mode",
            ),
        }
    }

    async fn check_data(&mut self, connection: &mut PgConnection) {
        if let Err(error) = self.check_data_of(connection).await {
            self.fail("data", error);
        }
    }

    async fn check_data_of(&mut self, db: &mut PgConnection) -> Result<()> {
        let mut tx = db.begin_with("begin isolation level repeatable read read only").await?;
        allow_long_queries(&mut tx).await?;
        let logs = integrity::logs_with_gaps(&mut tx).await?;
        self.list("logs", "have no gap", "gaps in the logs of workspaces", &logs);
        let chats = integrity::chats_with_gaps(&mut tx).await?;
        self.list("messages", "are numbered without a gap", "gaps in chats", &chats);
        let chats = integrity::chats_with_wrong_counts(&mut tx).await?;
        self.list("members", "are counted", "wrong numbers of members in chats", &chats);
        let names = integrity::unchecked_constraints(&mut tx).await?;
        self.list("constraints", "are checked for all rows", "unchecked constraints", &names);
        Ok(())
    }

    fn list(&mut self, check: &'static str, good: &str, bad: &str, hits: &[impl Display]) {
        if hits.is_empty() {
            return self.ok(check, good);
        }
        let listed: Vec<_> = hits.iter().take(LISTED).map(ToString::to_string).collect();
        let more = if hits.len() > LISTED { ", …" } else { "" };
        let listed = listed.join(", ");
        self.fail(check, format_args!("{bad}: {listed}{more}; restore a backup from before"));
    }
}
