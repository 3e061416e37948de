//! The machine that figures were taken on, for whoever reads them later.

use std::time::Duration;

use serde::Serialize;

/// A machine at the beginning of a run.
pub struct Beginning {
    quick: bool,
    load_before: String,
}

/// A machine and the conditions of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Processors that are ours.
    pub processors: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// The kernel's version.
    pub kernel: String,
    /// Load averages when the run began.
    pub load_before: String,
    /// Load averages when it ended.
    pub load_after: String,
    /// Time stolen by the hypervisor since the machine started, in hundredths of a second.
    pub stolen_ticks: u64,
    /// When the run ended, in seconds since 1970.
    pub unix_time: u64,
    /// How long the run took, in seconds.
    pub seconds: f64,
    /// The version of Tidegate.
    pub version: &'static str,
    /// Whether it was a quick run.
    pub quick: bool,
}

/// Looks at the machine before anything is measured.
pub fn describe(quick: bool) -> Beginning {
    Beginning { quick, load_before: load() }
}

impl Beginning {
    /// Looks again after everything was measured.
    pub fn finish(self, took: Duration) -> Machine {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let stat = read("/proc/stat");
        let stolen =
            stat.lines().next().and_then(|cpu| cpu.split_whitespace().nth(8)?.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Machine {
            processor: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: self.load_before,
            load_after: load(),
            stolen_ticks: stolen.unwrap_or(0),
            unix_time: now.unwrap_or_default().as_secs(),
            seconds: took.as_secs_f64(),
            version: chassis::build_info::VERSION,
            quick: self.quick,
        }
    }
}

impl Machine {
    /// One paragraph.
    pub fn text(&self) -> String {
        format!(
            "{} x {}, {} MiB, Linux {}; load average {} before and {} after; tidegate {}",
            self.processors,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.load_before,
            self.load_after,
            self.version
        )
    }
}

fn load() -> String {
    read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
