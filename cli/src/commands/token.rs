//! `gw token`.

use crate::exit::Code;

/// Arguments of `gw token`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<Code> {
    anyhow::bail!("`gw token` is not built yet")
}
