//! Runs the whole edge on this machine, on embedded or on real parts.

use std::process::ExitCode;

use clap::Parser;
use tests::edge::Parts;

/// Runs the whole Tidegate edge on this machine until Ctrl-C.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Stand on Redis, Apache Kafka and InfluxDB instead of memory, disk and a file
    #[arg(long)]
    full: bool,
    /// How many processes of each service stand behind the one Envoy
    #[arg(long, env = "REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    replicas: u16,
    /// Port for clients; 8080 when free, else any
    #[arg(long, env = "EDGE_PORT")]
    port: Option<u16>,
    /// Where configuration, data and logs go; emptied first
    #[arg(long, default_value = "target/run")]
    dir: std::path::PathBuf,
}

fn main() -> ExitCode {
    let args: Args = match chassis::process::parse_args() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let parts = if args.full { Parts::Real } else { Parts::Embedded };
    let runtime = tokio::runtime::Runtime::new();
    let result = match runtime {
        Ok(runtime) => {
            runtime.block_on(tests::run::run(args.dir, parts, args.replicas.into(), args.port))
        }
        Err(error) => Err(error.into()),
    };
    chassis::process::exit("tidegate-edge", result)
}
