//! `gw serve`: run a config as a gateway.

mod dev;
mod load;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gw_runtime::model::gateway::RouterFlavor;
use gw_runtime::server::{Options, Server};
use gw_runtime::telemetry::access_log::Log;
use gw_runtime::upstream::dns::Override;
use ipnet::IpNet;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Code, WithCode};
use crate::output::print;
use crate::render;
use load::Loader;

/// Arguments of `gw serve`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gw serve kong.yaml --listen 0.0.0.0:8000 --listen-tls 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
  gw serve --dev kong.yaml      the same config on a laptop, and what to try with it

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
    /// Which of Kong's routers the config was written for [default: the config's, else traditional_compatible]
    #[arg(long, value_enum, value_name = "FLAVOR")]
    pub router_flavor: Option<Flavor>,
    /// Leave out plugins of Kong that gw does not have, with a warning, instead of refusing the config
    #[arg(long)]
    pub allow_unsupported: bool,
    /// Try a production config on this machine: stand-ins for upstreams and Redis that cannot be reached, HTTPS with a
    /// development certificate, and a request to try for each route. For nothing but development
    #[arg(long)]
    pub dev: bool,
    /// Read the config again whenever it changes
    #[arg(long)]
    pub watch: bool,
}

/// Kong's routers.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
#[value(rename_all = "snake_case")]
pub enum Flavor {
    TraditionalCompatible,
    Traditional,
    Expressions,
}

impl From<Flavor> for RouterFlavor {
    fn from(flavor: Flavor) -> Self {
        match flavor {
            Flavor::TraditionalCompatible => Self::TraditionalCompatible,
            Flavor::Traditional => Self::Traditional,
            Flavor::Expressions => Self::Expressions,
        }
    }
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let loader = Loader::new(&args)?;
    let Some(snapshot) = loader.load()? else { return Ok(Code::Findings) };
    let gateway = snapshot.gateway.clone();
    let (listeners, notes) = match &loader.dev {
        Some(_) => dev::bind(&args, &gateway)?,
        None => (settings::listeners(&args, &gateway)?, Vec::new()),
    };
    let options = Options {
        listeners,
        workers: settings::workers(&args, &gateway),
        admin: settings::admin(&args, &gateway)?,
        overrides: loader.overrides(&args),
        log: settings::log(&args, &gateway)?,
    };
    settings::raise_file_limit();
    serve(snapshot, options, &loader, &args, &notes)
}

/// Serves until a signal ends it.
fn serve(
    snapshot: gw_runtime::snapshot::Snapshot,
    options: Options,
    loader: &Loader,
    args: &Args,
    notes: &[String],
) -> anyhow::Result<Code> {
    let log: Option<Log> = options.log.clone();
    let tls: Vec<bool> = options.listeners.iter().map(|l| l.tls).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anybody can see that the gateway is there: a signal without a handler ends the process.
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    let server = Server::start(snapshot, options)
        .map_err(|e| WithCode(Code::Environment, format!("cannot start: {e}")))?;
    let listening: Vec<(SocketAddr, bool)> = server.addrs.iter().copied().zip(tls).collect();
    match &loader.dev {
        Some(dev) => print(&dev.banner(&listening, notes, render::colour()))?,
        None => {
            for (addr, tls) in listening {
                eprintln!("listening on {}://{addr}", if tls { "https" } else { "http" });
            }
        }
    }
    runtime.block_on(signals.obey(&server, loader, args));
    eprintln!("draining");
    server.drain();
    if let Some(log) = log {
        log.close(Duration::from_secs(2));
    }
    Ok(Code::Ok)
}

/// What the process is told from outside.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// From now on signals are heard.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the end, reloading whenever that is asked for.
    async fn obey(mut self, server: &Server, loader: &Loader, args: &Args) {
        let mut poll = tokio::time::interval(Duration::from_secs(1));
        let mut seen = loader.fingerprint();
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hup.recv() => {
                    seen = loader.fingerprint();
                    reload(server, loader, args);
                }
                _ = poll.tick(), if args.watch => {
                    let now = loader.fingerprint();
                    if now != seen {
                        seen = now;
                        reload(server, loader, args);
                    }
                }
            }
        }
    }
}

/// All or nothing: a config with errors leaves the running one in force.
fn reload(server: &Server, loader: &Loader, args: &Args) {
    match loader.load() {
        Ok(Some(snapshot)) => {
            server.common.resolver.redirect(loader.overrides(args));
            eprintln!("reloaded: config {} is in force", server.publish(snapshot));
            if let Some(changes) = loader.dev.as_ref().and_then(|d| d.changes(render::colour())) {
                eprint!("{changes}");
            }
        }
        Ok(None) => eprintln!("not reloaded: the config has errors, the running one stays in force"),
        Err(e) => eprintln!("not reloaded: {e:#}; the running config stays in force"),
    }
}
