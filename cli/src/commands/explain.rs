//! `gw explain`.

use crate::exit::Code;

/// Arguments of `gw explain`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<Code> {
    anyhow::bail!("`gw explain` is not built yet")
}
