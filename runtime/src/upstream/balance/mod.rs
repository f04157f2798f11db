//! Choosing a peer of an upstream. Knows no sockets; time is passed in.

pub mod breaker;
pub mod hash_key;
mod hash_ring;
pub mod health;
pub mod latency;
mod least_connections;
pub mod outlier;
mod round_robin;
pub mod standing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use breaker::{Gate, Place};
use hash_ring::HashRing;
pub use hash_ring::xxhash32;
use health::{Health, Outcome};
use latency::Ewma;
use least_connections::LeastConnections;
use outlier::Known;
use round_robin::RoundRobin;
use standing::{Standing, WHOLE};

use crate::snapshot::upstream::{Algorithm, UpstreamConfig};

/// What is known of one address of a target. Outlives rings and reloads.
#[derive(Default)]
pub struct PeerState {
    pub health: Health,
    pub latency: Ewma,
    pub standing: Standing,
    in_flight: AtomicU32,
}

/// A request in flight; dropping it counts it out.
pub struct InFlight {
    /// The peer that counts it, where peers are counted.
    state: Option<Arc<PeerState>>,
    /// Told that the peer's connection is free, where connections are bounded.
    gate: Option<Arc<Gate>>,
    /// The place among all of the upstream's requests, where those are bounded; a retry keeps it.
    _place: Option<Arc<Place>>,
}

impl InFlight {
    /// Counts a request in.
    pub fn new(state: &Arc<PeerState>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { state: Some(Arc::clone(state)), gate: None, _place: None }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            state.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(gate) = &self.gate {
            gate.connection_free();
        }
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

/// Why no peer can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPeer {
    /// None may get requests.
    Out,
    /// Those that may have as many connections in use as they may.
    Full,
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
    /// Whether anything can let a peer alone for a while.
    lets_alone: bool,
    /// What is known of the upstream beyond its peers.
    pub known: Arc<Known>,
}

impl Ring {
    /// The ring of these peers.
    pub fn new(upstream: Arc<UpstreamConfig>, peers: Vec<Peer>, known: Arc<Known>) -> Self {
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
        let lets_alone = upstream.outlier.is_some() || !upstream.retry_after.is_zero();
        Self { upstream, peers: peers.into(), balancer, watched, lets_alone, known }
    }

    /// Whether [`Ring::pick`] looks at the key.
    pub fn hashes(&self) -> bool {
        matches!(self.balancer, Balancer::HashRing(_))
    }

    /// Whether [`Ring::pick`] looks at how many requests are in flight. Counting them costs all workers a shared line
    /// of memory, so it is not done for nothing.
    pub fn counts(&self) -> bool {
        matches!(self.balancer, Balancer::LeastConnections(_) | Balancer::Latency(_))
            || self.upstream.breaker.connections > 0
    }

    /// [`Ring::pick`], with the request counted in at the peer where that is of use.
    pub fn take(
        &self,
        key: u32,
        tried: &[SocketAddr],
        place: Option<&Arc<Place>>,
        now: Instant,
    ) -> Result<(Pick, Option<InFlight>), NoPeer> {
        let most = self.upstream.breaker.connections;
        // Another worker may take the last connection of the one that was picked.
        for _ in 0..=self.peers.len() {
            let Some(pick) = self.pick(key, tried, now) else {
                let full = most > 0 && self.peers.iter().any(|p| self.is_fit(p) && self.is_full(p));
                return Err(if full { NoPeer::Full } else { NoPeer::Out });
            };
            let state = &self.peers[pick.peer].state;
            let counted = self.counts();
            if counted && !breaker::enter_peer(&state.in_flight, most) {
                continue;
            }
            let in_flight = (counted || place.is_some()).then(|| InFlight {
                state: counted.then(|| Arc::clone(state)),
                gate: (most > 0).then(|| Arc::clone(&self.known.gate)),
                _place: place.map(Arc::clone),
            });
            return Ok((pick, in_flight));
        }
        Err(NoPeer::Full)
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
        let available = |i: usize| self.is_available(&self.peers[i], now) && !self.is_full(&self.peers[i]);
        let fresh = |i: usize| available(i) && !tried.contains(&self.peers[i].addr);
        let mut found = match tried.is_empty() {
            true => self.choose(key, available, now, true),
            false => self.choose(key, fresh, now, false).or_else(|| self.choose(key, available, now, false)),
        };
        if found.is_none() && self.lets_alone {
            // Who is only let alone is better than nobody.
            let fit = |i: usize| self.is_fit(&self.peers[i]) && !self.is_full(&self.peers[i]);
            found = self.choose(key, fit, now, false);
        }
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
        let over = self.upstream.slow_start;
        let share = |i: usize| if over.is_zero() { WHOLE } else { peers[i].state.standing.share(over, now) };
        let ramps = || !over.is_zero() && (0..peers.len()).any(|i| share(i) < WHOLE);
        match &self.balancer {
            Balancer::RoundRobin(rr) if first_try && !ramps() => rr.pick(usable),
            Balancer::RoundRobin(rr) => rr.pick_among(usable, share),
            Balancer::HashRing(ring) if ramps() => {
                // The keys of a peer come to it one after the other, and none goes back.
                let own = |i: usize| scatter(u64::from(key) << 32 | u64::from(place_of(&peers[i].addr)));
                let shared = |i: usize| usable(i) && own(i) % u64::from(WHOLE) < u64::from(share(i));
                ring.pick(key, shared).or_else(|| ring.pick(key, &usable))
            }
            Balancer::HashRing(ring) => ring.pick(key, usable),
            Balancer::LeastConnections(lc) => {
                // A weight is 65535 at most.
                lc.pick(peers.len(), usable, |i| (in_flight(i), peers[i].weight * share(i)))
            }
            Balancer::Latency(seed) => {
                let cost = |i: usize| {
                    // A microsecond at least, so that load alone decides between peers that are not measured yet.
                    let expected = peers[i].state.latency.expected(now).max(1e-6);
                    expected * f64::from(in_flight(i) + 1) / f64::from((peers[i].weight * share(i)).max(1))
                };
                let n = seed.fetch_add(1, Ordering::Relaxed);
                latency::pick(peers.len(), usable, cost, scatter(n))
            }
        }
    }

    /// Whether requests may go to the peer.
    pub fn is_available(&self, peer: &Peer, now: Instant) -> bool {
        self.is_fit(peer) && !(self.lets_alone && peer.state.standing.is_away(now))
    }

    fn is_fit(&self, peer: &Peer) -> bool {
        !self.watched || peer.state.health.is_healthy()
    }

    /// Whether nothing can be said against any peer: nothing watches them.
    pub fn is_unwatched(&self) -> bool {
        !self.watched && !self.lets_alone
    }

    fn is_full(&self, peer: &Peer) -> bool {
        let most = self.upstream.breaker.connections;
        most > 0 && peer.state.in_flight.load(Ordering::Relaxed) >= most
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
            let change = peer.health.report(outcome, limits, trial, now);
            self.ramp_up(peer, change, now);
        }
    }

    /// Counts the outcome of a probe.
    pub fn report_active(&self, peer: &PeerState, outcome: Outcome, now: Instant) {
        let change = peer.health.report(outcome, &self.upstream.active.thresholds, false, now);
        self.ramp_up(peer, change, now);
    }

    /// A peer that recovered begins with a part of its weight.
    fn ramp_up(&self, peer: &PeerState, change: Option<bool>, now: Instant) {
        if change == Some(true) && !self.upstream.slow_start.is_zero() {
            peer.standing.start_ramp(now);
        }
    }

    /// Adds a measurement, where the algorithm has a use for it.
    pub fn observe(&self, peer: &PeerState, took: Duration, now: Instant) {
        if matches!(self.balancer, Balancer::Latency(_)) {
            peer.latency.observe(took, now);
        }
    }
}

/// A number that stands for an address on every gateway.
fn place_of(addr: &SocketAddr) -> u32 {
    xxhash32(addr.to_string().as_bytes())
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
