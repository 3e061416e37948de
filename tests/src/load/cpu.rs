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
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("no VmRSS in /proc/PID/status")? * 1024)
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
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
        assert!(of_process(u32::MAX).is_err());
    }
}
