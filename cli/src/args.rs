//! The command line: one variant a verb; each verb's arguments stand in its own file.

use clap::{Parser, Subcommand};

use crate::commands;

/// An API gateway toolkit: compile and lint a declarative gateway config, serve it, load-test it.
#[derive(Parser, Debug)]
#[command(name = "gw", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Compile a config and report every mistake and risk in it
    Validate(commands::validate::Args),
    /// Run a config as a gateway
    Serve(Box<commands::serve::Args>),
    /// Make and look at development certificates
    Certs(commands::certs::Args),
    /// Mint, inspect and explain test tokens
    Token(commands::token::Args),
    /// Load-test a gateway and prove that its limits hold
    Bench(Box<commands::bench::Args>),
    /// Report who has used how much of which limit
    Usage(commands::usage::Args),
    /// Run a small upstream that answers what it received
    Echo(commands::echo::Args),
    /// Explain a finding, what becomes of a request, or the settings in force
    Explain(commands::explain::Args),
    /// Print the JSON Schema of a config, for editors
    Schema(commands::schema::Args),
    /// Write the generated documentation
    #[command(hide = true)]
    Docs(commands::docs::Args),
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
