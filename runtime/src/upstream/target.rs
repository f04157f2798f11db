//! The targets of one request: which comes next, and what became of each.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::balance::breaker::{Full, Gate, Place};
use super::balance::health::Outcome;
use super::balance::outlier::Verdict;
use super::balance::{InFlight, NoPeer, Peer, Pick, Ring, hash_key, latency, xxhash32};
use super::connect::ConnectError;
use super::dns::Lookup;
use super::public::is_public;
use crate::clock;
use crate::exchange::Exchange;
use crate::message::{FieldName, names};
use crate::policy::reply::is_grpc;
use crate::snapshot::{Service, ServiceId, UpstreamId};
use crate::worker::context::{SharedRing, Worker};
use crate::worker::forward::Failure;
use crate::worker::proxy::ProxyError;

/// Where a request goes.
pub struct Target {
    pub addr: SocketAddr,
    /// For a target of an upstream.
    choice: Option<Choice>,
}

/// A peer that was picked.
struct Choice {
    ring: SharedRing,
    peer: usize,
    trial: bool,
    tls: bool,
    in_flight: Option<InFlight>,
}

impl Choice {
    fn peer(&self) -> &Peer {
        &self.ring.peers[self.peer]
    }
}

/// Why there is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// The upstream has no target that is available.
    NoPeer,
    /// The upstream has as many requests as its circuit breaker allows.
    Full,
    /// The host name cannot be resolved.
    Name,
    /// The host has an address that is not public, and the config did not name it.
    Private,
}

/// Whom a request is for.
#[derive(Clone, Copy)]
pub struct To<'a> {
    pub service: &'a Service,
    /// Of a service of the config: where workers remember its addresses.
    pub id: Option<ServiceId>,
    /// Only public addresses will do.
    pub public_only: bool,
}

impl<'a> To<'a> {
    /// A service of the config.
    pub fn service(service: &'a Service, id: ServiceId) -> Self {
        Self { service, id: Some(id), public_only: false }
    }
}

/// The choice of targets for one request.
#[derive(Default)]
pub struct Targets {
    tried: usize,
    /// Of an upstream: the addresses that were tried.
    addresses: Vec<SocketAddr>,
    /// The hash of the request, made once: a cookie that is set must not change with a retry.
    key: Option<u32>,
    /// Of an upstream whose requests are bounded: the place among them.
    place: Option<Arc<Place>>,
}

impl Targets {
    /// The next target to try.
    pub async fn next(&mut self, w: &Worker, x: &mut Exchange, to: To<'_>) -> Result<Target, NoTarget> {
        if let Some(upstream) = to.service.upstream {
            return self.pick(w, x, upstream, to.service).await;
        }
        let known = to.id.filter(|_| w.is_current(&x.snapshot)).and_then(|id| w.resolved(id));
        let addrs = match known {
            Some(known) => known,
            None => look_up(w, x, to).await?,
        };
        // Looked at for the very address that is connected to: a name may mean something else a moment later.
        if to.public_only && !addrs.iter().all(|a| is_public(a.ip())) {
            return Err(NoTarget::Private);
        }
        let addr = *addrs.get(self.tried % addrs.len().max(1)).ok_or(NoTarget::Name)?;
        self.tried += 1;
        Ok(Target { addr, choice: None })
    }

    async fn pick(
        &mut self,
        w: &Worker,
        x: &mut Exchange,
        id: UpstreamId,
        service: &Service,
    ) -> Result<Target, NoTarget> {
        let known = if w.is_current(&x.snapshot) { w.ring(id) } else { None };
        let ring = match known {
            Some(ring) => ring,
            None => find_ring(w, x, id, service.connect_timeout).await,
        };
        let key = match self.key {
            Some(key) => key,
            None if ring.hashes() => xxhash32(hash_key::key(x, &ring.upstream).as_bytes()),
            None => 0,
        };
        self.key = Some(key);
        let (pick, in_flight) = match ring.upstream.breaker.is_on() {
            true => self.admit(&ring, key).await?,
            false => ring.take(key, &self.addresses, None, clock::monotonic()).map_err(NoTarget::from)?,
        };
        let peer = &ring.peers[pick.peer];
        self.addresses.push(peer.addr);
        Ok(Target {
            addr: peer.addr,
            choice: Some(Choice {
                in_flight,
                peer: pick.peer,
                trial: pick.trial,
                tls: service.tls.is_some(),
                ring,
            }),
        })
    }
}

impl Targets {
    /// A peer of an upstream with a circuit breaker: at once, or once there is room.
    async fn admit(&mut self, ring: &Ring, key: u32) -> Result<(Pick, Option<InFlight>), NoTarget> {
        let (rules, gate) = (&ring.upstream.breaker, Arc::clone(&ring.known.gate));
        let Self { addresses, place, .. } = self;
        // Who has a place already, because this is a retry, does not stand in line again.
        let has_to_wait = place.is_none() && gate.has_line();
        let mut try_now = || attempt(ring, &gate, place, addresses, key);
        let first = if has_to_wait { Err(Refusal::Full(Full::Requests)) } else { try_now() };
        let full = match first {
            Ok(found) => return Ok(found),
            Err(Refusal::Out) => return Err(NoTarget::NoPeer),
            Err(Refusal::Full(full)) => full,
        };
        let wait = gate.wait_for(rules, full, || match try_now() {
            Err(Refusal::Full(full)) => Err(full),
            done => Ok(done),
        });
        match Box::pin(wait).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) => Err(NoTarget::NoPeer),
            Err(full) => {
                gate.refused(full);
                Err(NoTarget::Full)
            }
        }
    }
}

enum Refusal {
    Out,
    Full(Full),
}

fn attempt(
    ring: &Ring,
    gate: &Arc<Gate>,
    place: &mut Option<Arc<Place>>,
    tried: &[SocketAddr],
    key: u32,
) -> Result<(Pick, Option<InFlight>), Refusal> {
    let new = match place {
        Some(_) => None,
        None => {
            let new = gate.enter(&ring.upstream.breaker).ok_or(Refusal::Full(Full::Requests))?;
            Some(Arc::new(new))
        }
    };
    let of = new.as_ref().or(place.as_ref());
    match ring.take(key, tried, of, clock::monotonic()) {
        Ok(found) => {
            if new.is_some() {
                *place = new;
            }
            Ok(found)
        }
        Err(NoPeer::Out) => Err(Refusal::Out),
        Err(NoPeer::Full) => Err(Refusal::Full(Full::Connections)),
    }
}

impl From<NoPeer> for NoTarget {
    fn from(e: NoPeer) -> Self {
        match e {
            NoPeer::Out => Self::NoPeer,
            NoPeer::Full => Self::Full,
        }
    }
}

async fn find_ring(w: &Worker, x: &Exchange, id: UpstreamId, timeout: Duration) -> SharedRing {
    let resolver = &w.common.resolver;
    let version = resolver.version();
    let upstream = &x.snapshot.upstreams[id.0 as usize];
    let mut found = w.common.rings.get(upstream, resolver);
    if found.pending && found.ring.peers.is_empty() {
        found = Box::pin(w.common.rings.get_ready(upstream, resolver, timeout)).await;
    }
    let ring = Rc::new(found.ring);
    if !found.pending && w.is_current(&x.snapshot) {
        w.remember_ring(id, version, &ring);
    }
    ring
}

async fn look_up(w: &Worker, x: &Exchange, to: To<'_>) -> Result<Arc<[SocketAddr]>, NoTarget> {
    let service = to.service;
    let resolver = &w.common.resolver;
    let version = resolver.version();
    let found = match resolver.lookup(&service.host, service.port) {
        Lookup::Pending => {
            Box::pin(resolver.resolve(&service.host, service.port, service.connect_timeout)).await
        }
        known => known,
    };
    let Lookup::Ready(addrs) = found else { return Err(NoTarget::Name) };
    // A request of before a reload must not teach ids that mean something else now.
    if let Some(id) = to.id
        && w.is_current(&x.snapshot)
    {
        w.remember(id, version, &addrs);
    }
    Ok(addrs)
}

/// How long the answer asks to be let alone: seconds or a date (RFC 9110 section 10.2.3); zero if it does not.
fn retry_after(x: &Exchange) -> Duration {
    let Some(text) = x.response.fields.text(&names::RETRY_AFTER) else { return Duration::ZERO };
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are as long as it can be; the config bounds it anyway.
        return text.parse().map_or(Duration::MAX, Duration::from_secs);
    }
    let at = httpdate::parse_http_date(text).ok();
    at.and_then(|at| at.duration_since(UNIX_EPOCH + Duration::from_millis(x.now.unix_ms)).ok())
        .unwrap_or_default()
}

impl Target {
    /// The `Host` of a target of an upstream; a plain service's stands in the service.
    pub fn host(&self) -> Option<&str> {
        self.choice.as_ref().map(|c| &*c.peer().authorities[usize::from(c.tls)])
    }

    /// The name for TLS where it is not the service's host.
    pub fn server_name(&self) -> Option<&Arc<str>> {
        self.choice.as_ref().map(|c| &c.peer().server_name)
    }

    /// Notes the answer, whose head is in the exchange.
    pub fn answered(&self, x: &Exchange) {
        let Some(choice) = &self.choice else { return };
        let now = clock::monotonic();
        let state = &choice.peer().state;
        // Kong's passive checks take the target's own 504 for a timeout.
        let outcome = match x.response.status {
            504 => Outcome::Timeout,
            status => Outcome::Status(status),
        };
        choice.ring.report_passive(state, outcome, choice.trial, now);
        if choice.ring.upstream.outlier.is_some() {
            let call = x.response.fields.get(&names::CONTENT_TYPE).is_some_and(is_grpc);
            let status = FieldName::new("grpc-status");
            let verdict = match x.response.fields.text(&status).filter(|_| call) {
                Some(status) => Verdict::of_call(status.trim()),
                None => Verdict::of(x.response.status),
            };
            choice.ring.judge(state, verdict, now);
        }
        if !choice.ring.upstream.retry_after.is_zero() && matches!(x.response.status, 429 | 503) {
            choice.ring.rest(state, retry_after(x), now);
        }
        if let (Some(began), Some(first)) = (x.upstream.began, x.upstream.first_byte) {
            choice.ring.observe(state, first.saturating_duration_since(began), now);
        }
    }

    /// Notes that there is no answer, and why.
    pub fn failed(&self, error: &ProxyError) {
        let Some(choice) = &self.choice else { return };
        let outcome = match error {
            ProxyError::Connect(ConnectError::Timeout) | ProxyError::Exchange(Failure::Timeout) => {
                Outcome::Timeout
            }
            // The client's doing, and no target's.
            ProxyError::Exchange(Failure::Body(_)) | ProxyError::NoTarget(_) => return,
            ProxyError::Connect(_) | ProxyError::Exchange(_) => Outcome::TcpFailure,
        };
        let now = clock::monotonic();
        let state = &choice.peer().state;
        choice.ring.report_passive(state, outcome, choice.trial, now);
        choice.ring.judge(state, Verdict::GatewayError, now);
        choice.ring.observe(state, latency::FAILURE, now);
    }

    /// The count of the request at its target, to be held while the response lasts.
    pub fn in_flight(self) -> Option<InFlight> {
        self.choice?.in_flight
    }
}

/// The `Host` to send: the client's where the route preserves it, else the target's or the service's.
pub fn host_header<'a>(x: &'a Exchange, service: &'a Service, target: &'a Target) -> &'a str {
    if let Some(host) = &x.upstream.host {
        return host;
    }
    let preserve = x.route.is_some_and(|r| x.snapshot.routes[r.0 as usize].preserve_host);
    if preserve && !x.request.host.is_empty() {
        return &x.request.host;
    }
    target.host().unwrap_or(&service.authority)
}
