//! One file a verb: its arguments and its `run`.

pub mod bench;
pub mod certs;
pub mod completions;
pub mod docs;
pub mod echo;
pub mod explain;
pub mod schema;
pub mod serve;
pub mod token;
pub mod usage;
pub mod validate;

use crate::args::{Cli, Command};
use crate::exit::Code;

/// Runs the verb that was asked for.
pub fn run(cli: Cli) -> anyhow::Result<Code> {
    match cli.command {
        Command::Validate(args) => validate::run(args),
        Command::Serve(args) => serve::run(*args),
        Command::Certs(args) => certs::run(args),
        Command::Token(args) => token::run(args),
        Command::Bench(args) => bench::run(*args),
        Command::Usage(args) => usage::run(&args),
        Command::Echo(args) => echo::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Docs(args) => docs::run(args),
        Command::Completions(args) => completions::run(args),
    }
}
