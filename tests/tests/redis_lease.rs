//! Leases and remembered refusals against a real Redis.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gw_runtime::clock;
use gw_runtime::effect::redis::RedisLimiter;
use gw_runtime::limit::{
    Algorithm, Identifier, Key, LeaseStore, Period, RedisSettings, Request, Rule, Rules,
};
use gw_tests::redis::RedisServer;

fn worker<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

fn request(server: &RedisServer, rule: Rule, lease: &Arc<LeaseStore>) -> Request {
    let settings = RedisSettings::from_url(&server.url()).expect("the URL is well-formed");
    Request {
        redis: Arc::new(RedisSettings { max_wait: Duration::from_secs(1), ..settings }),
        rules: Arc::new(Rules { rules: vec![rule], count_rejected: false }),
        key: Key::new("r:s", Identifier::Text(b"a")),
        hits: 1,
        sync: None,
        lease: Some(Arc::clone(lease)),
        now_ms: clock::unix_ms(),
    }
}

/// As a gateway does: by itself where it can, else by asking.
async fn admitted(limiter: &RedisLimiter, request: &Request) -> bool {
    let lease = request.lease.as_ref().expect("these tests are about leases");
    match lease.decide(&request.rules, &request.key, request.hits, clock::monotonic()) {
        Some(outcome) => outcome.admitted,
        None => {
            for _ in 0..50 {
                if let Ok(outcome) = limiter.take(request).await {
                    return outcome.admitted;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("redis does not answer");
        }
    }
}

/// Scripts that the server ran.
fn trips(server: &RedisServer) -> u64 {
    let info: String =
        redis::cmd("INFO").arg("commandstats").query(&mut server.client()).expect("redis runs");
    let count = |name: &str| {
        let line = info.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.and_then(|l| l.split(',').next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    count("evalsha") + count("eval")
}

fn count(server: &RedisServer, name: &str) -> f64 {
    let mut get = redis::cmd("HGET");
    get.arg("ratelimit:{r:s:a}").arg(format!("fixed:{name}:{name}"));
    let value: String = get.query(&mut server.client()).expect("it is there");
    value.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn refusals_of_a_window_that_is_used_up_reach_redis_once() {
    let server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let lease = Arc::new(LeaseStore::new(0.0));
        let asked = request(&server, Rule::new(Algorithm::Fixed, Period::Year, 5.0), &lease);
        let mut verdicts = Vec::new();
        for _ in 0..1000 {
            verdicts.push(admitted(&limiter, &asked).await);
        }
        assert_eq!(verdicts.iter().filter(|v| **v).count(), 5);
        assert!(trips(&server) <= 7, "{}", trips(&server));
        assert_eq!(count(&server, "year"), 5.0);
    });
}

#[test]
fn a_bucket_admits_again_the_moment_that_it_may_though_refusals_were_not_asked_about() {
    let server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let lease = Arc::new(LeaseStore::new(0.0));
        let rule = Rule::new(Algorithm::Bucket, Period::Second, 20.0).with_burst(5.0, 0.0);
        let asked = request(&server, rule, &lease);
        let started = Instant::now();
        let (mut passed, mut all) = (0_u32, 0_u32);
        while started.elapsed() < Duration::from_secs(3) {
            passed += u32::from(admitted(&limiter, &asked).await);
            all += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let allowed = 5.0 + 20.0 * started.elapsed().as_secs_f64();
        assert!(f64::from(passed) <= allowed + 1e-6, "{passed} of {allowed}");
        assert!(f64::from(passed) >= allowed * 0.85, "{passed} of {allowed}");
        assert!(trips(&server) < u64::from(all) / 4, "{} trips for {all}", trips(&server));
    });
}

#[test]
fn gateways_with_leases_admit_no_more_than_a_window_allows_and_use_it_up() {
    let server = RedisServer::start();
    let rule = Rule::new(Algorithm::Fixed, Period::Year, 3000.0);
    let total: u32 = std::thread::scope(|scope| {
        let gateways: Vec<_> = (0..5)
            .map(|_| {
                let (server, rule) = (&server, rule.clone());
                scope.spawn(move || {
                    // Each gateway has two workers, which share its lease.
                    let lease = Arc::new(LeaseStore::new(0.05));
                    let total: u32 = std::thread::scope(|inner| {
                        let workers: Vec<_> = (0..2)
                            .map(|_| {
                                let asked = request(server, rule.clone(), &lease);
                                inner.spawn(move || {
                                    worker(async {
                                        let limiter = RedisLimiter::new();
                                        let started = Instant::now();
                                        let mut n = 0;
                                        while started.elapsed() < Duration::from_secs(5) {
                                            n += u32::from(admitted(&limiter, &asked).await);
                                            tokio::time::sleep(Duration::from_micros(500)).await;
                                        }
                                        n
                                    })
                                })
                            })
                            .collect();
                        workers.into_iter().map(|w| w.join().expect("no worker panics")).sum()
                    });
                    total
                })
            })
            .collect();
        gateways.into_iter().map(|g| g.join().expect("no gateway panics")).sum()
    });
    assert_eq!(total, 3000, "no more, and after what was unused has come back, no less");
    let trips = trips(&server);
    assert!(trips < 2500, "{trips} trips, most of them for refusals");
}

#[test]
fn what_an_idle_gateway_holds_comes_back_for_others() {
    let server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let lease = Arc::new(LeaseStore::new(0.5));
        let asked = request(&server, Rule::new(Algorithm::Fixed, Period::Year, 1000.0), &lease);
        for _ in 0..100 {
            assert!(admitted(&limiter, &asked).await);
            tokio::task::yield_now().await;
        }
        assert!(count(&server, "year") > 100.0, "some is held in advance");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(count(&server, "year"), 100.0);
    });
}

#[test]
fn leases_go_on_for_a_moment_without_redis_and_then_say_so() {
    let mut server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let lease = Arc::new(LeaseStore::new(0.5));
        let asked = request(&server, Rule::new(Algorithm::Fixed, Period::Year, 1e6), &lease);
        for _ in 0..2000 {
            assert!(admitted(&limiter, &asked).await);
            tokio::task::yield_now().await;
        }
        server.kill();
        let started = Instant::now();
        let mut without = 0;
        while lease.decide(&asked.rules, &asked.key, 1, clock::monotonic()).is_some() {
            without += 1;
            assert!(started.elapsed() < Duration::from_millis(1100), "a lease lives a second");
        }
        assert!(without > 0);
        assert!(limiter.take(&asked).await.is_err());
    });
}
