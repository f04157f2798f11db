//! What flags and file say about the process, resolved: flags win over the file, the file over defaults.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use gw_runtime::limit::LocalStore;
use gw_runtime::limit::counter_file::{CounterFile, Keeper};
use gw_runtime::model::Gateway;
use gw_runtime::model::gateway::{self, AccessLog, Address};
use gw_runtime::snapshot::shared::Shared;
use gw_runtime::telemetry::access_log::Log;
use gw_runtime::worker::listen::{self, Listener, Socket};
use ipnet::IpNet;

use super::Args;
use super::dev::Readable;
use super::takeover::Takeover;
use crate::exit::{Code, WithCode};
use crate::render;

/// A CIDR or a single address.
pub fn network(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .ok_or_else(|| "expected an address or a network such as 10.0.0.0/8".to_owned())
}

/// Binds every listener.
pub fn listeners(args: &Args, gateway: &Gateway, takeover: &mut Takeover) -> Result<Vec<Listener>, WithCode> {
    let mut all = Vec::new();
    for wanted in wanted(args, gateway)? {
        let Some(given) = takeover.listener(wanted.tls, &wanted.addr) else {
            all.push(bind(&wanted)?);
            continue;
        };
        let socket = match wanted.addr {
            Address::Ip(_) => Socket::Tcp(Arc::new(given.into())),
            Address::Unix(_) => Socket::Unix(Arc::new(given.into())),
        };
        all.push(Listener::new(&wanted, socket).map_err(|e| {
            WithCode(Code::Environment, format!("the socket for {} is no use: {e}", wanted.addr))
        })?);
    }
    Ok(all)
}

/// What is to be listened on: what the flags say, else the config, else Kong's port.
fn wanted(args: &Args, gateway: &Gateway) -> Result<Vec<gateway::Listener>, WithCode> {
    let clear = args.listen.iter().map(|a| gateway::Listener::new(a.clone(), false));
    let tls = args.listen_tls.iter().map(|a| gateway::Listener::new(Address::Ip(*a), true));
    let mut wanted: Vec<_> = clear.chain(tls).collect();
    if wanted.is_empty() {
        wanted.clone_from(&gateway.listeners);
    }
    if wanted.is_empty() {
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 8000));
        wanted.push(gateway::Listener::new(Address::Ip(everywhere), false));
    }
    let proxied = |l: &&gateway::Listener| l.proxy_protocol && matches!(l.addr, Address::Ip(_));
    if let Some(l) = wanted.iter().find(proxied).filter(|_| gateway.trusted_ips.is_empty()) {
        let message = format!(
            "the listener {} asks for `proxy_protocol`, but nobody is trusted to speak it: name the balancers in \
             `gateway.trusted_ips` or with --trusted-ip",
            l.addr
        );
        return Err(WithCode(Code::Usage, message));
    }
    Ok(wanted)
}

/// Binds one listener.
pub fn bind(wanted: &gateway::Listener) -> Result<Listener, WithCode> {
    listen::bind(wanted).map_err(|e| {
        let unix = matches!(wanted.addr, Address::Unix(_));
        let hint = match e.kind() {
            std::io::ErrorKind::AddrInUse if unix => ": another process listens there, or it is no socket",
            std::io::ErrorKind::AddrInUse if wanted.tls => {
                ": another process listens there; choose another with --listen-tls"
            }
            std::io::ErrorKind::AddrInUse => ": another process listens there; choose another with --listen",
            std::io::ErrorKind::PermissionDenied if !unix => ": ports below 1024 need privileges",
            _ => "",
        };
        WithCode(Code::Environment, format!("cannot listen on {}: {e}{hint}", wanted.addr))
    })
}

/// Worker threads.
pub fn workers(args: &Args, gateway: &Gateway) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    match args.workers.unwrap_or(gateway.workers) {
        0 => cores(),
        n => n,
    }
}

/// Binds the admin listener, if there is one.
pub fn admin(
    args: &Args,
    gateway: &Gateway,
    takeover: &mut Takeover,
) -> Result<Option<(SocketAddr, TcpListener)>, WithCode> {
    let Some(addr) = args.admin.or(gateway.admin) else { return Ok(None) };
    match takeover.admin(&addr).map_or_else(|| TcpListener::bind(addr), |given| Ok(given.into())) {
        Ok(socket) => {
            eprintln!("admin on http://{}", socket.local_addr().unwrap_or(addr));
            if !addr.ip().to_canonical().is_loopback() {
                eprintln!(
                    "warning: the admin listener can be reached from other machines; see that only yours can"
                );
            }
            Ok(Some((addr, socket)))
        }
        Err(e) => Err(WithCode(Code::Environment, format!("cannot listen on {addr} for admin: {e}"))),
    }
}

/// Opens the access log, if there is one.
pub fn log(args: &Args, gateway: &Gateway) -> Result<Option<Log>, WithCode> {
    if args.dev && args.access_log.is_none() {
        return start(Box::new(Readable::new(std::io::stdout(), render::colour())));
    }
    let place = match args.access_log.as_deref() {
        Some("off") => AccessLog::Off,
        Some("stdout") => AccessLog::Stdout,
        Some(file) => AccessLog::File(file.into()),
        None => gateway.access_log.clone(),
    };
    let to: Box<dyn std::io::Write + Send> = match place {
        AccessLog::Off => return Ok(None),
        AccessLog::Stdout => Box::new(std::io::stdout()),
        AccessLog::File(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            Box::new(file.map_err(|e| {
                WithCode(Code::Environment, format!("cannot write the access log `{}`: {e}", path.display()))
            })?)
        }
    };
    start(to)
}

/// Brings counters back from the file that keeps them, and keeps them there from now on. A gateway for development writes
/// no file of a production config.
pub fn keeper(args: &Args, gateway: &Gateway, shared: &Shared) -> Result<Option<Keeper>, WithCode> {
    let Some(path) = gateway.counter_file.as_ref().filter(|_| !args.dev) else { return Ok(None) };
    let store = shared.get::<LocalStore>();
    let refused = |e: std::io::Error| {
        WithCode(Code::Environment, format!("cannot keep counters in `{}`: {e}", path.display()))
    };
    let (file, found) = CounterFile::open(path, &store).map_err(refused)?;
    if found.damaged > 0 {
        eprintln!("warning: {} damaged lines of `{}` were left out", found.damaged, path.display());
    }
    Keeper::start(file, store, |problem| eprintln!("warning: {problem}")).map(Some).map_err(refused)
}

fn start(to: Box<dyn std::io::Write + Send>) -> Result<Option<Log>, WithCode> {
    Log::start(to)
        .map(Some)
        .map_err(|e| WithCode(Code::Environment, format!("cannot start the access log: {e}")))
}

/// Every connection is a file: takes as many as the system allows, and says how many of them may be clients'. The rest
/// is for upstreams, logs and configs.
pub fn connections_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| (n as usize / 5 * 4).max(1))
}
