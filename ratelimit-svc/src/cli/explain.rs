//! `explain`: which rule a request would meet, and why. Uses the very code that decides, with the
//! switches of the environment that a service would have.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use chassis::process::EXIT_USAGE;

use crate::cli::{check, only_domain};
use crate::config::{self, Environment};
use crate::decide::request::Request;
use crate::explain;
use crate::json::{BODY_BYTES_MAX, WireRequest};
use crate::limits::quotas::Quotas;

/// Which request.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Quota files, or directories of them, read as one configuration.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Let several files define one domain, as MERGE_DOMAIN_CONFIG does.
    #[arg(long)]
    pub merge_domains: bool,
    /// The domain of the request; the only one of the files where it is not given.
    #[arg(long)]
    pub domain: Option<String>,
    /// A descriptor as key=value,key=value; give it again for each descriptor.
    #[arg(long = "descriptor", required_unless_present = "json", value_name = "K=V,...")]
    pub descriptors: Vec<String>,
    /// A file with the whole request as JSON, as /json takes it; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domain", "descriptors"])]
    pub json: Option<PathBuf>,
}

/// Prints the explanation.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn run(args: &Args, environment: &Environment) -> ExitCode {
    let quotas = match check::quotas(&args.files, args.merge_domains) {
        Ok(quotas) => quotas,
        Err(faults) => {
            eprint!("{faults}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match explain(args, &quotas, environment, now) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// The explanation as text.
///
/// # Errors
/// When the request cannot be one, or a variable cannot work.
pub fn explain(
    args: &Args,
    quotas: &Quotas,
    environment: &Environment,
    now_seconds: u64,
) -> Result<String, String> {
    let settings = config::settings(environment).map_err(|error| error.to_string())?;
    let key_prefix = environment.get("CACHE_KEY_PREFIX").map_or("", String::as_str);
    let read = args.json.as_deref().map(json_request).transpose()?;
    let only = only_domain::of_quotas(quotas);
    let request = match &read {
        Some(read) => read.request(),
        None => {
            let descriptors = args.descriptors.iter().map(|text| explain::descriptor(text));
            let domain = args.domain.as_deref().map_or(only, Ok)?;
            Request { domain, descriptors: descriptors.collect::<Result<_, _>>()?, hits_addend: 1 }
        }
    };
    explain::text(&request, quotas, &settings, key_prefix, now_seconds)
}

/// The request that a file holds.
fn json_request(path: &Path) -> Result<WireRequest, String> {
    let cannot = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
    let mut bytes = Vec::new();
    match path.to_str() {
        Some("-") => {
            std::io::stdin().lock().take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)
        }
        _ => std::fs::File::open(path)
            .and_then(|file| file.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)),
    }
    .map_err(cannot)?;
    if bytes.len() > BODY_BYTES_MAX {
        return Err(format!("{}: is larger than {BODY_BYTES_MAX} bytes", path.display()));
    }
    WireRequest::read(&bytes).map_err(|problem| format!("{}: {problem}", path.display()))
}
