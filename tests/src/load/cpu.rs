//! CPU time and memory of processes, as the kernel accounts them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU that all threads of a process have used, to the nanosecond. Threads that have ended are not
/// counted, so servers are measured while their threads live.
///
/// # Errors
/// When the process is gone.
pub fn of_process(pid: u32) -> Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = Duration::ZERO;
    let gone = || format!("process {pid} is gone");
    for task in std::fs::read_dir(&tasks).with_context(gone)? {
        // A thread may end between the listing and the reading.
        if let Ok(cpu) = schedstat(&task.with_context(gone)?.path().join("schedstat")) {
            sum += cpu;
        }
    }
    Ok(sum)
}

/// CPU of the calling thread.
///
/// # Errors
/// When the kernel does not account it (`CONFIG_SCHED_INFO`).
pub fn this_thread() -> Result<Duration> {
    schedstat(Path::new("/proc/thread-self/schedstat"))
}

/// CPU of all processes that this one started, waited for and saw end, to a hundredth of a second.
///
/// # Errors
/// When the kernel does not tell.
pub fn of_ended_children() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The name of the program, in parentheses, may hold anything; user and system time of children are the
    // 16th and the 17th field, the state behind the name being the 3rd.
    let behind_name = text.rsplit_once(") ").context("/proc/self/stat has no name")?.1;
    let ticks = behind_name.split(' ').skip(13).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>().context("/proc/self/stat")?;
    Ok(Duration::from_millis(ticks * 10))
}

/// What the processors of the machine did so far, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    all: u64,
    idle: u64,
}

impl Ticks {
    /// Now, of all processors together.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        // user nice system idle iowait irq softirq steal; guests are in user.
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|tick| tick.parse().ok()).collect();
        let idle = ticks.get(3..5).context("no idle time in /proc/stat")?.iter().sum();
        Ok(Self { all: ticks.iter().sum(), idle })
    }

    /// Which part of the time since `before` the processors were busy.
    pub fn busy_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1) as f64;
        1.0 - self.idle.saturating_sub(before.idle) as f64 / all
    }
}

fn schedstat(path: &Path) -> Result<Duration> {
    let context = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path).with_context(context)?;
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Ok(Duration::from_nanos(nanos.with_context(context)?))
}

/// Resident memory of a process now, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most resident memory that a process has had so far, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn resident_bytes_most(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no {name} in /proc/PID/status"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_used() {
        let before = this_thread().unwrap();
        let mut sum = 0_u64;
        while this_thread().unwrap() == before {
            sum = (0..10_000).fold(sum, |sum: u64, n| sum.wrapping_add(n));
        }
        assert!(of_process(std::process::id()).unwrap() >= this_thread().unwrap() - before);
        let now = resident_bytes(std::process::id()).unwrap();
        assert!(now > 1 << 20);
        assert!(resident_bytes_most(std::process::id()).unwrap() >= now);
        assert!(of_process(u32::MAX).is_err());
    }

    #[test]
    fn children_that_ended_are_counted() {
        let before = of_ended_children().unwrap();
        let counts = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let spent = (0..100).any(|_| {
            std::process::Command::new("sh").args(["-c", counts]).status().unwrap();
            of_ended_children().unwrap() > before
        });
        assert!(spent, "a hundred loops of a shell take a hundredth of a second");
    }

    #[test]
    fn a_machine_is_busy_or_idle() {
        let before = Ticks { all: 1000, idle: 600 };
        let after = Ticks { all: 1400, idle: 900 };
        assert!((after.busy_since(before) - 0.25).abs() < 1e-9);
        let now = Ticks::now().unwrap();
        assert!(now.all >= now.idle && now.busy_since(now) <= 1.0);
    }
}
