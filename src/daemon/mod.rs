//! Wires everything together and runs it.
pub mod config_file;

use crate::config::Config;

/// Runs the daemon until it is told to end.
pub fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
