//! Which build this is, for `--version`, logs and the `…_build_info` metric.

/// The version of the workspace, as in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
