//! Choosing a peer of an upstream. Knows no sockets; time is passed in.

pub mod hash_key;
mod hash_ring;
pub mod health;
pub mod latency;
mod least_connections;
mod round_robin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hash_ring::HashRing;
pub use hash_ring::xxhash32;
use health::{Health, Outcome};
use latency::Ewma;
use least_connections::LeastConnections;
use round_robin::RoundRobin;

use crate::snapshot::upstream::{Algorithm, UpstreamConfig};

/// What is known of one address of a target. Outlives rings and reloads.
#[derive(Default)]
pub struct PeerState {
    pub health: Health,
    pub latency: Ewma,
    in_flight: AtomicU32,
}

/// A request in flight; dropping it counts it out.
pub struct InFlight(Arc<PeerState>);

impl InFlight {
    /// Counts a request in.
    pub fn new(state: &Arc<PeerState>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One address of a target.
pub struct Peer {
    /// Index into [`UpstreamConfig::targets`].
    pub target: usize,
    pub addr: SocketAddr,
    pub weight: u32,
    /// The `Host` that it gets over plain HTTP and over TLS.
    pub authorities: [Arc<str>; 2],
    /// Its name for TLS.
    pub server_name: Arc<str>,
    pub state: Arc<PeerState>,
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index into [`Ring::peers`].
    pub peer: usize,
    /// The peer is out, and this request tries it.
    pub trial: bool,
}

enum Balancer {
    RoundRobin(RoundRobin),
    HashRing(HashRing),
    LeastConnections(LeastConnections),
    Latency(AtomicU64),
}

/// An upstream's peers with the state of its algorithm, shared by all workers.
pub struct Ring {
    pub upstream: Arc<UpstreamConfig>,
    pub peers: Box<[Peer]>,
    balancer: Balancer,
    /// Whether health is looked at.
    watched: bool,
}

impl Ring {
    /// The ring of these peers.
    pub fn new(upstream: Arc<UpstreamConfig>, peers: Vec<Peer>) -> Self {
        let balancer = match upstream.algorithm {
            Algorithm::RoundRobin => {
                let weights: Vec<_> = peers.iter().map(|p| p.weight).collect();
                Balancer::RoundRobin(RoundRobin::new(&weights))
            }
            Algorithm::ConsistentHashing => {
                let all: Vec<_> = peers.iter().map(|p| (p.addr, p.weight)).collect();
                Balancer::HashRing(HashRing::new(upstream.slots, &all))
            }
            Algorithm::LeastConnections => Balancer::LeastConnections(LeastConnections::default()),
            Algorithm::Latency => Balancer::Latency(AtomicU64::new(0)),
        };
        let watched = upstream.watched();
        Self { upstream, peers: peers.into(), balancer, watched }
    }

    /// Whether [`Ring::pick`] looks at the key.
    pub fn hashes(&self) -> bool {
        matches!(self.balancer, Balancer::HashRing(_))
    }

    /// Whether [`Ring::pick`] looks at how many requests are in flight. Counting them costs all workers a shared line
    /// of memory, so it is not done for nothing.
    pub fn counts(&self) -> bool {
        matches!(self.balancer, Balancer::LeastConnections(_) | Balancer::Latency(_))
    }

    /// The next peer. Those in `tried` come last; `None` if no peer may get requests.
    pub fn pick(&self, key: u32, tried: &[SocketAddr], now: Instant) -> Option<Pick> {
        if self.watched && !self.peers.iter().all(|p| p.state.health.is_healthy()) {
            if let Some(peer) = self.trial(tried, now) {
                return Some(Pick { peer, trial: true });
            }
            if !self.has_enough() {
                return None;
            }
        }
        let healthy = |i: usize| self.is_available(&self.peers[i]);
        let fresh = |i: usize| healthy(i) && !tried.contains(&self.peers[i].addr);
        let found = match tried.is_empty() {
            true => self.choose(key, healthy, now, true),
            false => self.choose(key, fresh, now, false).or_else(|| self.choose(key, healthy, now, false)),
        };
        found.map(|peer| Pick { peer, trial: false })
    }

    fn choose(
        &self,
        key: u32,
        usable: impl Fn(usize) -> bool,
        now: Instant,
        first_try: bool,
    ) -> Option<usize> {
        let peers = &self.peers;
        let in_flight = |i: usize| peers[i].state.in_flight.load(Ordering::Relaxed);
        match &self.balancer {
            Balancer::RoundRobin(rr) if first_try => rr.pick(usable),
            Balancer::RoundRobin(rr) => rr.pick_among(usable),
            Balancer::HashRing(ring) => ring.pick(key, usable),
            Balancer::LeastConnections(lc) => {
                lc.pick(peers.len(), usable, |i| (in_flight(i), peers[i].weight))
            }
            Balancer::Latency(seed) => {
                let cost = |i: usize| {
                    // A microsecond at least, so that load alone decides between peers that are not measured yet.
                    let expected = peers[i].state.latency.expected(now).max(1e-6);
                    expected * f64::from(in_flight(i) + 1) / f64::from(peers[i].weight.max(1))
                };
                let n = seed.fetch_add(1, Ordering::Relaxed);
                latency::pick(peers.len(), usable, cost, scatter(n))
            }
        }
    }

    /// Whether requests may go to the peer.
    pub fn is_available(&self, peer: &Peer) -> bool {
        !self.watched || peer.state.health.is_healthy()
    }

    fn trial(&self, tried: &[SocketAddr], now: Instant) -> Option<usize> {
        let rest = self.upstream.trial_after()?;
        self.peers.iter().position(|p| {
            !p.state.health.is_healthy() && !tried.contains(&p.addr) && p.state.health.claim_trial(rest, now)
        })
    }

    /// Whether the share of weight that is available reaches the threshold.
    fn has_enough(&self) -> bool {
        let (available, total) = self.weights();
        self.upstream.threshold <= 0.0 || available * 100.0 >= self.upstream.threshold * total
    }

    fn weights(&self) -> (f64, f64) {
        self.peers.iter().fold((0.0, 0.0), |(available, total), p| {
            let w = f64::from(p.weight);
            (available + if p.state.health.is_healthy() { w } else { 0.0 }, total + w)
        })
    }

    /// Counts the outcome of a real request.
    pub fn report_passive(&self, peer: &PeerState, outcome: Outcome, trial: bool, now: Instant) {
        let limits = &self.upstream.passive.thresholds;
        if trial || limits.any() {
            peer.health.report(outcome, limits, trial, now);
        }
    }

    /// Counts the outcome of a probe.
    pub fn report_active(&self, peer: &PeerState, outcome: Outcome, now: Instant) {
        peer.health.report(outcome, &self.upstream.active.thresholds, false, now);
    }

    /// Adds a measurement, where the algorithm has a use for it.
    pub fn observe(&self, peer: &PeerState, took: Duration, now: Instant) {
        if matches!(self.balancer, Balancer::Latency(_)) {
            peer.latency.observe(took, now);
        }
    }
}

/// Turns a count into bits without pattern (the finaliser of SplitMix64).
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
