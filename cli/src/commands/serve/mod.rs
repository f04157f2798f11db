//! `gw serve`: run a config as a gateway.

mod control;
mod dev;
mod load;
mod settings;
mod takeover;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gw_runtime::admin::{self, config::Submission};
use gw_runtime::model::gateway::{Address, RouterFlavor};
use gw_runtime::server::{Options, Server};
use gw_runtime::telemetry::access_log::Log;
use gw_runtime::upstream::dns::Override;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

use crate::exit::{Code, WithCode};
use crate::output::print;
use crate::render;
use control::{Control, Signals};
use load::{Loaded, Loader};
use takeover::{Sockets, Takeover};

/// Arguments of `gw serve`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gw serve kong.yaml --listen-tls 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
  gw serve --dev kong.yaml      the same config on a laptop, and what to try with it

Signals: SIGTERM and SIGINT finish what is in flight and exit 0, a second one ends at once; SIGHUP reads the config and \
the certificates again, and bad ones change nothing.
Exit codes: 0 after draining, 1 for a config with errors, 2 for wrong usage, 3 where a port or file is refused.")]
pub struct Args {
    /// The config; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Listen for HTTP/1 and HTTP/2 without TLS here, or on a Unix socket with `unix:/PATH` (repeatable) [default: the
    /// config's, else 0.0.0.0:8000]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<Address>,
    /// Listen for TLS here (repeatable)
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen_tls: Vec<SocketAddr>,
    /// The certificate chain (PEM) for names that the config has none for
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve health, readiness, metrics and the config's status here; a config is taken there from this machine only
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
    /// With `--dev`: what stands in for upstreams answers this (see `gw echo --help`), instead of what it is asked
    #[arg(long, value_name = "FILE", requires = "dev")]
    pub answers: Option<PathBuf>,
    /// Take the sockets of the gateway that was started with the same PATH, serve, and let it end; then wait there for the
    /// next one. No connection is refused meanwhile
    #[arg(long, value_name = "PATH", conflicts_with = "dev")]
    pub takeover: Option<PathBuf>,
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
    let Loaded { snapshot: Some(snapshot), hash, .. } = loader.load()? else { return Ok(Code::Findings) };
    let gateway = snapshot.gateway.clone();
    let mut takeover = args.takeover.as_deref().map(Takeover::ask).transpose()?.unwrap_or_default();
    let (listeners, notes) = match &loader.dev {
        Some(_) => dev::bind(&args, &gateway)?,
        None => (settings::listeners(&args, &gateway, &mut takeover)?, Vec::new()),
    };
    let (submit, submissions) = mpsc::channel(1);
    let admin = settings::admin(&args, &gateway, &mut takeover)?;
    let sockets = match &args.takeover {
        Some(_) => Sockets::of(&listeners, admin.as_ref().map(|(addr, socket)| (*addr, socket)))?,
        None => Sockets::default(),
    };
    let admin = admin.map(|(_, socket)| {
        let shared = std::sync::Arc::clone(loader.shared());
        admin::Options { socket, submissions: submit, shared }
    });
    let options = Options {
        listeners,
        workers: settings::workers(&args, &gateway),
        admin,
        overrides: loader.overrides(&args),
        log: settings::log(&args, &gateway)?,
        connections_max: settings::connections_max(),
        hash,
    };
    gw_runtime::panics::install();
    // Dropped after everything else: what was counted last is written then.
    let _keeper = settings::keeper(&args, &gateway, loader.shared())?;
    let place = Place { submissions, takeover, sockets };
    if !serve(snapshot, options, place, &loader, &args, &notes)? {
        // Asked to end at once: the stand-ins of `--dev` would finish what they are doing first.
        std::mem::forget(loader);
    }
    Ok(Code::Ok)
}

/// What reaches the gateway from outside, beside signals.
struct Place {
    submissions: mpsc::Receiver<Submission>,
    takeover: Takeover,
    sockets: Sockets,
}

/// Serves until a signal ends it. Tells whether what was in flight was finished.
fn serve(
    snapshot: gw_runtime::snapshot::Snapshot,
    options: Options,
    mut place: Place,
    loader: &Loader,
    args: &Args,
    notes: &[String],
) -> anyhow::Result<bool> {
    let log: Option<Log> = options.log.clone();
    let tls: Vec<bool> = options.listeners.iter().map(|l| l.asked.tls).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anybody can see that the gateway is there: a signal without a handler ends the process.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::catch()?
    };
    let begun = snapshot.gateway.clone();
    let server = Server::start(snapshot, options)
        .map_err(|e| WithCode(Code::Environment, format!("cannot start: {e}")))?;
    let listening: Vec<(Address, bool)> = server.addrs.iter().cloned().zip(tls).collect();
    match &loader.dev {
        Some(dev) => print(&dev.banner(&listening, notes, render::colour()))?,
        None => {
            for (addr, tls) in listening {
                match addr {
                    Address::Unix(_) => eprintln!("listening on {addr}"),
                    Address::Ip(_) => {
                        eprintln!("listening on {}://{addr}", if tls { "https" } else { "http" })
                    }
                }
            }
        }
    }
    let succeeded = match &args.takeover {
        Some(path) => Some(stand_by(&mut place.takeover, std::mem::take(&mut place.sockets), path)?),
        None => None,
    };
    let control = Control { server: &server, loader, args, begun };
    runtime.block_on(control.run(&mut signals, place.submissions, succeeded));
    eprintln!("draining; a second signal ends at once");
    let (done, drained) = oneshot::channel();
    std::thread::spawn(move || {
        server.drain();
        let _ = done.send(());
    });
    let complete = runtime.block_on(async {
        tokio::select! {
            _ = drained => true,
            () = signals.end() => false,
        }
    });
    if let Some(log) = log {
        log.close(if complete { Duration::from_secs(2) } else { Duration::from_millis(100) });
    }
    Ok(complete)
}

/// Lets the gateway go whose sockets these were, and waits in its place for the next one.
fn stand_by(takeover: &mut Takeover, sockets: Sockets, path: &Path) -> anyhow::Result<mpsc::Receiver<()>> {
    let taken = takeover.is_from_another();
    let stands = takeover.done().and_then(|()| takeover.offer(sockets)).map_err(|e| {
        WithCode(Code::Environment, format!("cannot wait at {} for a successor: {e}", path.display()))
    })?;
    if taken {
        eprintln!("took over from the gateway at {}, which drains now", path.display());
    }
    Ok(stands)
}
