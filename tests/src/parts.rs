//! The real parts: where their programs are and how each is started on a free port.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

pub mod authz;
pub mod envoy;
pub mod influxdb;
pub mod kafka;
pub mod prometheus;
pub mod redis;

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Where `make parts` puts what is not a Debian package.
pub fn parts_dir() -> PathBuf {
    workspace().join("target/parts")
}

/// Finds a program on the PATH.
///
/// # Errors
/// When it is not there; the message says what to install.
pub fn on_path(program: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    match places.into_iter().map(|place| place.join(program)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{program} is missing: apt-get install {package}"),
    }
}
