//! What the system says of processes.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use rig::Process;

/// Ticks a second in which Linux counts a process's time, on every architecture that we build for.
const TICKS: u64 = 100;
/// Files that a process needs besides its streams.
const OTHER_FILES: usize = 500;

/// Resident memory, in bytes.
pub(crate) fn resident(process: &Process) -> Result<u64> {
    let id = process.id().context("this server does not run")?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    resident_in(&status).context("reading a process's memory")
}

/// The time that a server has spent on processors.
pub(crate) fn cpu(process: &Process) -> Result<Duration> {
    cpu_of(&process.id().context("this server does not run")?.to_string())
}

/// The time that we have spent on processors.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu_of("self")
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

fn cpu_of(id: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    cpu_in(&stat).context("reading a process's time")
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn cpu_in(stat: &str) -> Option<Duration> {
    // The program's name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let [user, system] = [ticks()?, ticks()?];
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
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
    use super::*;

    #[test]
    fn memory_time_and_limits_are_found() {
        let status = "Name:\tx\nVmHWM:\t    90 kB\nVmRSS:\t    80 kB\n";
        assert_eq!(resident_in(status), Some(80 * 1024));
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0";
        assert_eq!(cpu_in(stat), Some(Duration::from_millis(1750)));
        let limits =
            "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n";
        assert_eq!(files_in(limits), Some(1024));
    }
}
