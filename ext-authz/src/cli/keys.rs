//! `ext-authz keys`.
use clap::Subcommand;
/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// List keys.
    List,
}
impl Command {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<()> {
        Ok(())
    }
}
