//! `gw certs`.

use crate::exit::Code;

/// Arguments of `gw certs`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<Code> {
    anyhow::bail!("`gw certs` is not built yet")
}
