//! Printing what came out.

use std::io::Write;

use anyhow::Result;

/// Prints to stdout.
///
/// # Errors
/// When nobody reads it any more.
pub fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
