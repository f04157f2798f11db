//! `gw bench`.

use crate::exit::Code;

/// Arguments of `gw bench`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<Code> {
    anyhow::bail!("`gw bench` is not built yet")
}
