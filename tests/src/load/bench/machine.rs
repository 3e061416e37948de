//! The machine that figures were taken on, for whoever reads them later.

use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::measured::{Machine, Taken};
use crate::parts::workspace;

/// A machine as a stage begins on it.
pub struct Beginning {
    at: Instant,
    unix_time: u64,
    load: String,
    stolen_ticks: u64,
}

/// Looks at the machine before anything is measured.
pub fn beginning() -> Beginning {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let load = read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    Beginning { at: Instant::now(), unix_time: now.as_secs(), load, stolen_ticks: stolen_ticks() }
}

impl Beginning {
    /// Looks again after a stage.
    pub fn finish(self, commit: &str, quick: bool) -> Taken {
        let stolen = stolen_ticks().saturating_sub(self.stolen_ticks);
        Taken {
            commit: commit.to_owned(),
            unix_time: self.unix_time,
            load: self.load,
            seconds: self.at.elapsed().as_secs_f64(),
            stolen_seconds: stolen as f64 / 100.0,
            quick,
            machine: describe(),
        }
    }
}

/// The commit that is checked out, with `+` where tracked files differ from it; `unknown` without git.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").arg("-C").arg(workspace()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let mark = if is_changed.is_some_and(|files| !files.is_empty()) { "+" } else { "" };
    commit + mark
}

fn describe() -> Machine {
    let cpuinfo = read("/proc/cpuinfo");
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    Machine {
        processor: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".to_owned()),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mib: kib / 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        version: chassis::build_info::VERSION.to_owned(),
    }
}

/// Time stolen by the hypervisor since the machine started, in hundredths of a second.
fn stolen_ticks() -> u64 {
    let stat = read("/proc/stat");
    let ticks = stat.lines().next().and_then(|cpu| cpu.split_whitespace().nth(8)?.parse().ok());
    ticks.unwrap_or(0)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
