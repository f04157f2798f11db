use super::outlier::Verdict;
use super::*;
use crate::snapshot::upstream::{Breaker, Outlier, PassiveChecks, Thresholds};

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
    Ring::new(Arc::new(config), peers, Arc::default())
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

fn shares(r: &Ring, n: u32, now: Instant) -> Vec<usize> {
    let mut all = vec![0; r.peers.len()];
    for key in 0..n {
        if let Some(p) = r.pick(xxhash32(&key.to_le_bytes()), &[], now) {
            all[p.peer] += 1;
        }
    }
    all
}

#[test]
fn who_recovered_begins_with_a_part_of_its_share() {
    let t = Instant::now();
    for algorithm in [Algorithm::RoundRobin, Algorithm::ConsistentHashing] {
        let slow_start = Duration::from_secs(10);
        let config = UpstreamConfig { algorithm, slots: 10_000, slow_start, ..passive(1, 0.0) };
        let r = ring(config, &[1, 1]);
        fail(&r, 0, t);
        let t = t + Duration::from_secs(1);
        assert!(r.pick(0, &[], t).is_some_and(|p| p.trial));
        r.report_passive(&r.peers[0].state, Outcome::Status(200), true, t);
        let at = |s| shares(&r, 1000, t + Duration::from_secs(s))[0];
        let (first, half, whole) = (at(0), at(5), at(10));
        assert!((30..150).contains(&first), "{algorithm:?}: {first}");
        assert!(first < half && half < whole && half > 200, "{algorithm:?}: {first} {half} {whole}");
        assert!((350..650).contains(&whole), "{algorithm:?}: {whole}");
    }
}

fn ejecting(rules: Outlier) -> UpstreamConfig {
    UpstreamConfig { outlier: Some(rules), ..UpstreamConfig::default() }
}

#[test]
fn errors_in_a_row_eject_but_never_too_many() {
    let t = Instant::now();
    for (peers, percent, failing, want_out) in
        [(2, 10, 2, 1), (10, 10, 3, 1), (10, 30, 5, 3), (3, 100, 3, 2), (1, 100, 1, 0)]
    {
        let base = Duration::from_secs(30);
        let rules =
            Outlier { consecutive_errors: 2, max_percent: percent, base, max: base, ..Outlier::default() };
        let r = ring(ejecting(rules), &vec![1; peers]);
        for p in &r.peers[..failing] {
            for _ in 0..3 {
                r.judge(&p.state, Verdict::GatewayError, t);
            }
        }
        let out = |now| r.peers.iter().filter(|p| !r.is_available(p, now)).count();
        assert_eq!(out(t), want_out, "{peers} {percent} {failing}");
        assert_eq!(r.known.ejections.load(Ordering::Relaxed), want_out as u64);
        assert_eq!(shares(&r, 60, t).iter().filter(|n| **n > 0).count(), peers - want_out);
        assert_eq!(out(t + base), 0, "they come back");
    }
}

#[test]
fn a_success_rate_far_below_the_others_ejects() {
    let t = Instant::now();
    let interval = Duration::from_secs(10);
    for (hosts_min, requests_min, out) in [(5, 10, true), (6, 10, false), (5, 11, false)] {
        let rules = Outlier {
            stdev_factor: 1.5,
            hosts_min,
            requests_min,
            interval,
            base: interval,
            max: interval,
            max_percent: 50,
            ..Outlier::default()
        };
        let r = ring(ejecting(rules), &[1; 5]);
        for (i, p) in r.peers.iter().enumerate() {
            for n in 0..10 {
                let bad = i == 3 && n % 2 == 0;
                r.judge(&p.state, if bad { Verdict::Error } else { Verdict::Good }, t);
            }
        }
        assert!(r.peers.iter().all(|p| r.is_available(p, t)), "only once an interval");
        r.judge(&r.peers[0].state, Verdict::Good, t + interval);
        let got: Vec<_> = r.peers.iter().map(|p| r.is_available(p, t + interval)).collect();
        assert_eq!(got, [true, true, true, !out, true], "{hosts_min} {requests_min}");
    }
}

#[test]
fn who_asks_for_a_rest_gets_it_unless_nobody_else_is_there() {
    let t = Instant::now();
    let retry_after = Duration::from_secs(5);
    let r = ring(UpstreamConfig { retry_after, ..UpstreamConfig::default() }, &[1, 1]);
    r.rest(&r.peers[0].state, Duration::from_secs(100), t);
    assert_eq!(shares(&r, 10, t), [0, 10]);
    r.rest(&r.peers[1].state, Duration::from_secs(2), t);
    assert_eq!(shares(&r, 10, t).iter().sum::<usize>(), 10, "all rest: so none does");
    assert_eq!(shares(&r, 10, t + Duration::from_secs(3)), [0, 10]);
    assert_eq!(shares(&r, 10, t + retry_after), [5, 5], "bounded");
}

#[test]
fn a_target_that_is_full_gets_no_more() {
    let t = Instant::now();
    let breaker = Breaker { connections: 1, ..Breaker::default() };
    let r = ring(UpstreamConfig { breaker, ..UpstreamConfig::default() }, &[9, 1]);
    let take = || r.take(0, &[], None, t);
    let (a, b) = (take(), take());
    let peers: Vec<_> = [&a, &b].iter().map(|x| x.as_ref().map(|(p, _)| p.peer)).collect();
    assert!(peers.contains(&Ok(0)) && peers.contains(&Ok(1)), "{peers:?}");
    assert_eq!(take().err(), Some(NoPeer::Full));
    drop(b);
    assert!(take().is_ok());
    assert_eq!(ring(UpstreamConfig::default(), &[]).take(0, &[], None, t).err(), Some(NoPeer::Out));
}
