//! `GET /api/sync` in a large workspace.

use std::slice;

use anyhow::Result;
use rig::KeepAlive;

use super::asked;
use crate::{
    figure::as_f64,
    large::Large,
    report::{Report, Target::Most, Targets},
    stage::Stage,
};

const TARGETS: Targets = &[("with_users_p50", Most(150.0))];

const MESSAGES: usize = 20;
const REPETITIONS: usize = 20;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let users = stage.count(10_000);
    let large = Large::new(stage, users, MESSAGES).await?;
    let caller = &large.absentee;
    let mut connection = KeepAlive::connect(large.cluster.servers[0].address()).await?;

    let conditions = format!(
        "{users} users, caller in {} chats with {MESSAGES} unread messages each, {REPETITIONS} times",
        large.chats.len()
    );
    let mut rows = report.under("sync", TARGETS, &conditions);
    for (name, path) in [("with_users", "/api/sync"), ("without_users", "/api/sync?users=false")] {
        let request = caller.raw_request(&format!("GET {path}"), "");
        let times = asked(&mut connection, slice::from_ref(&request), REPETITIONS).await?;
        rows.quantiles(name, &[times]);
        let bytes = connection.call(&request).await?.body.len();
        rows.add(format!("{name}_bytes"), as_f64(bytes), "B");
    }
    Ok(())
}
