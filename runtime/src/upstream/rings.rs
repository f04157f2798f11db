//! The rings of all upstreams of the process. They follow the config and the resolver; what is known of peers stays.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ahash::AHashMap;

use super::balance::outlier::Known;
use super::balance::{Peer, PeerState, Ring};
use super::dns::{Found, Lookup, Resolver, Srv};
use super::unix;
use crate::clock;
use crate::message::split_port;
use crate::snapshot::Snapshot;
use crate::snapshot::upstream::{TargetConfig, UpstreamConfig};

/// What is known of the peers of one upstream, by target and address.
type Peers = AHashMap<(String, u16, SocketAddr), Arc<PeerState>>;

#[derive(Default)]
struct Entry {
    peers: Peers,
    known: Arc<Known>,
    last: Option<Last>,
}

/// The last ring made of an upstream.
struct Last {
    ring: Arc<Ring>,
    /// The config and the resolver's version that it stands for.
    upstream: Arc<UpstreamConfig>,
    version: u64,
    pending: bool,
}

/// The rings, by name of the upstream.
#[derive(Default)]
pub struct Rings(Mutex<AHashMap<String, Entry>>);

/// A ring, and whether names of its targets are still being looked up.
pub struct Current {
    pub ring: Arc<Ring>,
    pub pending: bool,
}

impl Rings {
    /// The ring of an upstream as the resolver knows its targets now.
    pub fn get(&self, upstream: &Arc<UpstreamConfig>, resolver: &Resolver) -> Current {
        let version = resolver.version();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Entry { last: Some(last), .. }) = all.get(&upstream.name)
            && last.version == version
            && !last.pending
            && Arc::ptr_eq(&last.upstream, upstream)
        {
            return Current { ring: Arc::clone(&last.ring), pending: false };
        }
        let entry = all.entry(upstream.name.clone()).or_default();
        let mut pending = false;
        let mut addresses = Vec::with_capacity(upstream.targets.len());
        for (i, t) in upstream.targets.iter().enumerate() {
            match resolver.lookup(&t.host, t.port) {
                Lookup::Ready(addrs) => {
                    let first = addresses.len();
                    addresses.extend(preferred(&addrs).map(|addr| Address { target: i, addr, srv: None }));
                    if let Some(records) = resolver.records(&t.host) {
                        for a in &mut addresses[first..] {
                            a.srv = srv_of(&records, a.addr);
                        }
                    }
                }
                Lookup::Pending => pending = true,
                Lookup::Failed => {}
            }
        }
        let same = |ring: &Ring| {
            let now = ring.peers.iter().map(|p| (p.target, p.addr, p.weight));
            let then = addresses.iter().map(|a| (a.target, a.addr, a.weight(upstream)));
            *ring.upstream == **upstream && now.eq(then)
        };
        let ring = match entry.last.take() {
            // The same peers under the same config: shares go on where they were.
            Some(last) if same(&last.ring) => last.ring,
            old => {
                drop(old);
                Arc::new(build(upstream, &addresses, &mut entry.peers, &entry.known))
            }
        };
        entry.last = Some(Last { ring: Arc::clone(&ring), upstream: Arc::clone(upstream), version, pending });
        Current { ring, pending }
    }

    /// As [`Rings::get`], waiting at most `timeout` for names that were never looked up before, if no other target can
    /// be used meanwhile.
    pub async fn get_ready(
        &self,
        upstream: &Arc<UpstreamConfig>,
        resolver: &Resolver,
        timeout: Duration,
    ) -> Current {
        let found = self.get(upstream, resolver);
        if !found.pending || !found.ring.peers.is_empty() {
            return found;
        }
        let wait = async {
            for t in &upstream.targets {
                if matches!(resolver.resolve(&t.host, t.port, timeout).await, Lookup::Ready(_)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(timeout, wait).await;
        self.get(upstream, resolver)
    }

    /// Forgets upstreams that the config has no more.
    pub fn retain(&self, snapshot: &Snapshot) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, _| snapshot.upstreams.iter().any(|u| u.name == *name));
    }
}

/// One address of a target.
struct Address {
    /// Index into [`UpstreamConfig::targets`].
    target: usize,
    addr: SocketAddr,
    srv: Option<Srv>,
}

impl Address {
    /// The weight, which an SRV record knows better than the config.
    fn weight(&self, upstream: &UpstreamConfig) -> u32 {
        self.srv.as_ref().map_or(upstream.targets[self.target].weight, |srv| u32::from(srv.weight))
    }
}

fn srv_of(records: &[Found], addr: SocketAddr) -> Option<Srv> {
    let says = |f: &&Found| f.ip == addr.ip() && f.srv.as_ref().is_some_and(|s| s.port == addr.port());
    records.iter().find(says)?.srv.clone()
}

/// As Kong: the IPv6 addresses of a name count only where it has no others. A server on one family alone would
/// otherwise refuse half of the requests.
fn preferred(addrs: &[SocketAddr]) -> impl Iterator<Item = SocketAddr> {
    let has_v4 = addrs.iter().any(SocketAddr::is_ipv4);
    addrs.iter().copied().filter(move |a| a.is_ipv4() || !has_v4)
}

fn build(
    upstream: &Arc<UpstreamConfig>,
    addresses: &[Address],
    known: &mut Peers,
    of_upstream: &Arc<Known>,
) -> Ring {
    // At the start all are new, and so are none.
    let ramps = !upstream.slow_start.is_zero() && !known.is_empty();
    let mut peers = Vec::with_capacity(addresses.len());
    for a in addresses {
        let (target, addr) = (a.target, a.addr);
        let t = &upstream.targets[target];
        let state = known.entry((t.host.clone(), t.port, addr)).or_insert_with(|| {
            let state = PeerState::default();
            if ramps {
                state.standing.start_ramp(clock::monotonic());
            }
            Arc::new(state)
        });
        let (authorities, server_name) = match a.srv.as_ref().filter(|_| upstream.use_srv_name) {
            Some(srv) => {
                names(upstream, &TargetConfig { host: srv.name.to_string(), port: srv.port, weight: 0 })
            }
            None => names(upstream, t),
        };
        peers.push(Peer {
            target,
            addr,
            weight: a.weight(upstream),
            authorities,
            server_name,
            state: Arc::clone(state),
        });
    }
    // Those of addresses that are gone, unless an older ring is still in use.
    known.retain(|_, state| Arc::strong_count(state) > 1);
    Ring::new(Arc::clone(upstream), peers, Arc::clone(of_upstream))
}

/// The `Host` that a target gets over plain HTTP and over TLS, and its name for TLS.
fn names(upstream: &UpstreamConfig, t: &TargetConfig) -> ([Arc<str>; 2], Arc<str>) {
    // Nobody is called by the path of a socket.
    let own = if t.host.starts_with(unix::SCHEME) { "localhost" } else { &*t.host };
    let name = upstream.host_header.as_deref().unwrap_or(own);
    if let Some((name_alone, Some(_))) = upstream.host_header.as_deref().map(split_port) {
        return ([Arc::from(name), Arc::from(name)], Arc::from(name_alone));
    }
    let bracketed =
        if name.contains(':') && !name.starts_with('[') { format!("[{name}]") } else { name.into() };
    let authority = |default: u16| -> Arc<str> {
        if t.port == default || t.port == 0 {
            Arc::from(bracketed.as_str())
        } else {
            format!("{bracketed}:{}", t.port).into()
        }
    };
    ([authority(80), authority(443)], Arc::from(name))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::balance::health::Outcome;
    use super::*;
    use crate::snapshot::upstream::{PassiveChecks, Thresholds};

    fn upstream(ports: &[u16]) -> Arc<UpstreamConfig> {
        let thresholds = Thresholds { tcp_failures: 1, ..Thresholds::default() };
        let target = |port: &u16| TargetConfig { host: "127.0.0.1".into(), port: *port, weight: 1 };
        Arc::new(UpstreamConfig {
            name: "u".into(),
            targets: ports.iter().map(target).collect(),
            passive: PassiveChecks { thresholds, recover_after: Duration::ZERO },
            ..UpstreamConfig::default()
        })
    }

    #[test]
    fn health_survives_a_reload_and_goes_with_its_target() {
        let (rings, resolver) = (Rings::default(), Resolver::start(Vec::new()));
        let now = Instant::now();
        let healthy = |ports: &[u16]| -> Vec<bool> {
            let ring = rings.get(&upstream(ports), &resolver).ring;
            ring.peers.iter().map(|p| p.state.health.is_healthy()).collect()
        };
        let ring = rings.get(&upstream(&[1, 2]), &resolver).ring;
        ring.report_passive(&ring.peers[1].state, Outcome::TcpFailure, false, now);
        assert_eq!(healthy(&[1, 2]), [true, false]);
        assert_eq!(healthy(&[2, 3]), [false, true]);
        drop(ring);
        assert_eq!(healthy(&[3]), [true]);
        assert_eq!(healthy(&[2, 3]), [true, true]);
    }

    #[test]
    fn addresses_of_one_family_are_balanced_over() {
        let check = |all: &[&str], want: &[&str]| {
            let parse = |t: &[&str]| t.iter().filter_map(|a| a.parse().ok()).collect::<Vec<SocketAddr>>();
            assert_eq!(preferred(&parse(all)).collect::<Vec<_>>(), parse(want), "{all:?}");
        };
        check(&["127.0.0.1:1", "[::1]:1", "10.0.0.1:1"], &["127.0.0.1:1", "10.0.0.1:1"]);
        check(&["[::1]:1", "[::2]:1"], &["[::1]:1", "[::2]:1"]);
        check(&[], &[]);
    }

    #[test]
    fn targets_are_called_by_their_own_name_or_the_upstreams() {
        for (host_header, host, port, want) in [
            (None, "a.test", 80, ["a.test", "a.test:80", "a.test"]),
            (None, "a.test", 443, ["a.test:443", "a.test", "a.test"]),
            (None, "10.0.0.1", 8000, ["10.0.0.1:8000", "10.0.0.1:8000", "10.0.0.1"]),
            (None, "::1", 8000, ["[::1]:8000", "[::1]:8000", "::1"]),
            (None, "unix:/run/a.sock", 0, ["localhost", "localhost", "localhost"]),
            (Some("b.test"), "unix:/run/a.sock", 0, ["b.test", "b.test", "b.test"]),
            (Some("b.test"), "a.test", 8000, ["b.test:8000", "b.test:8000", "b.test"]),
            (Some("b.test:1"), "a.test", 8000, ["b.test:1", "b.test:1", "b.test"]),
        ] {
            let upstream =
                UpstreamConfig { host_header: host_header.map(str::to_owned), ..UpstreamConfig::default() };
            let ([http, https], name) =
                names(&upstream, &TargetConfig { host: host.into(), port, weight: 1 });
            assert_eq!([&*http, &*https, &*name], want);
        }
    }

    #[test]
    fn a_ring_is_made_once() {
        let (rings, resolver) = (Rings::default(), Resolver::start(Vec::new()));
        let u = upstream(&[1, 2]);
        assert!(Arc::ptr_eq(&rings.get(&u, &resolver).ring, &rings.get(&u, &resolver).ring));
        rings.retain(&Snapshot::default());
        assert_eq!(rings.get(&u, &resolver).ring.peers.len(), 2);
    }
}
