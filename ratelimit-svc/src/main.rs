//! The process around the service: arguments, environment, signals and the exit code.

use std::process::ExitCode;

use ratelimit_svc::cli;

fn main() -> ExitCode {
    match chassis::process::parse_args::<cli::Args>() {
        Ok(args) => cli::run(args, std::env::vars()),
        Err(code) => code,
    }
}
