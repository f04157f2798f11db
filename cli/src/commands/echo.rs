//! `gw echo`.

use crate::exit::Code;

/// Arguments of `gw echo`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<Code> {
    anyhow::bail!("`gw echo` is not built yet")
}
