//! The process around the service: arguments, environment, signals and the exit code.

use std::process::ExitCode;

use ratelimit_svc::cli;

// A call allocates some twenty times, HTTP/2 most of them; this allocator takes a tenth off the
// cost of a bare one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    chassis::tls::install_provider();
    match chassis::process::parse_args::<cli::Args>() {
        Ok(args) => cli::run(args, std::env::vars()),
        Err(code) => code,
    }
}
