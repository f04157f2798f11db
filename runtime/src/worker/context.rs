//! What the tasks of one worker share. Nothing here is seen by another thread but the handles in [`Common`].

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;
use tokio::sync::Notify;

use super::deadline::Deadlines;
use crate::clock::Now;
use crate::exchange::{Client, Exchange, RequestId, SnapshotRef, UpstreamRequest};
use crate::snapshot::publish::Publisher;
use crate::snapshot::reloads::Reloads;
use crate::snapshot::{ServiceId, UpstreamId};
use crate::telemetry::Sink;
use crate::upstream::balance::Ring;
use crate::upstream::dns::Resolver;
use crate::upstream::h2::H2Pool;
use crate::upstream::pool::Pool;
use crate::upstream::retry_budget::RetryBudget;
use crate::upstream::rings::Rings;

/// What all workers of the process share.
pub struct Common {
    pub publisher: Arc<Publisher>,
    pub resolver: Arc<Resolver>,
    /// The upstreams' targets and their health.
    pub rings: Rings,
    pub reloads: Reloads,
    /// Client connections open now, over all workers.
    pub connections: AtomicUsize,
    /// Most of them, whatever the config says: file descriptors must be left for upstreams and logs.
    pub connections_max: usize,
    /// Client connections by address, kept only where the config bounds them.
    pub per_ip: Mutex<AHashMap<IpAddr, usize>>,
    /// Connections closed at once because there were too many, of all and of one address.
    pub over_limit: AtomicU64,
    pub over_ip_limit: AtomicU64,
    /// Connections closed for want of a PROXY protocol header from a trusted peer.
    pub proxy_refused: AtomicU64,
    /// The number that the next client connection gets.
    pub next_connection: AtomicU64,
}

/// Addresses, and the resolver's version that said so.
type Resolved = (u64, Arc<[SocketAddr]>);

/// A ring as one worker holds it: requests count themselves in the worker's own memory, not in that of all workers.
pub type SharedRing = Rc<Arc<Ring>>;

/// One worker's state.
pub struct Worker {
    pub common: Arc<Common>,
    snapshot: RefCell<SnapshotRef>,
    generation: Cell<u64>,
    pub pool: Pool,
    pub h2: H2Pool,
    pub deadlines: Rc<Deadlines>,
    pub effects: crate::effect::Effects,
    pub sink: Sink,
    /// Finish what is in flight, take nothing new.
    pub draining: Cell<bool>,
    pub drain: Notify,
    /// Told when the last connection has ended.
    pub idle: Notify,
    /// Where services are, by id, with the resolver's version that said so.
    resolved: RefCell<Vec<Option<Resolved>>>,
    /// The rings of upstreams, the same way.
    rings: RefCell<Vec<Option<(u64, SharedRing)>>>,
    pub retry_budget: RetryBudget,
    #[expect(clippy::vec_box, reason = "exchanges are handed out and taken back boxed")]
    spare: RefCell<Vec<Box<Exchange>>>,
    seed: Cell<u128>,
}

impl Worker {
    /// A worker that serves what `common` publishes.
    pub fn new(common: Arc<Common>, sink: Sink) -> Rc<Self> {
        let current = common.publisher.current();
        Rc::new(Self {
            generation: Cell::new(current.generation),
            snapshot: RefCell::new(SnapshotRef::new(current)),
            common,
            pool: Pool::default(),
            h2: H2Pool::default(),
            deadlines: Deadlines::new(),
            effects: crate::effect::Effects::default(),
            sink,
            draining: Cell::new(false),
            drain: Notify::new(),
            idle: Notify::new(),
            resolved: RefCell::default(),
            rings: RefCell::default(),
            retry_budget: RetryBudget::new(crate::clock::monotonic()),
            spare: RefCell::default(),
            seed: Cell::new(uuid::Uuid::new_v4().as_u128()),
        })
    }

    /// The snapshot in force.
    #[inline]
    pub fn snapshot(&self) -> SnapshotRef {
        let generation = self.common.publisher.generation();
        if generation != self.generation.get() {
            *self.snapshot.borrow_mut() = SnapshotRef::new(self.common.publisher.current());
            self.generation.set(generation);
            // Their memory holds on to the old snapshot.
            self.spare.borrow_mut().clear();
            self.resolved.borrow_mut().clear();
            self.rings.borrow_mut().clear();
            self.effects.prepare(&self.snapshot.borrow());
        }
        self.snapshot.borrow().clone()
    }

    /// An exchange for the next request, from a used one where there is one.
    pub fn exchange(&self, client: &Client) -> Box<Exchange> {
        let snapshot = self.snapshot();
        let id = self.request_id();
        if let Some(mut x) = self.spare.borrow_mut().pop() {
            x.snapshot = snapshot;
            x.client.clone_from(client);
            x.now = Now::read();
            x.ended = x.now.instant;
            x.request_id = id;
            return x;
        }
        Box::new(Exchange::new(snapshot, client.clone(), id))
    }

    /// Takes an exchange back for the next request.
    pub fn recycle(&self, mut x: Box<Exchange>) {
        const KEEP: usize = 32;
        let mut spare = self.spare.borrow_mut();
        if spare.len() >= KEEP || x.snapshot.generation != self.generation.get() {
            return;
        }
        x.request.clear();
        x.response.status = 0;
        x.response.fields.clear();
        x.response_fields.clear();
        x.route = None;
        x.service = None;
        x.identity = None;
        let path = std::mem::take(&mut x.upstream.path);
        x.upstream = UpstreamRequest { path, ..UpstreamRequest::default() };
        x.upstream.path.clear();
        x.captures.clear();
        x.matched_len = 0;
        x.body = None;
        x.body_goes_on = false;
        x.correlation_id = None;
        x.local_response = false;
        x.limit_notes.clear();
        x.gives_up = false;
        x.slots.clear();
        spare.push(x);
    }

    /// Whether a request runs by the snapshot that ids in this worker's own tables refer to.
    #[inline]
    pub fn is_current(&self, snapshot: &SnapshotRef) -> bool {
        snapshot.generation == self.generation.get()
    }

    /// The ring of an upstream, if it is known and its targets' addresses are still the same.
    #[inline]
    pub fn ring(&self, id: UpstreamId) -> Option<SharedRing> {
        match self.rings.borrow().get(id.0 as usize) {
            Some(Some((version, ring))) if *version == self.common.resolver.version() => {
                Some(Rc::clone(ring))
            }
            _ => None,
        }
    }

    /// Remembers the ring of an upstream.
    pub fn remember_ring(&self, id: UpstreamId, version: u64, ring: &SharedRing) {
        let mut all = self.rings.borrow_mut();
        if all.len() <= id.0 as usize {
            all.resize(id.0 as usize + 1, None);
        }
        all[id.0 as usize] = Some((version, Rc::clone(ring)));
    }

    /// Where a service is, if that is known and still so.
    #[inline]
    pub fn resolved(&self, id: ServiceId) -> Option<Arc<[SocketAddr]>> {
        match self.resolved.borrow().get(id.0 as usize) {
            Some(Some((version, addrs))) if *version == self.common.resolver.version() => {
                Some(Arc::clone(addrs))
            }
            _ => None,
        }
    }

    /// Remembers where a service is.
    pub fn remember(&self, id: ServiceId, version: u64, addrs: &Arc<[SocketAddr]>) {
        let mut all = self.resolved.borrow_mut();
        if all.len() <= id.0 as usize {
            all.resize(id.0 as usize + 1, None);
        }
        all[id.0 as usize] = Some((version, Arc::clone(addrs)));
    }

    /// Unique in the process and, with all likelihood, everywhere: a random start and a count.
    fn request_id(&self) -> RequestId {
        let id = self.seed.get().wrapping_add(1);
        self.seed.set(id);
        RequestId(id)
    }

    /// Counts a client connection in; `None` if there is no room for one.
    pub fn admit(self: &Rc<Self>) -> Option<Admitted> {
        let snapshot = self.snapshot();
        let limits = &snapshot.gateway.limits;
        let common = &self.common;
        let all = common.connections.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted { worker: Rc::clone(self), ip: None };
        if all >= limits.connections.min(common.connections_max) {
            common.over_limit.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(admitted)
    }
}

/// A counted connection; dropping it counts it out.
pub struct Admitted {
    worker: Rc<Worker>,
    /// Where connections of one address are counted, too.
    ip: Option<IpAddr>,
}

impl Admitted {
    /// Counts the connection to its client's address; false if that has enough of them.
    pub fn from_ip(&mut self, ip: IpAddr) -> bool {
        let snapshot = self.worker.snapshot();
        let most = snapshot.gateway.limits.connections_per_ip;
        if most == 0 {
            return true;
        }
        let common = &self.worker.common;
        let ip = ip.to_canonical();
        let mut per_ip = common.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let here = per_ip.entry(ip).or_insert(0);
        if *here >= most {
            common.over_ip_limit.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        *here += 1;
        self.ip = Some(ip);
        true
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let w = &self.worker;
        w.common.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = self.ip {
            let mut per_ip = w.common.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(n) = per_ip.get_mut(&ip) {
                *n -= 1;
                if *n == 0 {
                    per_ip.remove(&ip);
                }
            }
        }
    }
}
