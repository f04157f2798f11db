//! `gw certs`: certificates for development.

mod make;
mod p12;
mod renew;
mod show;

use std::path::PathBuf;

use crate::certs::{Broken, LEAF_DAYS, MAX_LEAF_DAYS};
use crate::exit::Code;

/// Arguments of `gw certs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  gw certs init
  gw certs server --config kong.yaml
  gw serve kong.yaml --listen-tls 127.0.0.1:8443 --tls-cert certs/server.pem --tls-key certs/server-key.pem
  curl --cacert certs/ca.pem https://localhost:8443/

Keys are readable by their owner alone. Existing files are kept unless `--force` says otherwise.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Make a development authority: `ca.pem` and `ca-key.pem`
    Init(Init),
    /// Make a server certificate for localhost and further hosts
    Server(Server),
    /// Make a client certificate for mutual TLS
    Client(Client),
    /// Describe the certificates in a file
    Show(Show),
    /// Put a certificate, its key and the authority's certificate into one file, as browsers and Java import it
    P12(P12),
    /// Make certificates anew, for the same names, before they expire
    Renew(Renew),
}

/// Where files go.
#[derive(clap::Args, Debug)]
struct Folder {
    /// The folder of the authority and of what it signs
    #[arg(long, value_name = "DIR", default_value = "certs", visible_alias = "dir")]
    out: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args, Debug)]
struct Init {
    /// A domain that the authority may sign for too, besides local names and private addresses; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    allow: Vec<String>,
    /// Let the authority sign for any name: whoever has its key can then pass for any host
    #[arg(long, conflicts_with = "allow")]
    unconstrained: bool,
    #[command(flatten)]
    folder: Folder,
}

#[derive(clap::Args, Debug)]
struct Server {
    /// A host name (`*.example.test` too) or IP address besides localhost; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Take the hosts and SNIs of this config's routes too
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The files' name
    #[arg(long, default_value = "server", value_parser = file_name)]
    name: String,
    /// Days until it expires
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LEAF_DAYS)))]
    days: u32,
    /// Make one that must be refused, for this reason, to see that it is
    #[arg(long, value_enum)]
    broken: Option<Broken>,
    #[command(flatten)]
    folder: Folder,
}

#[derive(clap::Args, Debug)]
struct Client {
    /// Who the client is: a host name, mail address or URI
    #[arg(long = "id", value_name = "ID", default_value = "client")]
    ids: Vec<String>,
    /// The files' name
    #[arg(long, default_value = "client", value_parser = file_name)]
    name: String,
    /// Days until it expires
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LEAF_DAYS)))]
    days: u32,
    /// Make one that must be refused, for this reason, to see that it is
    #[arg(long, value_enum)]
    broken: Option<Broken>,
    #[command(flatten)]
    folder: Folder,
}

#[derive(clap::Args, Debug)]
struct Show {
    /// A PEM file; `-` is standard input
    file: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct Renew {
    /// Names of certificates in the folder (`server`); all that end within 30 days if none is given
    names: Vec<String>,
    /// The folder of the authority and of what it signed
    #[arg(long, value_name = "DIR", default_value = "certs", visible_alias = "dir")]
    out: PathBuf,
    /// Renew also what is good for more than 30 days
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args, Debug)]
struct P12 {
    /// The certificate's name in the folder (`client`)
    #[arg(default_value = "client", value_parser = file_name)]
    name: String,
    #[command(flatten)]
    folder: Folder,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    match args.command {
        Command::Init(args) => make::init(&args),
        Command::Server(args) => make::server(&args),
        Command::Client(args) => make::client(&args),
        Command::Show(args) => show::run(&args),
        Command::P12(args) => p12::run(&args),
        Command::Renew(args) => renew::run(&args),
    }
}

/// A name that stays within the folder.
fn file_name(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || text.starts_with('.') || !text.bytes().all(fits) {
        return Err("a name has letters, digits, `-`, `_` and `.`, and does not begin with `.`".into());
    }
    if text == "ca" || text.ends_with("-key") {
        return Err("this name is taken by the authority's or a key's file".into());
    }
    Ok(text.to_owned())
}
