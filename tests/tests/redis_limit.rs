//! Rate limits against a real Redis: exact, atomic, bounded in time, and quick to recover.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gw_runtime::clock;
use gw_runtime::effect::redis::RedisLimiter;
use gw_runtime::limit::local::SyncStore;
use gw_runtime::limit::redis::RedisTls;
use gw_runtime::limit::{
    Algorithm, Identifier, Key, LocalStore, Outcome, Period, RedisSettings, Request, Rule, Rules, StoreError,
};
use gw_tests::redis::RedisServer;

/// Runs a test as a worker runs: one thread, one `LocalSet`.
fn worker<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Patient: a machine under load is not what most of these tests are about.
fn settings(server: &RedisServer) -> RedisSettings {
    let settings = RedisSettings::from_url(&server.url()).expect("the URL is well-formed");
    RedisSettings { max_wait: Duration::from_millis(500), ..settings }
}

/// What a busy machine may add to any wait.
const SLACK: Duration = Duration::from_millis(150);

fn request(
    redis: RedisSettings,
    algorithm: Algorithm,
    limits: &[(Period, f64)],
    identifier: &str,
) -> Request {
    let rule = |&(period, limit): &(Period, f64)| Rule::new(algorithm, period, limit);
    Request {
        redis: Arc::new(redis),
        rules: Arc::new(Rules { rules: limits.iter().map(rule).collect(), count_rejected: false }),
        key: Key::new("r:s", Identifier::Text(identifier.as_bytes())),
        hits: 1,
        sync: None,
        lease: None,
        now_ms: clock::unix_ms(),
    }
}

fn lefts(outcome: &Outcome) -> Vec<f64> {
    outcome.usages().map(|u| u.left).collect()
}

async fn taken(limiter: &RedisLimiter, request: &Request) -> Outcome {
    // A machine under load may be slow to connect; that is not what these tests are about.
    for _ in 0..100 {
        match limiter.take(request).await {
            Ok(outcome) => return outcome,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("redis did not become reachable");
}

/// Waits for a new minute if this one is nearly over, so that a test's hits fall into one window.
fn settle_in_window() {
    let second = clock::unix_s() % 60;
    if second > 50 {
        std::thread::sleep(Duration::from_secs(61 - second));
    }
}

#[test]
fn many_workers_admit_exactly_the_limit() {
    let server = RedisServer::start();
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
        let settings = RedisSettings { max_wait: Duration::from_secs(2), ..settings(&server) };
        // The year's refill during the test is far less than one.
        let request = request(settings, algorithm, &[(Period::Year, 200.0)], &format!("{algorithm:?}"));
        let admitted: u32 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    let request = request.clone();
                    scope.spawn(move || {
                        worker(async {
                            let limiter = RedisLimiter::new();
                            taken(&limiter, &Request { hits: 0, ..request.clone() }).await;
                            let each = (0..100).map(|_| limiter.take(&request));
                            let outcomes = futures_util::future::join_all(each).await;
                            outcomes.iter().filter(|o| o.as_ref().expect("redis runs").admitted).count()
                                as u32
                        })
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().expect("no worker panics")).sum()
        });
        assert_eq!(admitted, 200, "{algorithm:?}");
    }
}

#[test]
fn a_refused_request_is_charged_nowhere_or_everywhere() {
    let server = RedisServer::start();
    settle_in_window();
    worker(async {
        let limiter = RedisLimiter::new();
        for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
            for (count_rejected, want) in [(false, [0.0, 8.0]), (true, [-2.0, 6.0])] {
                let name = format!("{algorithm:?} {count_rejected}");
                let limits = [(Period::Minute, 2.0), (Period::Day, 10.0)];
                let mut request = request(settings(&server), algorithm, &limits, &name);
                Arc::make_mut(&mut request.rules).count_rejected = count_rejected;
                let local = LocalStore::default();
                let mut verdicts = Vec::new();
                for _ in 0..4 {
                    verdicts.push(taken(&limiter, &request).await.admitted);
                    let here = local.take(&request.rules, &request.key, 1, clock::unix_ms());
                    assert_eq!(Some(&here.admitted), verdicts.last(), "{name}");
                }
                assert_eq!(verdicts, [true, true, false, false], "{name}");
                // A bucket drains a little meanwhile.
                let rounded = |o: &Outcome| lefts(o).into_iter().map(f64::round).collect::<Vec<_>>();
                let here = local.take(&request.rules, &request.key, 0, clock::unix_ms());
                let there = taken(&limiter, &Request { hits: 0, ..request }).await;
                assert_eq!(rounded(&there), want, "{name}");
                assert_eq!(rounded(&here), want, "{name}, in memory");
            }
        }
    });
}

#[test]
fn a_caller_has_one_key_that_expires_with_the_last_of_its_windows() {
    let server = RedisServer::start();
    settle_in_window();
    let limits: Vec<_> = Period::ALL.iter().map(|p| (*p, 1000.0)).collect();
    let key = "ratelimit:{r:s:10.0.0.1}";
    let mut client = server.client();
    let mut longest = 0;
    for (algorithm, limits) in [
        (Algorithm::Bucket, &limits[..]),
        (Algorithm::Fixed, &limits[..3]),
        (Algorithm::Sliding, &limits[1..4]),
        (Algorithm::Fixed, &limits[..]),
        (Algorithm::Fixed, &limits[..1]),
    ] {
        worker(async {
            let limiter = RedisLimiter::new();
            taken(&limiter, &request(settings(&server), algorithm, limits, "10.0.0.1")).await;
        });
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).expect("redis runs");
        assert_eq!(keys, [key]);
        let ttl: i64 = redis::cmd("TTL").arg(key).query(&mut client).expect("redis runs");
        let most = limits.last().expect("a limit").0.seconds() as i64 * 2 + 2 * 86_400;
        assert!(
            (longest - 2..=most.max(longest)).contains(&ttl) && ttl > 0,
            "{algorithm:?}: {ttl} of {most}"
        );
        longest = ttl;
    }
    let fields: Vec<String> = redis::cmd("HKEYS").arg(key).query(&mut client).expect("redis runs");
    assert!(fields.contains(&"fixed:minute:minute".to_owned()), "{fields:?}");
    assert_eq!(fields.len(), 7 + 7 + 3);
}

#[test]
fn a_forgotten_script_is_loaded_again() {
    let server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let request = request(settings(&server), Algorithm::Fixed, &[(Period::Year, 10.0)], "a");
        assert_eq!(lefts(&taken(&limiter, &request).await), [10.0]);
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut server.client()).expect("redis runs");
        assert_eq!(limiter.take(&request).await.map(|o| lefts(&o)), Ok(vec![9.0]));
    });
}

#[test]
fn a_killed_redis_is_noticed_at_once_and_found_again() {
    let mut server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let request = request(settings(&server), Algorithm::Fixed, &[(Period::Year, 10.0)], "a");
        taken(&limiter, &request).await;
        server.kill();
        let started = Instant::now();
        let mut errors = Vec::new();
        while errors.last() != Some(&StoreError::Down) {
            errors.push(limiter.take(&request).await.expect_err("redis is dead"));
            assert!(started.elapsed() < Duration::from_secs(2), "{errors:?}");
            tokio::task::yield_now().await;
        }
        // From now on nobody waits.
        let started = Instant::now();
        for _ in 0..1000 {
            assert!(limiter.take(&request).await.is_err());
        }
        assert!(started.elapsed() < SLACK, "{:?}", started.elapsed());

        tokio::time::sleep(Duration::from_secs(2)).await;
        server.restart();
        let started = Instant::now();
        let first = taken(&limiter, &request).await;
        assert!(started.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", started.elapsed());
        assert_eq!(lefts(&first), [10.0], "the new server is empty and knows no script");
    });
}

#[test]
fn nobody_waits_longer_than_the_cap_for_a_redis_that_hangs() {
    let server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let cap = Duration::from_millis(50);
        let settings = RedisSettings { max_wait: cap, ..settings(&server) };
        let request = request(settings, Algorithm::Fixed, &[(Period::Year, 1e9)], "a");
        taken(&limiter, &request).await;
        server.pause();
        let longest = Rc::new(Cell::new(Duration::ZERO));
        let started = Instant::now();
        let each = (0..100).map(|i| {
            let (limiter, request, longest) = (&limiter, &request, Rc::clone(&longest));
            async move {
                tokio::time::sleep(Duration::from_millis(i * 3)).await;
                let began = Instant::now();
                let result = limiter.take(request).await;
                longest.set(longest.get().max(began.elapsed()));
                result.map(|_| ())
            }
        });
        let results = futures_util::future::join_all(each).await;
        assert!(results.iter().all(Result::is_err), "{results:?}");
        assert!(longest.get() < cap + SLACK, "one waited {:?}", longest.get());
        assert_eq!(results.last(), Some(&Err(StoreError::Down)), "after a while nobody waits");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        server.resume();
        let back = Instant::now();
        taken(&limiter, &request).await;
        assert!(back.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", back.elapsed());
    });
}

#[test]
fn errors_of_the_server_are_outages_not_refusals() {
    let server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let request = request(settings(&server), Algorithm::Fixed, &[(Period::Year, 10.0)], "a");
        taken(&limiter, &request).await;
        let mut client = server.client();
        for (set, reset) in [(["maxmemory", "1"], ["maxmemory", "0"])] {
            redis::cmd("CONFIG").arg("SET").arg(&set).exec(&mut client).expect("redis runs");
            let mut result = limiter.take(&request).await;
            if result == Err(StoreError::Timeout) {
                result = limiter.take(&request).await;
            }
            assert_eq!(result, Err(StoreError::Refused), "{set:?}");
            redis::cmd("CONFIG").arg("SET").arg(&reset).exec(&mut client).expect("redis runs");
        }
        assert!(taken(&limiter, &request).await.admitted);
    });
}

#[test]
fn login_and_database_are_used() {
    let users = "--user gw on >secret ~ratelimit:* +evalsha +eval +script|load +time +hmget +hset +ttl +expire \
                 +select +dbsize --user default off";
    let server = RedisServer::start_with(&users.split(' ').collect::<Vec<_>>());
    worker(async {
        let with = |password: &str| RedisSettings {
            username: Some("gw".to_owned()),
            password: Some(password.to_owned()),
            database: 3,
            ..settings(&server)
        };
        let limiter = RedisLimiter::new();
        let mut request = request(with("wrong"), Algorithm::Fixed, &[(Period::Year, 10.0)], "a");
        assert!(limiter.take(&request).await.is_err());
        request.redis = Arc::new(with("secret"));
        taken(&limiter, &request).await;
        let url = format!("redis://gw:secret@127.0.0.1:{}/3", server.port());
        let mut client =
            redis::Client::open(url).and_then(|c| c.get_connection()).expect("the login is right");
        let size: i64 = redis::cmd("DBSIZE").query(&mut client).expect("redis runs");
        assert_eq!(size, 1);
    });
}

#[test]
fn tls_is_spoken_and_certificates_are_verified_on_request() {
    let pair = rcgen::generate_simple_self_signed(["redis.test".to_owned()]).expect("a certificate");
    let files = std::env::temp_dir().join(format!("gw-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&files).expect("the temporary directory is writable");
    let (cert, key) = (files.join("cert.pem"), files.join("key.pem"));
    std::fs::write(&cert, pair.cert.pem()).expect("writable");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("writable");
    let port = gw_tests::redis::free_port().to_string();
    let [cert, key] = [&cert, &key].map(|p| p.to_str().expect("a plain path"));
    let server = RedisServer::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
        "--tls-auth-clients",
        "no",
    ]);
    let limit = |verify, server_name: Option<&str>, authorities: Option<&str>| {
        let server_name = server_name.map(str::to_owned);
        let tls = RedisTls { verify, server_name, authorities: authorities.map(Arc::from) };
        let settings = RedisSettings {
            port: port.parse().expect("a port"),
            tls: Some(tls),
            max_wait: Duration::from_secs(1),
            ..settings(&server)
        };
        request(settings, Algorithm::Fixed, &[(Period::Year, 10.0)], "a")
    };
    worker(async {
        let limiter = RedisLimiter::new();
        assert!(taken(&limiter, &limit(false, None, None)).await.admitted);
        assert!(taken(&limiter, &limit(false, Some("redis.test"), None)).await.admitted);
        assert!(
            limiter.take(&limit(true, Some("redis.test"), None)).await.is_err(),
            "nobody vouches for the certificate"
        );
        let own = pair.cert.pem();
        assert!(taken(&limiter, &limit(true, Some("redis.test"), Some(&own))).await.admitted);
        assert!(limiter.take(&limit(true, Some("other.test"), Some(&own))).await.is_err(), "another's name");
    });
    let _ = std::fs::remove_dir_all(&files);
}

#[test]
fn settled_counters_come_together() {
    let server = RedisServer::start();
    worker(async {
        let interval = Duration::from_millis(100);
        let gateway = || (RedisLimiter::new(), Arc::new(SyncStore::new(interval.as_millis() as u64)));
        let (a, b) = (gateway(), gateway());
        let base = request(
            RedisSettings { max_wait: Duration::from_secs(1), ..settings(&server) },
            Algorithm::Fixed,
            &[(Period::Year, 100.0)],
            "a",
        );
        let take = async |(limiter, store): &(RedisLimiter, Arc<SyncStore>)| {
            let request = Request { sync: Some(Arc::clone(store)), now_ms: clock::unix_ms(), ..base.clone() };
            limiter.take(&request).await.expect("a settled limit always answers")
        };
        for _ in 0..30 {
            take(&a).await;
        }
        let left = lefts(&take(&b).await)[0];
        assert!(left >= 70.0, "b knows of a's only what was settled: {left}");
        tokio::time::sleep(interval * 5).await;
        assert_eq!(lefts(&take(&b).await), [69.0], "a's 30 and b's one");
        tokio::time::sleep(interval * 5).await;
        assert_eq!(lefts(&take(&a).await), [68.0], "a's 30 and b's two");
    });
}

#[test]
fn redis_and_memory_count_alike() {
    let server = RedisServer::start();
    settle_in_window();
    worker(async {
        let limiter = RedisLimiter::new();
        for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
            let local = LocalStore::default();
            let limits =
                [(Period::Minute, 2.0), (Period::Day, 5.0), (Period::Month, 5.0), (Period::Year, 7.5)];
            let request = request(settings(&server), algorithm, &limits, &format!("{algorithm:?}"));
            for hits in [1, 0, 1, 1, 0] {
                let asked = Request { hits, ..request.clone() };
                let there = taken(&limiter, &asked).await;
                let here = local.take(&request.rules, &request.key, hits, clock::unix_ms());
                assert_eq!(there.admitted, here.admitted, "{algorithm:?}");
                for (t, h) in there.usages().zip(here.usages()) {
                    assert!((t.left - h.left).abs() < 0.1, "{algorithm:?}: {t:?} {h:?}");
                    assert_eq!(t.exhausted, h.exhausted);
                    assert!(t.reset_s.abs_diff(h.reset_s) <= 1, "{algorithm:?}: {t:?} {h:?}");
                }
            }
        }
    });
}

#[test]
fn hits_that_were_announced_are_settled_however_late_they_come() {
    let server = RedisServer::start();
    worker(async {
        let limiter = RedisLimiter::new();
        let store = Arc::new(SyncStore::new(20));
        let mut request = request(settings(&server), Algorithm::Fixed, &[(Period::Year, 10.0)], "a");
        taken(&limiter, &request).await;
        request.hits = 0;
        let announced = store.announce();
        let looked = Request { sync: Some(Arc::clone(&store)), ..request.clone() };
        assert_eq!(lefts(&taken(&limiter, &looked).await), [9.0]);
        // The upstream takes long to answer, and says what it cost.
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.take(&request.rules, &request.key, 4, clock::unix_ms());
        drop(announced);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(lefts(&taken(&limiter, &request).await), [5.0]);
    });
}

#[test]
fn named_limits_queues_and_calendars_count_alike_and_hits_can_be_given_back() {
    use gw_runtime::limit::Calendar;
    let server = RedisServer::start();
    settle_in_window();
    let zone = |name: &str| Calendar::zone(name).expect("the zone exists");
    let monday = gw_runtime::limit::calendar::Weekday::Monday;
    let calendar = |period, name| Calendar::new(period, zone(name), monday);
    let fixed = |period, name: &str| Rule::new(Algorithm::Fixed, period, 4.0).named(name);
    let rules = Rules {
        rules: vec![
            Rule::new(Algorithm::Bucket, Period::Hour, 10.0).with_burst(2.0, 2.0).named("burst"),
            Rule::new(Algorithm::Sliding, Period::Week, 9.0).named("steady"),
            fixed(Period::Week, "week"),
            fixed(Period::Day, "daily").by_calendar(calendar(Period::Day, "Asia/Kathmandu")),
            fixed(Period::Month, "monthly").by_calendar(calendar(Period::Month, "America/New_York")),
        ],
        count_rejected: false,
    };
    worker(async {
        let limiter = RedisLimiter::new();
        let local = LocalStore::default();
        let mut asked = request(settings(&server), Algorithm::Fixed, &[], "k");
        asked.rules = Arc::new(rules);
        for hits in [1, 1, 1, -1, 1, 1, 0, 1, -3, -3, 0, 2, 0] {
            asked.hits = i32::unsigned_abs(hits);
            if hits < 0 {
                limiter.give_back(&asked).await;
                local.give_back(&asked.rules, &asked.key, asked.hits, clock::unix_ms());
                continue;
            }
            let there = taken(&limiter, &asked).await;
            let here = local.take(&asked.rules, &asked.key, asked.hits, clock::unix_ms());
            assert_eq!(there.admitted, here.admitted);
            for (t, h) in there.usages().zip(here.usages()) {
                assert!((t.left - h.left).abs() < 0.1, "{t:?} {h:?}");
                assert!(t.reset_s.abs_diff(h.reset_s) <= 1, "{t:?} {h:?}");
                assert!(t.delay_ms.abs_diff(h.delay_ms) < 500, "{t:?} {h:?}");
            }
        }
    });
    let now_ms = clock::unix_ms();
    let mut client = server.client();
    let daily = Calendar::new(Period::Day, zone("Asia/Kathmandu"), monday).window(now_ms);
    let held: String = redis::cmd("HGET")
        .arg("ratelimit:{r:s:k}")
        .arg("fixed:day:daily")
        .query(&mut client)
        .expect("it is there");
    assert!(held.starts_with(&format!("{}.", daily.start_ms)), "{held}");
}

#[test]
fn what_one_key_charged_is_given_back_where_another_refuses() {
    use gw_runtime::effect::Effects;
    use gw_runtime::limit::Ask;
    use gw_runtime::policy::{Answer, Effect};
    let server = RedisServer::start();
    settle_in_window();
    worker(async {
        let (effects, limiter) = (Effects::default(), RedisLimiter::new());
        let limited =
            |limit, name| request(settings(&server), Algorithm::Fixed, &[(Period::Day, limit)], name);
        let (wide, tight) = (limited(10.0, "wide"), limited(2.0, "tight"));
        let mut verdicts = Vec::new();
        for _ in 0..100 {
            // A first connection may take its time.
            if limiter.take(&Request { hits: 0, ..wide.clone() }).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while verdicts.len() < 4 {
            let asks = [&wide, &tight].map(|r| Ask { request: r.clone(), dry_run: false });
            match effects.perform(Effect::Limits(asks.into())).await {
                Answer::Limits(Ok(all)) => verdicts.push(all.iter().all(|o| o.admitted)),
                Answer::Limits(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(verdicts, [true, true, false, false]);
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let look = taken(&limiter, &Request { hits: 0, ..wide.clone() }).await;
            if lefts(&look) == [8.0] {
                return;
            }
        }
        panic!("two admitted requests were charged more than twice");
    });
}
