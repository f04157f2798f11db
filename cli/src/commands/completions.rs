//! `gw completions`.

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::exit::Code;

/// Arguments of `gw completions`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The shell to complete for
    shell: clap_complete::Shell,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    clap_complete::generate(args.shell, &mut Cli::command(), "gw", &mut std::io::stdout());
    Ok(Code::Ok)
}
