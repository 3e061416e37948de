//! Overloading Envoy at will: a file that it takes for pressure on a resource.

use std::path::PathBuf;

use anyhow::Result;

use super::Edge;

impl Edge {
    /// Tells Envoy how hard it is pressed, from 0 to 1; it refuses requests from 0.97 on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_pressure(&self, pressure: f64) -> Result<()> {
        // Envoy watches for renames.
        let (file, new) = (self.pressure_file(), self.options.dir.join("pressure.new"));
        std::fs::write(&new, pressure.to_string())?;
        Ok(std::fs::rename(&new, &file)?)
    }

    pub(super) fn pressure_file(&self) -> PathBuf {
        self.options.dir.join("pressure")
    }
}
