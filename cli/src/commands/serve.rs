//! `gw serve`.

use crate::exit::Code;

/// Arguments of `gw serve`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<Code> {
    anyhow::bail!("`gw serve` is not built yet")
}
