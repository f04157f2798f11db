//! `gw serve`: run a config as a gateway.

mod load;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gw_runtime::server::{Options, Server};
use gw_runtime::telemetry::access_log::Log;
use gw_runtime::upstream::dns::Override;
use ipnet::IpNet;

use crate::exit::{Code, WithCode};
use load::Loader;

/// Arguments of `gw serve`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Signals: SIGTERM and SIGINT finish what is in flight and exit 0; SIGHUP reads the config again, and a bad one changes
nothing. Exit codes: 0 after draining, 1 for a config with errors, 2 for wrong usage, 3 where a port or file is refused.")]
pub struct Args {
    /// The config; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Listen for HTTP/1 and HTTP/2 without TLS here (repeatable) [default: the config's, else 0.0.0.0:8000]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Listen for TLS here (repeatable)
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen_tls: Vec<SocketAddr>,
    /// The certificate chain (PEM) for names that the config has none for
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve health, readiness and metrics here
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// Send connections for HOST:PORT to another address (repeatable; HOST and PORT may be `*`)
    #[arg(long, value_name = "HOST:PORT:ADDR:PORT")]
    pub resolve: Vec<Override>,
    /// Proxies whose word about the client is taken (repeatable)
    #[arg(long, value_name = "CIDR", value_parser = settings::network)]
    pub trusted_ip: Vec<IpNet>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Where one JSON line a request goes: `stdout`, `off` or a file [default: the config's, else off]
    #[arg(long, value_name = "WHERE")]
    pub access_log: Option<String>,
    /// Leave out plugins of Kong that gw does not have, with a warning, instead of refusing the config
    #[arg(long)]
    pub allow_unsupported: bool,
    /// Read the config again whenever it changes
    #[arg(long)]
    pub watch: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let loader = Loader::new(&args)?;
    let Some(snapshot) = loader.load()? else { return Ok(Code::Findings) };
    let gateway = snapshot.gateway.clone();
    let listeners = settings::listeners(&args, &gateway)?;
    let options = Options {
        listeners,
        workers: settings::workers(&args, &gateway),
        admin: settings::admin(&args, &gateway)?,
        overrides: args.resolve.clone(),
        log: settings::log(&args, &gateway)?,
    };
    settings::raise_file_limit();
    serve(snapshot, options, &loader, args.watch)
}

/// Serves until a signal ends it.
fn serve(
    snapshot: gw_runtime::snapshot::Snapshot,
    options: Options,
    loader: &Loader,
    watch: bool,
) -> anyhow::Result<Code> {
    let log: Option<Log> = options.log.clone();
    let tls: Vec<bool> = options.listeners.iter().map(|l| l.tls).collect();
    let server = Server::start(snapshot, options)
        .map_err(|e| WithCode(Code::Environment, format!("cannot start: {e}")))?;
    for (addr, tls) in server.addrs.iter().zip(tls) {
        eprintln!("listening on {}://{addr}", if tls { "https" } else { "http" });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(signals(&server, loader, watch))?;
    eprintln!("draining");
    server.drain();
    if let Some(log) = log {
        log.close(Duration::from_secs(2));
    }
    Ok(Code::Ok)
}

/// Waits for the end, reloading whenever that is asked for.
async fn signals(server: &Server, loader: &Loader, watch: bool) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut poll = tokio::time::interval(Duration::from_secs(1));
    let mut seen = loader.fingerprint();
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
            _ = hup.recv() => {
                seen = loader.fingerprint();
                reload(server, loader);
            }
            _ = poll.tick(), if watch => {
                let now = loader.fingerprint();
                if now != seen {
                    seen = now;
                    reload(server, loader);
                }
            }
        }
    }
}

/// All or nothing: a config with errors leaves the running one in force.
fn reload(server: &Server, loader: &Loader) {
    match loader.load() {
        Ok(Some(snapshot)) => eprintln!("reloaded: config {} is in force", server.publish(snapshot)),
        Ok(None) => eprintln!("not reloaded: the config has errors, the running one stays in force"),
        Err(e) => eprintln!("not reloaded: {e:#}; the running config stays in force"),
    }
}
