//! The load generator, the yardstick and the benchmarks as one command.
//!
//! It keeps the allocator of the C library: the echo that it serves is the yardstick of the
//! services, which have one of their own.

use std::process::ExitCode;

use tests::load::cli::Cli;

fn main() -> ExitCode {
    let cli: Cli = match chassis::process::parse_args() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.run() {
        Ok(code) => code,
        Err(error) => chassis::process::exit("tidegate-load", Err(error)),
    }
}
