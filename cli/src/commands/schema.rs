//! `gw schema`: the shape of a config as JSON Schema, for editors.

use crate::exit::Code;
use crate::output;
use crate::reference::json_schema;

/// Arguments of `gw schema`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Write it to a file with `gw schema > gw.schema.json`. An editor with a YAML language server checks and completes a \
config that begins with the line
  # yaml-language-server: $schema=gw.schema.json")]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<Code> {
    output::print(&format!("{:#}\n", json_schema::config()))?;
    Ok(Code::Ok)
}
