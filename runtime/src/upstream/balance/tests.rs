use super::*;
use crate::snapshot::upstream::{PassiveChecks, Thresholds};

fn ring(config: UpstreamConfig, weights: &[u32]) -> Ring {
    let peers = weights.iter().enumerate().map(|(i, w)| Peer {
        target: i,
        addr: SocketAddr::from(([10, 0, 0, i as u8], 80)),
        weight: *w,
        authorities: ["a".into(), "a".into()],
        server_name: "a".into(),
        state: Arc::default(),
    });
    let peers = peers.collect();
    Ring::new(Arc::new(config), peers)
}

fn passive(recover_after: u64, threshold: f64) -> UpstreamConfig {
    let thresholds = Thresholds {
        http_failures: 1,
        healthy_statuses: vec![200],
        unhealthy_statuses: vec![500],
        ..Thresholds::default()
    };
    let passive = PassiveChecks { thresholds, recover_after: Duration::from_secs(recover_after) };
    UpstreamConfig { passive, threshold, ..UpstreamConfig::default() }
}

fn fail(ring: &Ring, peer: usize, now: Instant) {
    ring.report_passive(&ring.peers[peer].state, Outcome::Status(500), false, now);
}

#[test]
fn what_was_tried_comes_last() {
    let now = Instant::now();
    for algorithm in
        [Algorithm::RoundRobin, Algorithm::ConsistentHashing, Algorithm::LeastConnections, Algorithm::Latency]
    {
        let r = ring(UpstreamConfig { algorithm, ..UpstreamConfig::default() }, &[1, 1, 1]);
        let mut tried = Vec::new();
        for _ in 0..3 {
            let pick = r.pick(77, &tried, now).unwrap();
            let addr = r.peers[pick.peer].addr;
            assert!(!tried.contains(&addr), "{algorithm:?}");
            tried.push(addr);
        }
        assert!(r.pick(77, &tried, now).is_some(), "{algorithm:?}: none is left, so any will do");
    }
}

#[test]
fn a_peer_that_is_out_gets_nothing_but_trials() {
    let now = Instant::now();
    let r = ring(passive(10, 0.0), &[1, 1]);
    fail(&r, 0, now);
    for _ in 0..4 {
        assert_eq!(r.pick(0, &[], now), Some(Pick { peer: 1, trial: false }));
    }
    let later = now + Duration::from_secs(10);
    assert_eq!(r.pick(0, &[], later), Some(Pick { peer: 0, trial: true }));
    assert_eq!(r.pick(0, &[], later), Some(Pick { peer: 1, trial: false }));
    r.report_passive(&r.peers[0].state, Outcome::Status(200), true, later);
    let picks: Vec<_> = (0..4).filter_map(|_| r.pick(0, &[], later)).map(|p| p.peer).collect();
    assert!(picks.contains(&0) && picks.contains(&1), "{picks:?}");
}

#[test]
fn without_recovery_it_stays_out() {
    let now = Instant::now();
    let r = ring(passive(0, 0.0), &[1]);
    fail(&r, 0, now);
    assert_eq!(r.pick(0, &[], now + Duration::from_secs(100_000)), None);
}

#[test]
fn below_the_threshold_the_upstream_is_out() {
    let now = Instant::now();
    for (threshold, weights, out, served) in [
        (0.0, &[1, 1][..], &[0][..], true),
        (50.0, &[1, 1], &[0], true),
        (51.0, &[1, 1], &[0], false),
        (51.0, &[1, 1], &[], true),
        (25.0, &[1, 3], &[1], true),
        (26.0, &[1, 3], &[1], false),
        (100.0, &[1, 1], &[], true),
        (100.0, &[1, 1], &[1], false),
        (0.0, &[1, 1], &[0, 1], false),
        (0.0, &[], &[], false),
    ] {
        let r = ring(passive(0, threshold), weights);
        for i in out {
            fail(&r, *i, now);
        }
        assert_eq!(r.pick(0, &[], now).is_some(), served, "{threshold} {weights:?} {out:?}");
    }
}

#[test]
fn requests_in_flight_are_counted_until_dropped() {
    let now = Instant::now();
    let config = UpstreamConfig { algorithm: Algorithm::LeastConnections, ..UpstreamConfig::default() };
    let r = ring(config, &[1, 1]);
    let first = InFlight::new(&r.peers[0].state);
    for _ in 0..3 {
        assert_eq!(r.pick(0, &[], now).map(|p| p.peer), Some(1));
    }
    drop(first);
    let _second = InFlight::new(&r.peers[1].state);
    for _ in 0..3 {
        assert_eq!(r.pick(0, &[], now).map(|p| p.peer), Some(0));
    }
}

#[test]
fn the_slow_peer_gets_little() {
    let now = Instant::now();
    let r = ring(UpstreamConfig { algorithm: Algorithm::Latency, ..UpstreamConfig::default() }, &[1, 1, 1]);
    for (i, ms) in [(0, 500), (1, 10), (2, 10)] {
        r.observe(&r.peers[i].state, Duration::from_millis(ms), now);
    }
    let slow = (0..300).filter(|_| r.pick(0, &[], now).map(|p| p.peer) == Some(0)).count();
    assert_eq!(slow, 0);
}
