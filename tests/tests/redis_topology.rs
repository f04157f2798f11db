//! Rate limits in a real Redis Cluster and behind real sentinels.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gw_runtime::clock;
use gw_runtime::effect::redis::RedisLimiter;
use gw_runtime::effect::redis::slots::slot_of;
use gw_runtime::limit::redis::{Address, Seeds, Sentinels, Topology};
use gw_runtime::limit::{
    Algorithm, Identifier, Key, Outcome, Period, RedisSettings, Request, Rule, Rules, StoreError,
};
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::get;
use gw_tests::redis_cluster::{RedisCluster, RedisSentinels, wait_for};

fn worker<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

fn address(port: u16) -> Address {
    Address { host: "127.0.0.1".to_owned(), port }
}

fn settings(topology: Topology) -> Arc<RedisSettings> {
    let settings = RedisSettings::from_url("redis://127.0.0.1").expect("the URL is well-formed");
    Arc::new(RedisSettings { topology, max_wait: Duration::from_millis(500), ..settings })
}

fn cluster_settings(nodes: impl Iterator<Item = u16>) -> Arc<RedisSettings> {
    settings(Topology::Cluster(Seeds { nodes: nodes.map(address).collect(), max_redirections: 5 }))
}

/// A yearly limit, so that no window ends within a test.
fn request(redis: &Arc<RedisSettings>, limit: f64, identifier: &str) -> Request {
    let rule = Rule::new(Algorithm::Fixed, Period::Year, limit);
    Request {
        redis: Arc::clone(redis),
        rules: Arc::new(Rules { rules: vec![rule], count_rejected: false }),
        key: Key::new("r:s", Identifier::Text(identifier.as_bytes())),
        hits: 1,
        sync: None,
        lease: None,
        now_ms: clock::unix_ms(),
    }
}

fn left(outcome: &Outcome) -> f64 {
    outcome.usages().next().expect("one limit").left
}

fn slot(identifier: &str) -> u16 {
    slot_of(&format!("ratelimit:{{r:s:{identifier}}}"))
}

/// Asks until there is an answer, and says how long that took.
async fn patiently(limiter: &RedisLimiter, request: &Request, patience: Duration) -> (Outcome, Duration) {
    let started = Instant::now();
    loop {
        match limiter.take(request).await {
            Ok(outcome) => return (outcome, started.elapsed()),
            Err(error) => assert!(started.elapsed() < patience, "still {error} after {patience:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(15);

#[test]
fn a_cluster_counts_exactly_wherever_the_key_lies() {
    let cluster = RedisCluster::start(3, false);
    let one_seed = cluster_settings(cluster.masters.iter().map(|m| m.port()).take(1));
    let used = RefCell::new([false; 3]);
    let admitted: u32 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let settings = Arc::clone(&one_seed);
                scope.spawn(move || {
                    worker(async {
                        let limiter = RedisLimiter::new();
                        let look = Request { hits: 0, ..request(&settings, 20.0, "look") };
                        patiently(&limiter, &look, PATIENCE).await;
                        let requests: Vec<_> =
                            (0..400).map(|i| request(&settings, 20.0, &format!("k{}", i % 10))).collect();
                        let outcomes =
                            futures_util::future::join_all(requests.iter().map(|r| limiter.take(r))).await;
                        let admitted =
                            |o: &Result<Outcome, StoreError>| o.as_ref().expect("it works").admitted;
                        outcomes.iter().filter(|o| admitted(o)).count() as u32
                    })
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().expect("no worker panics")).sum()
    });
    assert_eq!(admitted, 200, "ten keys of twenty each");
    for i in 0..10 {
        used.borrow_mut()[cluster.master_of(slot(&format!("k{i}")))] = true;
    }
    assert_eq!(used.into_inner(), [true; 3], "the keys lie on all nodes");
}

#[test]
fn a_slot_that_moves_is_followed_without_a_request_that_fails() {
    let cluster = RedisCluster::start(3, false);
    worker(async {
        let settings = cluster_settings(cluster.masters.iter().map(|m| m.port()));
        let limiter = RedisLimiter::new();
        let asked = request(&settings, 100.0, "moving");
        patiently(&limiter, &asked, PATIENCE).await;
        let from = cluster.master_of(slot("moving"));
        let mut want = 99.0;
        let mut counts = async |asked: &Request, what: &str| {
            let outcome = limiter.take(asked).await.expect("redirections are followed");
            assert_eq!(left(&outcome), want, "{what}");
            want -= 1.0;
        };
        let mut at = from;
        for to in [(from + 1) % 3, (from + 2) % 3, from] {
            let moving = cluster.move_slot(slot("moving"), at, to);
            counts(&asked, "the key is still where it was").await;
            moving.keys();
            counts(&asked, "the key has gone ahead of its slot").await;
            counts(&asked, "and again").await;
            moving.finish();
            counts(&asked, "the slot has moved").await;
            at = to;
        }
        // The map is read again, after which nobody is redirected.
        let moved = async || -> u64 {
            let mut sum = 0;
            for node in &cluster.masters {
                let info: String =
                    redis::cmd("INFO").arg("errorstats").query(&mut node.client()).expect("it runs");
                let count = info.lines().find_map(|l| l.strip_prefix("errorstat_MOVED:count="));
                sum += count.and_then(|c| c.trim().parse::<u64>().ok()).unwrap_or(0);
            }
            sum
        };
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = moved().await;
        for _ in 0..20 {
            limiter.take(&asked).await.expect("the cluster works");
        }
        assert_eq!(moved().await, before);
    });
}

#[test]
fn a_dead_node_costs_only_its_own_keys_until_its_replica_takes_over() {
    let mut cluster = RedisCluster::start(3, true);
    worker(async {
        let settings = cluster_settings(cluster.masters.iter().map(|m| m.port()));
        let limiter = RedisLimiter::new();
        let names: Vec<_> = (0..200).map(|i| format!("n{i}")).collect();
        let on = |node: usize| names.iter().find(|n| cluster.master_of(slot(n)) == node).expect("one of 200");
        let requests: Vec<_> = (0..3).map(|node| request(&settings, 100.0, on(node))).collect();
        for asked in &requests {
            patiently(&limiter, asked, PATIENCE).await;
        }
        // What was counted reaches the replicas.
        for master in &cluster.masters {
            let wait: redis::RedisResult<u32> =
                redis::cmd("WAIT").arg(1).arg(2000).query(&mut master.client());
            wait.expect("it runs");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.masters[0].kill();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let started = Instant::now();
        assert!(limiter.take(&requests[0]).await.is_err());
        assert!(started.elapsed() < Duration::from_millis(650), "{:?}", started.elapsed());
        let others = &requests[1..];
        for asked in others {
            limiter.take(asked).await.expect("the other nodes go on");
        }
        let (outcome, took) = patiently(&limiter, &requests[0], PATIENCE).await;
        assert_eq!(left(&outcome), 99.0, "the replica knew the counter; after {took:?}");
    });
}

#[test]
fn a_failover_by_sentinels_is_followed_and_so_is_the_way_back() {
    let mut all = RedisSentinels::start();
    worker(async {
        let nodes = all.ports.iter().copied().map(address).collect();
        let sentinels = Sentinels { master: "counters".to_owned(), nodes, username: None, password: None };
        let settings = settings(Topology::Sentinel(sentinels));
        let limiter = RedisLimiter::new();
        let asked = request(&settings, 100.0, "a");
        patiently(&limiter, &asked, PATIENCE).await;
        patiently(&limiter, &asked, PATIENCE).await;
        let _: u32 = redis::cmd("WAIT").arg(1).arg(2000).query(&mut all.master.client()).expect("it runs");

        all.master.kill();
        let (outcome, _) = patiently(&limiter, &asked, PATIENCE).await;
        assert_eq!(left(&outcome), 98.0, "the new master knew the counter");
        all.wait_for_failover();

        // The old master comes back as a replica, which takes no writes; the sentinels make it one.
        all.master.restart();
        let (outcome, _) = patiently(&limiter, &asked, PATIENCE).await;
        assert_eq!(left(&outcome), 97.0);

        // A master that hangs is replaced, too.
        tokio::time::sleep(Duration::from_secs(4)).await;
        all.replica.pause();
        let (outcome, took) = patiently(&limiter, &asked, Duration::from_secs(30)).await;
        assert!(outcome.admitted, "after {took:?}");
        all.replica.resume();
    });
}

/// Two gateways whose plugin says nothing of Redis count together in that of `gateway.redis`.
#[track_caller]
fn counts_by_the_gateways_own(redis: &str) {
    let folder = Folder::new("gateway-redis");
    let text = format!(
        "_format_version: \"3.0\"
gateway: {{ redis: {redis} }}
routes:
- name: r
  paths: [/]
  plugins:
  - {{ name: request-termination, config: {{ status_code: 200 }} }}
  - {{ name: rate-limiting, config: {{ year: 1000, limit_by: ip, policy: redis, on_store_error: deny, redis: {{ max_wait: 2000 }} }} }}
"
    );
    let file = folder.write("gw.yaml", &text);
    let gateways = [1, 2].map(|_| Gateway::start(&file, &["--workers", "1"]));
    for gateway in &gateways {
        wait_for("redis decides", || get(gateway.addr(), "/").status() == 200);
    }
    let left = |gateway: &Gateway| -> u32 {
        let answer = get(gateway.addr(), "/");
        answer.field("X-RateLimit-Remaining-Year").and_then(|n| n.parse().ok()).expect("redis decides")
    };
    let first = left(&gateways[0]);
    for n in 1..10 {
        assert_eq!(left(&gateways[n % 2]), first - n as u32, "{redis}");
    }
}

#[test]
fn a_cluster_can_be_named_for_the_whole_gateway() {
    let cluster = RedisCluster::start(3, false);
    let nodes: Vec<String> =
        cluster.masters.iter().map(|m| format!("{{ ip: 127.0.0.1, port: {} }}", m.port())).collect();
    counts_by_the_gateways_own(&format!("{{ cluster_nodes: [{}] }}", nodes.join(", ")));
}

#[test]
fn sentinels_can_be_named_for_the_whole_gateway() {
    let all = RedisSentinels::start();
    let nodes: Vec<String> =
        all.ports.iter().map(|port| format!("{{ host: 127.0.0.1, port: {port} }}")).collect();
    counts_by_the_gateways_own(&format!(
        "{{ sentinel_master: counters, sentinel_nodes: [{}] }}",
        nodes.join(", ")
    ));
}
