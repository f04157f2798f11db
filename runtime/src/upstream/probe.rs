//! Active health checks: a thread that probes targets at their intervals and tells their health.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tokio::sync::{Semaphore, watch};

use super::balance::health::Outcome;
use super::balance::{PeerState, Ring};
use super::connect::{ConnectError, connect};
use crate::clock;
use crate::http1::response;
use crate::message::ResponseHead;
use crate::snapshot::Snapshot;
use crate::snapshot::upstream::{ActiveChecks, ProbeKind};
use crate::tls::{ClientSettings, ClientTls, client_config};
use crate::worker::context::Common;

/// How soon a reload, a new address or a change of health is noticed at the latest.
const LOOK: Duration = Duration::from_millis(250);
/// How soon a probe is tried again that found its upstream's concurrency used up.
const BUSY: Duration = Duration::from_millis(10);

/// Starts the thread. It ends with the process's workers.
pub fn spawn(common: Arc<Common>, stop: watch::Receiver<bool>) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name("gw-probe".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(run(common, stop));
        Ok(())
    })
}

/// When a peer was last probed.
struct Slot {
    state: Arc<PeerState>,
    last: Option<Instant>,
    running: Arc<AtomicBool>,
    round: u64,
}

#[derive(Default)]
struct Prober {
    /// By the address of the peer's state.
    slots: AHashMap<usize, Slot>,
    /// By name of the upstream, with the concurrency that it was made for.
    permits: AHashMap<String, (usize, Arc<Semaphore>)>,
    tls: Tls,
    round: u64,
}

async fn run(common: Arc<Common>, mut stop: watch::Receiver<bool>) {
    let mut prober = Prober::default();
    loop {
        let wait = prober.look(&common);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}

impl Prober {
    /// Starts the probes that are due; tells when to look again.
    fn look(&mut self, common: &Arc<Common>) -> Duration {
        let snapshot = common.publisher.current();
        let mut wait = LOOK;
        self.round += 1;
        for upstream in snapshot.upstreams.iter().filter(|u| u.active.on()) {
            let ring = common.rings.get(upstream, &common.resolver).ring;
            for peer in 0..ring.peers.len() {
                wait = wait.min(self.look_at(&snapshot, &ring, peer));
            }
        }
        let round = self.round;
        self.slots.retain(|_, s| s.round == round);
        self.permits.retain(|name, _| snapshot.upstreams.iter().any(|u| u.name == *name));
        wait
    }

    fn look_at(&mut self, snapshot: &Snapshot, ring: &Arc<Ring>, peer: usize) -> Duration {
        let active = &ring.upstream.active;
        let state = &ring.peers[peer].state;
        let slot = self.slots.entry(Arc::as_ptr(state) as usize).or_insert_with(|| Slot {
            state: Arc::clone(state),
            last: None,
            running: Arc::default(),
            round: 0,
        });
        slot.round = self.round;
        let interval =
            if slot.state.health.is_healthy() { active.healthy_interval } else { active.unhealthy_interval };
        if interval.is_zero() || slot.running.load(Ordering::Relaxed) {
            return LOOK;
        }
        let now = clock::monotonic();
        let rest = slot.last.map_or(Duration::ZERO, |at| (at + interval).saturating_duration_since(now));
        if !rest.is_zero() {
            return rest;
        }
        let (made_for, permits) = self.permits.entry(ring.upstream.name.clone()).or_insert_with(|| {
            (active.concurrency, Arc::new(Semaphore::new(active.concurrency.clamp(1, 4096))))
        });
        if *made_for != active.concurrency {
            *made_for = active.concurrency;
            *permits = Arc::new(Semaphore::new(active.concurrency.clamp(1, 4096)));
        }
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else { return BUSY };
        slot.last = Some(now);
        slot.running.store(true, Ordering::Relaxed);
        let running = Arc::clone(&slot.running);
        let tls = (active.kind == ProbeKind::Https).then(|| self.tls.of(snapshot, active.https_verify));
        let ring = Arc::clone(ring);
        tokio::spawn(async move {
            let outcome = probe(&ring, peer, tls).await;
            ring.report_active(&ring.peers[peer].state, outcome, clock::monotonic());
            running.store(false, Ordering::Relaxed);
            drop(permit);
        });
        interval
    }
}

/// TLS settings of probes, made once per config.
#[derive(Default)]
struct Tls {
    generation: u64,
    configs: [Option<Arc<rustls::ClientConfig>>; 2],
}

impl Tls {
    /// `None` where there can be no settings, which makes every probe fail.
    fn of(&mut self, snapshot: &Snapshot, verify: bool) -> Option<Arc<rustls::ClientConfig>> {
        if self.generation != snapshot.generation {
            *self = Self { generation: snapshot.generation, configs: [None, None] };
        }
        let known = &mut self.configs[usize::from(verify)];
        if known.is_none() {
            let settings = ClientSettings {
                verify,
                ca: snapshot.gateway.tls.upstream_authorities().into_iter().collect(),
                ..ClientSettings::default()
            };
            *known = client_config(&settings).ok();
        }
        known.clone()
    }
}

/// One probe, within its timeout.
async fn probe(ring: &Ring, peer: usize, tls: Option<Option<Arc<rustls::ClientConfig>>>) -> Outcome {
    let active = &ring.upstream.active;
    let tls = match tls {
        Some(None) => return Outcome::TcpFailure,
        Some(Some(config)) => {
            let own = &ring.peers[peer].server_name;
            let name = active.https_sni.as_deref().map_or_else(|| Arc::clone(own), Arc::from);
            Some(ClientTls { config, name })
        }
        None => None,
    };
    let ask = ask(ring, peer, tls.as_ref());
    tokio::time::timeout(active.timeout, ask).await.unwrap_or(Outcome::Timeout)
}

async fn ask(ring: &Ring, peer: usize, tls: Option<&ClientTls>) -> Outcome {
    let active = &ring.upstream.active;
    let peer = &ring.peers[peer];
    let mut conn = match connect(peer.addr, tls, active.timeout).await {
        Ok(conn) => conn,
        Err(ConnectError::Timeout) => return Outcome::Timeout,
        Err(_) => return Outcome::TcpFailure,
    };
    if active.kind == ProbeKind::Tcp {
        return Outcome::Connected;
    }
    let head = request(active, &peer.authorities[usize::from(tls.is_some())]);
    let mut sent = 0;
    while sent < head.len() {
        match poll_fn(|cx| conn.io.poll_write_from(cx, &head[sent..])).await {
            Ok(n) if n > 0 => sent += n,
            _ => return Outcome::TcpFailure,
        }
    }
    if poll_fn(|cx| conn.io.poll_flush_all(cx)).await.is_err() {
        return Outcome::TcpFailure;
    }
    let mut response = ResponseHead::default();
    loop {
        match response::parse(conn.buffer.data(), "GET", &mut response) {
            Ok(Some(meta)) if (100..200).contains(&response.status) => conn.buffer.consume(meta.len),
            Ok(Some(_)) => return Outcome::Status(response.status),
            Ok(None) => {
                conn.buffer.grow_if_full();
                match poll_fn(|cx| conn.io.poll_read_into(cx, conn.buffer.spare())).await {
                    Ok(n) if n > 0 => conn.buffer.filled(n),
                    _ => return Outcome::TcpFailure,
                }
            }
            Err(_) => return Outcome::TcpFailure,
        }
    }
}

/// The head of a probe. A `Host` among the config's headers wins over the target's.
fn request(active: &ActiveChecks, host: &str) -> Vec<u8> {
    let is_clean = |s: &str| !s.bytes().any(|b| b < b' ' || b == 0x7f);
    let mut head = format!("GET {} HTTP/1.1\r\n", active.http_path);
    if !active.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        head += &format!("Host: {host}\r\n");
    }
    head += concat!("User-Agent: gw/", env!("CARGO_PKG_VERSION"), "\r\nConnection: close\r\n");
    for (name, value) in active.headers.iter().filter(|(n, v)| is_clean(n) && is_clean(v)) {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_carry_the_configs_headers() {
        let check = |headers: &[(&str, &str)], want: &str| {
            let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let active = ActiveChecks { http_path: "/up".into(), headers, ..ActiveChecks::default() };
            let head = String::from_utf8(request(&active, "a.test:81")).unwrap();
            let agent = concat!("User-Agent: gw/", env!("CARGO_PKG_VERSION"), "\r\nConnection: close\r\n");
            assert_eq!(head.replace(agent, ""), want);
        };
        check(&[], "GET /up HTTP/1.1\r\nHost: a.test:81\r\n\r\n");
        check(
            &[("X-A", "1"), ("X-Bad", "1\r\nX-B: 2")],
            "GET /up HTTP/1.1\r\nHost: a.test:81\r\nX-A: 1\r\n\r\n",
        );
        check(&[("host", "b.test")], "GET /up HTTP/1.1\r\nhost: b.test\r\n\r\n");
    }
}
