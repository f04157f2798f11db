//! `gw`: arguments to commands to exit codes. Everything else lives in a command's own file.

mod args;
mod certs;
mod commands;
mod echo;
mod exit;
mod load;
mod output;
mod reference;
mod render;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // One cryptography provider for everything: TLS, certificates, tokens.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = args::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  caused by: {cause}");
            }
            exit::of(&error).into()
        }
    }
}
