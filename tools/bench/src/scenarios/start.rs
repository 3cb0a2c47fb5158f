//! How soon a server that starts is ready, and what it takes while it has nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rig::{KeepAlive, Process, request};
use tokio::time::sleep;

use crate::{
    figure::{Figure, as_f64},
    processes,
    report::{Report, Target::Most, Targets},
    stage::Stage,
};

const TARGETS: Targets = &[
    ("fechatter_server_ready", Most(300.0)),
    ("notify_server_ready", Most(300.0)),
    ("fechatter_server_memory", Most(25.0)),
    ("notify_server_memory", Most(25.0)),
];

const REPETITIONS: usize = 5;
/// What a server has to come to rest before its memory is measured.
const REST: Duration = Duration::from_secs(2);
/// How often it is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let mut cluster = stage.start(&[]).await?;
    let conditions =
        format!("each started {REPETITIONS} times on a database that is there; memory is resident");
    let mut rows = report.under("start", TARGETS, &conditions);
    for (name, process) in [
        ("fechatter_server", &mut cluster.servers[0]),
        ("notify_server", &mut cluster.notifiers[0]),
    ] {
        let mut times = Vec::new();
        for _ in 0..REPETITIONS {
            process.stop()?;
            let began = Instant::now();
            process.start()?;
            ready(process, began).await?;
            times.push(began.elapsed());
        }
        let ready = Figure::over(&times, |time| time.as_secs_f64() * 1000.0);
        rows.add(format!("{name}_ready"), ready, "ms");
        sleep(REST).await;
        let memory = as_f64(processes::resident(process)?) / 1024.0 / 1024.0;
        rows.add(format!("{name}_memory"), memory, "MiB");
    }
    Ok(())
}

/// Closer than [`Process::ready`] looks.
async fn ready(process: &Process, began: Instant) -> Result<()> {
    let asked = request("GET /readyz", &[], "");
    loop {
        if let Ok(mut connection) = KeepAlive::connect(process.operations()).await
            && let Ok(answer) = connection.call(&asked).await
            && answer.status == 204
        {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "a server does not become ready");
        sleep(LOOK).await;
    }
}
