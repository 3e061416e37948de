//! The life of a service process, from its arguments to its exit code.
//!
//! Exit codes: 0 for an orderly end, 64 for settings that cannot work (`EX_USAGE` of
//! sysexits.h), 1 for anything else that stopped it.

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;

use crate::config::ConfigError;
use crate::drain::{DrainTimes, Shutdown, drain_on_signal, drain_when_broken};
use crate::readiness::Readiness;

/// The exit code for bad flags, environment or configuration.
pub const EXIT_USAGE: u8 = 64;

/// A setting that cannot work, with the sentence that says which and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Parses the command line, or ends the process: 0 after `--help`, 64 for bad flags.
pub fn parse_args<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        // Nothing can be done when the message cannot be printed.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
    })
}

/// Turns the end of `main` into an exit code, printing an error with its causes on one line.
#[allow(clippy::print_stderr)]
pub fn exit(program: &str, result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("{program}: {error:#}");
    let usage = error.chain().any(|cause| cause.is::<UsageError>() || cause.is::<ConfigError>());
    ExitCode::from(if usage { EXIT_USAGE } else { 1 })
}

/// Opens a listener, or says in one line which address could not be had.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Runs `service` until a signal drains it, it ends by itself, or something vital panicked, which
/// drains it too; then waits for it up to the drain timeout.
///
/// # Errors
/// The service's own error, what panicked, or that it did not end in time.
pub async fn run_until_drained<F>(
    service: F,
    readiness: Readiness,
    shutdown: Shutdown,
    times: DrainTimes,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    tokio::pin!(service);
    let broken = tokio::select! {
        ended = &mut service => return ended,
        signalled = drain_on_signal(&readiness, &shutdown, times) => {
            signalled?;
            None
        }
        broken = drain_when_broken(&readiness, &shutdown, times) => Some(broken),
    };
    match tokio::time::timeout(times.timeout, service).await {
        Ok(ended) => {
            tracing::info!("drained");
            broken.map_or(ended, |broken| Err(anyhow::anyhow!("{broken} has panicked")))
        }
        Err(_) => anyhow::bail!(
            "work was still open {} s after the listeners closed",
            times.timeout.as_secs_f64()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_panics_drains_the_process_and_ends_it_with_an_error() {
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        let serving = {
            let shutdown = shutdown.clone();
            async move {
                shutdown.begun().await;
                Ok(())
            }
        };
        let vital = readiness.vital("following the files");
        let panicking = tokio::spawn(async move {
            let _vital = vital;
            panic!("as a bug would");
        });
        let times = DrainTimes { delay: Duration::from_secs(5), timeout: Duration::from_secs(20) };
        let running = run_until_drained(serving, readiness.clone(), shutdown, times);
        let error = running.await.expect_err("it cannot go on").to_string();
        assert_eq!(error, "following the files has panicked");
        assert!(!readiness.is_ready());
        panicking.await.expect_err("it panics");
    }
}
