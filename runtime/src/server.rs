//! The running gateway: its threads, and what can be done to them from outside.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::effect;
use crate::model::gateway::Address;
use crate::overload;
use crate::provider::{Unavailable, Wanted};
use crate::snapshot::Snapshot;
use crate::snapshot::publish::Publisher;
use crate::snapshot::reloads::Reloads;
use crate::telemetry::Sink;
use crate::telemetry::access_log::Log;
use crate::telemetry::metrics::{Metrics, Slab};
use crate::upstream::dns::{Override, Resolver};
use crate::upstream::probe;
use crate::upstream::rings::Rings;
use crate::worker::context::Common;
use crate::worker::listen::{Listener, Slot, accept};
use crate::worker::run::{self, Start};

/// What a server is started with.
pub struct Options {
    pub listeners: Vec<Listener>,
    /// Worker threads, at least 1.
    pub workers: usize,
    pub admin: Option<admin::Options>,
    pub overrides: Vec<Override>,
    pub log: Option<Log>,
    /// Most client connections, whatever the config says.
    pub connections_max: usize,
    /// Hash of the first config.
    pub hash: String,
}

/// A running gateway.
pub struct Server {
    pub common: Arc<Common>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    /// Gives back its lock when it ends.
    acme: JoinHandle<()>,
    pub addrs: Vec<Address>,
}

impl Server {
    /// Starts every thread; connections are taken from now on.
    pub fn start(snapshot: Snapshot, options: Options) -> io::Result<Self> {
        let common = common(snapshot, options.overrides, options.connections_max);
        common.reloads.started(options.hash);
        resolve_ahead(&common);
        let (stop, stopped) = watch::channel(false);
        let count = options.workers.max(1);
        let mut slabs = Vec::with_capacity(count);
        let mut slots = Vec::with_capacity(count);
        let mut workers = Vec::with_capacity(count);
        for n in 0..count {
            let (send, incoming) = mpsc::unbounded_channel();
            let slot = Slot { send, load: Arc::new(AtomicUsize::new(0)) };
            let slab = Arc::new(Slab::default());
            let sink = SinkParts { slab: Arc::clone(&slab), log: options.log.clone() };
            // A single worker accepts by itself, which saves the hop.
            let own = if count == 1 { options.listeners.clone() } else { Vec::new() };
            let (common, slot_of, stop) = (Arc::clone(&common), slot.clone(), stopped.clone());
            let thread = std::thread::Builder::new().name(format!("gw-worker-{n}"));
            workers.push(thread.spawn(move || {
                run::run(Start { common, sink: sink.build(), incoming, slot: slot_of, own, stop })
            })?);
            slots.push(slot);
            slabs.push(slab);
        }
        let metrics = Arc::new(Metrics {
            slabs,
            common: Arc::clone(&common),
            started: crate::clock::monotonic(),
            log_dropped: options.log.as_ref().map(|l| Arc::clone(&l.dropped)),
        });
        // Before anybody is let in: what the storage holds is served from the first handshake on.
        let acme = effect::acme::spawn(Arc::clone(&common), stopped.clone())?;
        if count > 1 {
            spawn_acceptor(options.listeners.clone(), slots, stopped.clone())?;
        }
        probe::spawn(Arc::clone(&common), stopped.clone())?;
        overload::watch(Arc::downgrade(&common))?;
        effect::provider::spawn(Arc::clone(&common), stopped.clone())?;
        if let Some(options) = options.admin {
            admin::spawn(options, metrics, stopped)?;
        }
        let addrs = options.listeners.iter().map(|l| l.addr.clone()).collect();
        Ok(Self { common, stop, workers, acme, addrs })
    }

    /// Puts a new snapshot in force.
    pub fn publish(&self, snapshot: Snapshot) -> u64 {
        let generation = self.common.publisher.publish(snapshot);
        self.common.rings.retain(&self.common.publisher.current());
        resolve_ahead(&self.common);
        generation
    }

    /// Takes nothing new, finishes what is in flight within the drain time, and ends.
    pub fn drain(self) {
        let _ = self.stop.send(true);
        for worker in self.workers {
            // A worker that panicked as a whole has nothing left to drain.
            let _ = worker.join();
        }
        let _ = self.acme.join();
    }
}

fn common(snapshot: Snapshot, overrides: Vec<Override>, connections_max: usize) -> Arc<Common> {
    Arc::new(Common {
        publisher: Publisher::new(snapshot),
        resolver: Resolver::start(overrides),
        rings: Rings::default(),
        reloads: Reloads::default(),
        connections: AtomicUsize::new(0),
        connections_max,
        per_ip: Mutex::default(),
        over_limit: AtomicU64::new(0),
        over_ip_limit: AtomicU64::new(0),
        proxy_refused: AtomicU64::new(0),
        next_connection: AtomicU64::new(1),
    })
}

/// Waits for the keys of an identity provider, as a gateway with this snapshot would; for tools, which serve nothing.
///
/// # Errors
/// The system has no room for another event loop.
pub fn wait_for_keys(snapshot: &Snapshot, wanted: &Wanted) -> io::Result<Result<(), Unavailable>> {
    let asking = Snapshot {
        gateway: snapshot.gateway.clone(),
        shared: Arc::clone(&snapshot.shared),
        ..Snapshot::default()
    };
    let common = common(asking, Vec::new(), 1);
    common.resolver.use_servers(&snapshot.gateway.dns_servers);
    effect::provider::ask_now(common, wanted)
}

/// What a worker needs, for tests of what it does.
#[cfg(test)]
pub fn common_for_tests(snapshot: Snapshot) -> Arc<Common> {
    common(snapshot, Vec::new(), 1000)
}

/// What a worker's sink is made of on its own thread.
struct SinkParts {
    slab: Arc<Slab>,
    log: Option<Log>,
}

impl SinkParts {
    fn build(self) -> Sink {
        Sink { metrics: self.slab, log: self.log.map(|l| l.writer()) }
    }
}

/// Asks for every service's and target's name now, so that no request has to wait for it.
fn resolve_ahead(common: &Common) {
    let snapshot = common.publisher.current();
    common.resolver.use_servers(&snapshot.gateway.dns_servers);
    for target in snapshot.upstreams.iter().flat_map(|u| &u.targets) {
        let _ = common.resolver.lookup(&target.host, target.port);
    }
    for service in &snapshot.services {
        if service.upstream.is_none() {
            let _ = common.resolver.lookup(&service.host, service.port);
        }
    }
}

fn spawn_acceptor(
    listeners: Vec<Listener>,
    slots: Vec<Slot>,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name("gw-accept".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(async {
            let accept = |l| tokio::spawn(accept(l, slots.clone(), stop.clone()));
            let tasks: Vec<_> = listeners.into_iter().map(accept).collect();
            drop(slots);
            for task in tasks {
                let _ = task.await;
            }
        });
        Ok(())
    })
}
