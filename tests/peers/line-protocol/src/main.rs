//! Parses a file of line protocol with the crate `influxdb-line-protocol`, over and over, and
//! prints megabytes for each second of CPU, one line for each round. Not part of Tidegate.

use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("line-protocol-peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: line-protocol-peer FILE POINTS TIMES ROUNDS";
    let text = std::fs::read_to_string(args.next().ok_or(usage)?)?;
    let mut number = || args.next().and_then(|arg| arg.parse::<usize>().ok()).ok_or(usage);
    let (points, times, rounds) = (number()?, number()?, number()?);
    for _ in 0..rounds {
        let before = cpu_nanos()?;
        for _ in 0..times {
            let lines = influxdb_line_protocol::parse_lines(std::hint::black_box(&text));
            let parsed = lines.filter(Result::is_ok).count();
            if parsed != points {
                return Err(format!("{parsed} of {points} points").into());
            }
        }
        let seconds = (cpu_nanos()? - before) as f64 / 1e9;
        println!("{}", (text.len() * times) as f64 / 1e6 / seconds);
    }
    Ok(())
}

/// CPU of this thread.
fn cpu_nanos() -> Result<u64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("no schedstat")?.parse()?)
}
