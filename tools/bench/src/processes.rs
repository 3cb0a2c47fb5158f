//! What the system says of processes.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use rig::{Cluster, Process};

/// Ticks a second in which Linux counts a process's time, on every architecture that we build for.
const TICKS: u64 = 100;
/// Files that a process needs besides its streams.
const OTHER_FILES: usize = 500;

/// The time that everybody has spent on processors, up to some moment or between two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// All `fechatter_server`.
    pub(crate) servers: Duration,
    /// All `notify_server`.
    pub(crate) notifiers: Duration,
    /// Every process of PostgreSQL, also of those that have ended.
    pub(crate) postgres: Duration,
    /// This program.
    pub(crate) generator: Duration,
}

impl Usage {
    /// Up to now.
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        let all = |processes: &[Process]| processes.iter().map(cpu).sum::<Result<_>>();
        Ok(Self {
            servers: all(&cluster.servers)?,
            notifiers: all(&cluster.notifiers)?,
            postgres: family(cluster.postgres.postmaster_pid())?,
            generator: cpu_of("self")?,
        })
    }

    /// Since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            servers: self.servers.saturating_sub(earlier.servers),
            notifiers: self.notifiers.saturating_sub(earlier.notifiers),
            postgres: self.postgres.saturating_sub(earlier.postgres),
            generator: self.generator.saturating_sub(earlier.generator),
        }
    }

    /// What a Fechatter costs: everything but the load.
    pub(crate) fn fechatter(self) -> Duration {
        self.servers + self.notifiers + self.postgres
    }
}

/// Resident memory, in bytes.
pub(crate) fn resident(process: &Process) -> Result<u64> {
    let pid = process.pid().context("this server does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    resident_in(&status).context("reading a process's memory")
}

/// The time that this thread has spent on processors.
pub(crate) fn thread_cpu() -> Result<Duration> {
    cpu_of("thread-self")
}

/// Whether we, and the servers that we start, may have so many streams open.
pub(crate) fn ensure_files_for(streams: usize) -> Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let limit = files_in(&limits).context("reading how many files may be open")?;
    let needed = streams + OTHER_FILES;
    ensure!(
        limit >= needed,
        "{streams} streams need {needed} open files and the limit is {limit}: raise it with `ulimit -n {needed}`"
    );
    Ok(())
}

fn cpu(process: &Process) -> Result<Duration> {
    cpu_of(&process.pid().context("this server does not run")?.to_string())
}

fn cpu_of(id: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let stat = Stat::parse(&stat).context("reading a process's time")?;
    Ok(ticks(stat.own))
}

/// Of a process and its children. Those that it has waited for are in its own statistics.
fn family(id: u32) -> Result<Duration> {
    let mut sum = 0;
    for process in fs::read_dir("/proc")? {
        // One that has just ended is of no interest.
        let stat = fs::read_to_string(process?.path().join("stat")).unwrap_or_default();
        match Stat::parse(&stat) {
            Some(stat) if stat.id == id => sum += stat.own + stat.ended_children,
            Some(stat) if stat.parent == id => sum += stat.own,
            _ => {}
        }
    }
    Ok(ticks(sum))
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// What matters here of `/proc/<id>/stat`; times are in ticks.
#[derive(Debug, PartialEq)]
struct Stat {
    id: u32,
    parent: u32,
    own: u64,
    ended_children: u64,
}

impl Stat {
    fn parse(stat: &str) -> Option<Self> {
        // The program's name, in parentheses, may hold anything.
        let (id, rest) = stat.split_once(' ')?;
        let (_, fields) = rest.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            id: id.parse().ok()?,
            parent: u32::try_from(number(1)?).ok()?,
            own: number(11)? + number(12)?,
            ended_children: number(13)? + number(14)?,
        })
    }
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn files_in(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use super::*;

    #[test]
    fn memory_time_and_limits_are_found() {
        let status = "Name:\tx\nVmHWM:\t    90 kB\nVmRSS:\t    80 kB\n";
        assert_eq!(resident_in(status), Some(80 * 1024));
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 30 4 20 0";
        let parsed = Stat { id: 7, parent: 1, own: 175, ended_children: 34 };
        assert_eq!(Stat::parse(stat), Some(parsed));
        assert_eq!(ticks(175), Duration::from_millis(1750));
        let limits =
            "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n";
        assert_eq!(files_in(limits), Some(1024));
    }

    #[test]
    fn a_family_has_the_time_of_its_children_that_have_ended() {
        let before = family(std::process::id()).unwrap();
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let began = Instant::now();
        Command::new("/bin/sh").args(["-c", spin]).status().unwrap();
        let spent = family(std::process::id()).unwrap().saturating_sub(before);
        assert!(spent > Duration::ZERO, "{spent:?} of {:?}", began.elapsed());
    }
}
