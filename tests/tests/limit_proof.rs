//! Several gateways on one Redis and on one cluster: what they admit together is what is allowed, to the request where the
//! store is exact, and within the printed bound where requests are leased.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gw_loadgen::limits::{Limit, Member, Period, Rule, Setting, check};
use gw_loadgen::tally::{Event, Fate};
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::{Connection, get};
use gw_tests::redis::RedisServer;
use gw_tests::redis_cluster::{RedisCluster, wait_for};

/// A limit, how it is written, and what it promises of `n` gateways.
struct Case {
    path: &'static str,
    config: &'static str,
    rule: fn(gateways: usize) -> Rule,
    /// How many are admitted in all, where that is known.
    exactly: Option<usize>,
    /// Refusals can be judged: nothing is held in advance, and the algorithm has no memory that cannot be seen.
    strict: bool,
}

const CASES: [Case; 6] = [
    Case {
        path: "/fixed",
        config: "day: 300, policy: redis",
        rule: |_| Rule::FixedWindow { limit: 300, period: Period::Day },
        exactly: Some(300),
        strict: true,
    },
    Case {
        path: "/sliding",
        config: "day: 300, policy: redis, algorithm: sliding-window",
        rule: |_| Rule::SlidingCounter { limit: 300, period: Period::Day },
        exactly: Some(300),
        strict: false,
    },
    Case {
        path: "/bucket",
        config: "second: 50, burst: 20, policy: redis, algorithm: token-bucket, count_rejected: false",
        rule: |_| Rule::TokenBucket { per_second: 50.0, burst: 20.0 },
        exactly: None,
        strict: true,
    },
    Case {
        path: "/hybrid-fixed",
        config: "day: 300, policy: hybrid",
        rule: |_| Rule::FixedWindow { limit: 300, period: Period::Day },
        exactly: Some(300),
        strict: false,
    },
    Case {
        // 5 % of 100: each gateway may hold five.
        path: "/hybrid-bucket",
        config: "second: 100, policy: hybrid, algorithm: token-bucket",
        rule: |n| Rule::TokenBucket { per_second: 100.0, burst: 100.0 + 5.0 * n as f64 },
        exactly: None,
        strict: false,
    },
    Case {
        path: "/hybrid-sliding",
        config: "day: 300, policy: hybrid, algorithm: sliding-window, lease_share: 10",
        rule: |n| Rule::SlidingCounter { limit: 300 + 30 * n as u64, period: Period::Day },
        exactly: Some(300),
        strict: false,
    },
];

fn config(redis: &str) -> String {
    let mut text = "_format_version: \"3.0\"\nroutes:\n".to_owned();
    for case in &CASES {
        let (path, config) = (case.path, case.config);
        let _ = write!(
            text,
            "- name: {}\n  paths: [{path}]\n  plugins:\n  - name: request-termination\n    config: {{ status_code: 200 }}\n  \
             - name: rate-limiting\n    config: {{ {config}, limit_by: ip, on_store_error: deny, redis: {redis} }}\n",
            &path[1..]
        );
    }
    text
}

/// Asks all gateways for so long, as fast as they answer but with pauses; what happened, in the order of sending.
fn fire(gateways: &[SocketAddr], path: &str, time: Duration) -> (u64, Vec<Event>) {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64;
    let started = Instant::now();
    let mut events: Vec<Event> = std::thread::scope(|scope| {
        let clients: Vec<_> = gateways
            .iter()
            .flat_map(|addr| [addr, addr])
            .map(|addr| {
                scope.spawn(move || {
                    let mut connection = Connection::open(*addr);
                    let mut events = Vec::new();
                    while started.elapsed() < time {
                        let sent = started.elapsed().as_nanos() as u64;
                        connection.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
                        let fate = match connection.response().status() {
                            200 => Fate::Admitted,
                            429 => Fate::Rejected,
                            _ => Fate::Unknown,
                        };
                        let received = started.elapsed().as_nanos() as u64;
                        events.push(Event { consumer: 0, target: 0, sent, received, fate });
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    events
                })
            })
            .collect();
        clients.into_iter().flat_map(|c| c.join().expect("no client panics")).collect()
    });
    events.sort_by_key(|e| e.sent);
    (unix, events)
}

fn prove(what: &str, redis: &str, counts: &[usize]) {
    let folder = Folder::new("proof");
    for &n in counts {
        // Each number of gateways has counters of its own: routes have ids by their names.
        let text =
            config(redis).replace("- name: ", &format!("- name: n{n}-")).replace(&format!("n{n}-re"), "re");
        let text = text.replace(&format!("n{n}-rate"), "rate");
        let file = folder.write("gw.yaml", &text);
        let gateways: Vec<Gateway> = (0..n).map(|_| Gateway::start(&file, &["--workers", "1"])).collect();
        let addrs: Vec<SocketAddr> = gateways.iter().map(Gateway::addr).collect();
        for case in &CASES {
            let what = format!("{n} gateways on {what}, {}", case.path);
            // What lies unused in one gateway takes a second to come back for the others.
            let time = Duration::from_millis(if case.path.starts_with("/hybrid") { 4000 } else { 2000 });
            let (started_unix_ns, events) = fire(&addrs, case.path, time);
            let count = |fate| events.iter().filter(|e| e.fate == fate).count();
            let unknown = count(Fate::Unknown);
            assert!(
                unknown * 20 <= events.len(),
                "{what}: {unknown} of {} were not decided on",
                events.len()
            );
            let limit = Limit {
                name: what.clone(),
                rule: (case.rule)(n),
                members: vec![Member { consumer: 0, target: 0 }],
                counts_rejected: false,
            };
            let setting = Setting { started_unix_ns, tolerance: Duration::ZERO, fresh: true };
            for row in &check(&[limit], &events, &setting)[0].rows {
                assert_eq!(row.excess, 0, "{what}: {row:?}");
                assert!(!case.strict || unknown > 0 || row.wrongly_rejected == 0, "{what}: {row:?}");
            }
            let admitted = count(Fate::Admitted);
            if let Some(exactly) = case.exactly {
                assert!(admitted <= exactly, "{what}: {admitted} of {exactly}");
                assert!(unknown > 0 || admitted == exactly, "{what}: {admitted} of {exactly}");
            } else {
                let Rule::TokenBucket { per_second, burst } = (case.rule)(n) else { panic!("a bucket") };
                let entitled = burst.min(events.len() as f64) + time.as_secs_f64() * per_second;
                assert!(admitted as f64 >= 0.6 * entitled, "{what}: {admitted} of {entitled}");
            }
        }
    }
}

#[test]
fn gateways_on_one_redis_admit_together_what_is_allowed() {
    let server = RedisServer::start();
    let redis = format!("{{ host: 127.0.0.1, port: {}, max_wait: 2000 }}", server.port());
    prove("one redis", &redis, &[2, 5, 10]);
    let mut client = server.client();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).expect("redis runs");
    assert!(keys.len() >= 12, "{keys:?}");
    for key in keys {
        let (ttl, values): (i64, Vec<String>) =
            redis::pipe().cmd("TTL").arg(&key).cmd("HVALS").arg(&key).query(&mut client).expect("redis runs");
        assert!(ttl >= 0 || ttl == -2, "{key} never expires");
        assert!(values.iter().all(|v| v.split(' ').all(|n| !n.starts_with('-'))), "{key} is negative");
    }
}

#[test]
fn gateways_on_one_cluster_admit_together_what_is_allowed() {
    let cluster = RedisCluster::start(3, false);
    let nodes: Vec<String> =
        cluster.masters.iter().map(|m| format!("{{ ip: 127.0.0.1, port: {} }}", m.port())).collect();
    let redis = format!("{{ cluster_nodes: [{}], max_wait: 2000 }}", nodes.join(", "));
    prove("a cluster", &redis, &[2, 5, 10]);
}

/// Refusals that Redis has answered once stay with the gateway.
#[test]
fn a_flood_of_refused_requests_does_not_reach_redis() {
    let server = RedisServer::start();
    let folder = Folder::new("flood");
    let redis = format!("{{ host: 127.0.0.1, port: {}, max_wait: 2000 }}", server.port());
    let file = folder.write("gw.yaml", &config(&redis));
    let gateway = Gateway::start(&file, &["--workers", "1"]);
    wait_for("redis is connected", || get(gateway.addr(), "/fixed").status() == 200);
    let commands = || -> u64 {
        let info: String =
            redis::cmd("INFO").arg("commandstats").query(&mut server.client()).expect("redis runs");
        let line = info.lines().find_map(|l| l.strip_prefix("cmdstat_evalsha:calls="));
        line.and_then(|l| l.split(',').next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let (_, admitted) = fire(&[gateway.addr()], "/fixed", Duration::from_secs(2));
    let (asked, sent) = (commands(), admitted.len() as u64);
    // One command a request while it is admitted.
    assert!(asked <= sent.min(300) + 10, "{asked} commands for {sent} requests");
    let (_, refused) = fire(&[gateway.addr()], "/fixed", Duration::from_secs(1));
    if refused.iter().all(|e| e.fate == Fate::Rejected) {
        assert!(commands() <= asked + 2, "{} commands for {} refusals", commands() - asked, refused.len());
    }
}
