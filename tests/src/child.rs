//! Processes that we start: their logs, their signals, and their certain end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

use crate::wait::{DEADLINE, wait_for};

/// A running process, killed when dropped.
pub struct Child {
    name: String,
    process: Process,
    log: PathBuf,
}

impl Child {
    /// Starts a program with its output going to `<dir>/<name>.log`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(name: &str, dir: &Path, command: Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        // The kernel ends the process with us, however we end.
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL", "--"]);
        bound.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => bound.env(key, value),
                None => bound.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            bound.current_dir(directory);
        }
        // A dump of Envoy or ext-authz would hold the keys of the requests in flight.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Core, none).context("cannot turn core dumps off")?;
        // Out of our process group, so that Ctrl-C reaches us alone and the end is ours to order.
        use std::os::unix::process::CommandExt;
        bound.process_group(0).stdin(Stdio::null());
        bound.stdout(file.try_clone()?).stderr(file);
        let process = spawn(bound).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), process, log })
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// All it has printed so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid() as i32).context("a process has a positive id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it has not ended within the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait_for(&what, deadline, async || self.ended()).await
    }

    /// Polls `condition` until it gives a value, for what the process is to do once it has started.
    ///
    /// # Errors
    /// When there is none within [`DEADLINE`], and as soon as the process has ended.
    pub async fn until<T, F>(&mut self, what: &str, mut condition: F) -> Result<T>
    where
        F: AsyncFnMut() -> Option<T>,
    {
        let polled = wait_for(what, DEADLINE, async || match condition().await {
            Some(value) => Some(Ok(value)),
            None => self.check_alive().err().map(Err),
        });
        polled.await?
    }

    /// SIGTERM, then SIGKILL if it takes longer than the deadline.
    pub async fn stop(mut self, deadline: Duration) {
        if self.signal(Signal::TERM).is_ok() {
            // Dropping kills what is left.
            let _ = self.wait(deadline).await;
        }
    }

    /// Fails with the end of the log if the process has ended already.
    ///
    /// # Errors
    /// When it has.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.ended() else { return Ok(()) };
        let output = self.output();
        let tail: Vec<&str> = output.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!(
            "{} ended with {status}; {} ends with:\n{}",
            self.name,
            self.log.display(),
            tail.join("\n")
        )
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a command on a thread that lives as long as we do: the kernel's parent-death signal
/// follows the thread that started a process, not its process.
fn spawn(command: Command) -> Result<Process> {
    type Answer = mpsc::Sender<std::io::Result<Process>>;
    static SPAWNER: OnceLock<mpsc::Sender<(Command, Answer)>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<(Command, Answer)>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                // The receiver waits below.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (sender, receiver) = mpsc::channel();
    spawner.send((command, sender)).context("the spawner thread is gone")?;
    Ok(receiver.recv().context("the spawner thread is gone")??)
}
