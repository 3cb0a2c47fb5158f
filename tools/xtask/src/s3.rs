//! `cargo xtask s3`: lints and tests the feature `s3`, with files in a bucket of a server that pip installs.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpStream},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use devdb::{ChildGuard, Postgres, ShutdownMethod, reserve_port};
use tokio::time::sleep;

use crate::{
    python,
    workspace::{cargo, exit_code, root},
};

/// Its `moto_server` speaks the protocol of S3.
const PACKAGE: &str = "moto[server]==5.2.5";
const START_TIMEOUT: Duration = Duration::from_mins(1);

pub(crate) async fn run() -> Result<ExitCode> {
    let folder = root().join("target/s3");
    fs::create_dir_all(&folder)?;
    let programs = python::install(&folder.join("python"), [PACKAGE])?;
    let port = reserve_port()?;
    let log = File::create(folder.join("moto.log"))?;
    let shutdown = ShutdownMethod::new("TERM", Duration::from_secs(5));
    let _server = ChildGuard::start(programs.join("moto_server"), shutdown, |command| {
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stderr(log);
    })?;
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure!(Instant::now() < deadline, "moto_server does not start: see target/s3/moto.log");
        sleep(Duration::from_millis(50)).await;
    }
    let postgres = Postgres::temporary()?;
    let feature = ["-p", "fechatter_server", "--features", "s3"];
    let mut lints = cargo();
    lints.args(["clippy", "--all-targets", "--quiet"]).args(feature).args(["--", "-D", "warnings"]);
    let mut tests = cargo();
    tests.arg("test").args(feature).args(["--test", "api", "s3::"]);
    tests.env("DATABASE_URL", postgres.url("postgres"));
    tests.env("FECHATTER_TEST_S3", format!("http://127.0.0.1:{port}"));
    let mut code = exit_code(&mut lints).await?;
    if code == 0 {
        code = exit_code(&mut tests).await?;
    }
    postgres.stop()?;
    Ok(ExitCode::from(code))
}
