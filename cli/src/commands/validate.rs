//! `gw validate`.

use crate::exit::Code;

/// Arguments of `gw validate`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<Code> {
    anyhow::bail!("`gw validate` is not built yet")
}
