use serde_json::{Value, json};

use super::*;
use crate::exchange::Identity;
use crate::policy::testing;
use crate::snapshot::ConsumerId;

/// 2026-10-18T05:20:10Z.
const NOW: u64 = 1_792_300_810_000;

/// Sends requests one after another and compares what comes of each. A line is
/// `[+MS] METHOD PATH [client-ip] [Name=value ...] -> STATUS [(limit:verdict,...)] [cost=N] [Field=value ...]`, where a status
/// of 200 means passed on, `20ms` that the request waits first, `cost` is what the upstream says, and a field without value
/// is absent (`~` is a space).
#[track_caller]
fn check(config: Value, lines: &str) {
    let policy = testing::policy::<RateLimiting>(&config);
    let mut now = NOW;
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (request, want) = line.split_once(" -> ").expect("an arrow");
        let (later, request) = match request.strip_prefix('+') {
            Some(rest) => rest.split_once(' ').expect("a request after the delay"),
            None => ("0", request),
        };
        now += later.parse::<u64>().expect("milliseconds");
        let mut x = exchange(request);
        x.now.unix_ms = now;
        let status = match policy.request(&mut x) {
            Flow::Next => "200".to_owned(),
            Flow::Reply(reply) => reply.status.to_string(),
            Flow::Await(Effect::Sleep(time)) => format!("{}ms", time.as_millis()),
            Flow::Await(effect) => panic!("{effect:?}"),
        };
        let mut want = want.split(' ').peekable();
        assert_eq!(status, want.next().unwrap_or_default(), "{config}: {line}");
        let notes: Vec<_> = x.limit_notes.iter().map(note).collect();
        if want.peek().is_some_and(|w| w.starts_with('(')) {
            assert_eq!(format!("({})", notes.join(",")), want.next().unwrap_or_default(), "{config}: {line}");
        }
        if let Some(cost) = want.peek().and_then(|w| w.strip_prefix("cost=")) {
            testing::response(&policy, &mut x, &format!("200\nX-Cost: {cost}\n\n"));
            assert!(!x.response.fields.contains(&FieldName::new("X-Cost")), "{line}");
            want.next();
        }
        for field in want {
            let (name, value) = field.split_once('=').expect("a field");
            let value = value.replace('~', " ");
            let got = x.response_fields.text(&FieldName::new(name)).unwrap_or_default();
            assert_eq!(got, value, "{config}: {line}");
        }
    }
}

fn note(note: &crate::policy::limit_notes::Note) -> String {
    format!("{}:{}", note.limit, note.verdict.name())
}

/// `METHOD PATH [IP] [Name=value ...]`; `as=0` and `credential=C` say who authenticated.
fn exchange(request: &str) -> Exchange {
    let mut words = request.split(' ');
    let mut text = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut identity = Identity::default();
    let mut known = false;
    for word in words {
        match word.split_once('=') {
            Some(("as", n)) => (identity.consumer, known) = (n.parse().ok().map(ConsumerId), true),
            Some(("credential", id)) => (identity.credential_id, known) = (Some(id.to_owned()), true),
            Some((name, value)) => text += &format!("\n{name}: {value}"),
            None => text += &format!("\nclient-ip: {word}"),
        }
    }
    let mut x = testing::exchange(&text);
    x.identity = known.then_some(identity);
    x
}

#[test]
fn a_limit_admits_so_many_and_says_so() {
    check(
        json!({"minute": 3}),
        "GET / -> 200 X-RateLimit-Limit-Minute=3 X-RateLimit-Remaining-Minute=2 RateLimit-Limit=3 RateLimit-Reset=50 Retry-After=
         GET / -> 200 RateLimit-Remaining=1
         +1999 GET / -> 200 RateLimit-Remaining=0 RateLimit-Reset=49
         GET / -> 429 X-RateLimit-Remaining-Minute=0 RateLimit-Remaining=0 Retry-After=49
         +48000 GET / -> 429 Retry-After=1
         +1 GET / -> 200 RateLimit-Remaining=2 RateLimit-Reset=60",
    );
    check(json!({"second": 1}), "GET / -> 200 RateLimit-Reset=1\nGET / -> 429\n+1000 GET / -> 200");
    check(
        json!({"minute": 1.5}),
        "GET / -> 200 RateLimit-Limit=1.5 RateLimit-Remaining=0.5\nGET / -> 200 RateLimit-Remaining=0\nGET / -> 429",
    );
    check(
        json!({"second": 1, "hour": 2}),
        "GET / -> 200 RateLimit-Limit=1 RateLimit-Remaining=0
         GET / -> 429 X-RateLimit-Remaining-Hour=1 X-RateLimit-Remaining-Second=0
         +1000 GET / -> 200 X-RateLimit-Remaining-Hour=0 RateLimit-Limit=2
         +1000 GET / -> 429 RateLimit-Limit=2 Retry-After=2388",
    );
}

#[test]
fn what_a_refusal_looks_like() {
    let hidden = json!({"minute": 1, "hide_client_headers": true, "ietf_headers": true, "warn_at": 1});
    check(hidden, "GET / -> 200 RateLimit-Limit= RateLimit=\nGET / -> 429 Retry-After= X-RateLimit-Warning=");
    check(json!({"minute": 1, "error_code": 404}), "GET / -> 200\nGET / -> 404");
    check(json!({"minute": 1, "error_code": 200}), "GET / -> 200\nGET / -> 500");
    for (config, want) in [
        (json!({"minute": 1}), "\"message\":\"API rate limit exceeded\""),
        (json!({"minute": 1, "error_message": "slow \"down\""}), r#""message":"slow \"down\"""#),
    ] {
        let policy = testing::policy::<RateLimiting>(&config);
        let mut body = String::new();
        for _ in 0..2 {
            if let Flow::Reply(reply) = policy.request(&mut testing::exchange("GET /")) {
                body = String::from_utf8_lossy(&reply.body).into_owned();
            }
        }
        assert!(body.contains(want), "{body}");
    }
}

#[test]
fn whose_requests_are_counted_together() {
    let one = |extra: Value| {
        let mut config = json!({"minute": 1});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config
    };
    check(
        one(json!({})),
        "GET / 10.0.0.1 as=0 -> 200
         GET / 10.0.0.2 as=0 credential=c -> 429
         GET / 10.0.0.1 as=1 -> 200
         GET / 10.0.0.1 credential=c -> 200
         GET / 10.0.0.2 credential=c -> 429
         GET / 10.0.0.1 -> 200
         GET / 10.0.0.2 -> 200
         GET / 10.0.0.1 -> 429",
    );
    check(
        one(json!({"limit_by": "credential"})),
        "GET / as=0 credential=c -> 200\nGET / as=0 credential=d -> 200\nGET / credential=c -> 429\nGET / as=0 -> 200",
    );
    check(
        one(json!({"limit_by": "ip"})),
        "GET / 10.0.0.1 as=0 -> 200\nGET / 10.0.0.1 as=1 -> 429\nGET / 2001:db8::1 -> 200",
    );
    check(
        one(json!({"limit_by": "header", "header_name": "X-Tenant"})),
        "GET / x-tenant=a -> 200\nGET / X-Tenant=a -> 429\nGET / X-Tenant=b -> 200\nGET / -> 200\nGET / -> 429",
    );
    check(
        one(json!({"limit_by": "path", "path": "/a"})),
        "GET /a 10.0.0.1 -> 200\nGET /a 10.0.0.2 -> 429\nGET /b 10.0.0.2 -> 200\nGET /c 10.0.0.2 -> 429",
    );
}

#[test]
fn extensions_change_how_is_counted() {
    check(
        json!({"minute": 60, "algorithm": "smooth", "ietf_headers": true}),
        "GET / -> 200 RateLimit-Remaining=0 RateLimit-Policy=\"minute\";q=1;w=1
         GET / -> 429 Retry-After=1 RateLimit=\"minute\";r=0;t=1
         +999 GET / -> 429
         +1 GET / -> 200",
    );
    check(
        json!({"minute": 60, "algorithm": "token-bucket", "burst": 2}),
        "GET / -> 200 RateLimit-Limit=60 RateLimit-Remaining=1\nGET / -> 200\nGET / -> 429 Retry-After=1\n+2000 GET / -> 200\nGET / -> 200\nGET / -> 429",
    );
    check(
        json!({"minute": 2, "algorithm": "sliding-window"}),
        "GET / -> 200\nGET / -> 200\n+50000 GET / -> 429 Retry-After=30\n+30000 GET / -> 200 RateLimit-Remaining=0",
    );
    check(
        json!({"minute": 1, "hour": 3, "count_rejected": true}),
        "GET / -> 200\nGET / -> 429\nGET / -> 429\n+60000 GET / -> 429 X-RateLimit-Remaining-Hour=0",
    );
    check(
        json!({"minute": 5, "warn_at": 80}),
        "GET / -> 200\nGET / -> 200\nGET / -> 200 X-RateLimit-Warning=\nGET / -> 200 X-RateLimit-Warning=\"minute\";used=80\nGET / -> 200 X-RateLimit-Warning=\"minute\";used=100",
    );
}

#[test]
fn named_limits_apply_together() {
    check(
        json!({"limits": [
            {"name": "burst", "limit": 2, "period": "second"},
            {"name": "daily", "limit": 5, "period": "day"},
            {"name": "per-address", "limit": 4, "period": "minute", "by": ["ip"]},
        ], "ietf_headers": true}),
        "GET / 10.0.0.1 as=0 -> 200 () X-RateLimit-Remaining-burst=1 X-RateLimit-Limit-daily=5 X-RateLimit-Remaining-per-address=3 RateLimit-Limit=2 RateLimit-Policy=\"burst\";q=2;w=1,~\"daily\";q=5;w=86400,~\"per-address\";q=4;w=60
         GET / 10.0.0.1 as=0 -> 200
         GET / 10.0.0.1 as=0 -> 429 (burst:refused) X-RateLimit-Remaining-daily=3 X-RateLimit-Remaining-per-address=2 Retry-After=1
         GET / 10.0.0.1 as=1 -> 200
         GET / 10.0.0.1 as=1 -> 200
         +1000 GET / 10.0.0.1 as=0 -> 429 (per-address:refused) Retry-After=49 X-RateLimit-Remaining-daily=3 RateLimit=\"burst\";r=2;t=1,~\"daily\";r=3;t=67189,~\"per-address\";r=0;t=49
         GET / 10.0.0.2 as=0 -> 200 X-RateLimit-Remaining-daily=2",
    );
    // Beside Kong's own limits.
    check(
        json!({"minute": 3, "limits": [{"name": "burst", "limit": 60, "period": "minute", "algorithm": "smooth"}]}),
        "GET / -> 200 X-RateLimit-Remaining-Minute=2 X-RateLimit-Remaining-burst=0
         GET / -> 429 (burst:refused) X-RateLimit-Remaining-Minute=2 Retry-After=1",
    );
    // Days are those of the zone: 05:20 UTC is 07:20 there.
    check(
        json!({"limits": [{"name": "d", "limit": 1, "period": "day", "time_zone": "Europe/Berlin"}]}),
        "GET / -> 200 RateLimit-Reset=59990\nGET / -> 429 Retry-After=59990\n+59989999 GET / -> 429\n+1 GET / -> 200",
    );
}

#[test]
fn keys_are_networks_headers_claims_and_lists() {
    let limit = |by: Value| json!({"limits": [{"name": "l", "limit": 1, "period": "minute", "by": by}]});
    check(
        limit(json!(["ip"])),
        "GET / 2001:db8:0:1::1 -> 200\nGET / 2001:db8:0:1:ff::2 -> 429\nGET / 2001:db8:0:2::1 -> 200",
    );
    check(
        json!({"minute": 1, "limit_by": "ip", "ipv6_prefix": 48}),
        "GET / 2001:db8:0:1::1 -> 200\nGET / 2001:db8:0:2::1 -> 429\nGET / 2001:db8:1:1::1 -> 200",
    );
    check(
        limit(json!(["consumer", "header:X-Model"])),
        "GET / as=0 x-model=a -> 200\nGET / as=0 x-model=b -> 200\nGET / as=0 x-model=a -> 429\nGET / as=1 x-model=a -> 200",
    );
    for (by, want) in
        [("consumr", "did you mean `consumer`"), ("header:", "`header:` is nothing"), ("body", "`body`")]
    {
        let (policy, findings) = testing::compile::<RateLimiting>(&limit(json!([by])));
        assert!(policy.is_none(), "{findings:?}");
        assert!(findings[0].contains("is nothing that a limit can count by"), "{want}: {findings:?}");
    }
}

#[test]
fn requests_weigh_what_the_config_says() {
    let limit = |more: Value| {
        let mut limit = json!({"name": "l", "limit": 10, "period": "minute"});
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"limits": [limit]})
    };
    check(
        limit(json!({"weight": 4})),
        "GET / -> 200 RateLimit-Remaining=6\nGET / -> 200 RateLimit-Remaining=2\nGET / -> 429 RateLimit-Remaining=0 Retry-After=50",
    );
    check(
        limit(json!({"weight_header": "X-Weight", "weight": 2})),
        "GET / x-weight=7 -> 200 RateLimit-Remaining=3
         GET / x-weight=0 -> 200 RateLimit-Remaining=2
         GET / x-weight=-5 -> 200 RateLimit-Remaining=0
         GET / x-weight=1 -> 429",
    );
    // What weighs more than the limit never passes, and is not told to wait.
    check(
        limit(json!({"weight_header": "X-Weight"})),
        "GET / x-weight=11 -> 429 Retry-After=\nGET / x-weight=10 -> 200",
    );
    check(
        limit(json!({"cost_header": "X-Cost", "weight": 3})),
        "GET / -> 200 cost=8.5 RateLimit-Remaining=10
         GET / -> 200 cost=5 RateLimit-Remaining=1
         GET / -> 429
         +50000 GET / -> 200 cost=x RateLimit-Remaining=10
         GET / -> 200 cost=0 RateLimit-Remaining=7",
    );
    testing::refuses::<RateLimiting>(
        limit(json!({"weight": 11})),
        "a request that weighs 11 never fits into `l`",
    );
    testing::refuses::<RateLimiting>(
        limit(json!({"cost_header": "A", "weight_header": "B"})),
        "a weight is known before the response or after it, not both",
    );
}

#[test]
fn buckets_may_let_requests_wait_for_their_turn() {
    check(
        json!({"second": 10, "algorithm": "token-bucket", "burst": 1, "delay": 250}),
        "GET / -> 200 ()
         GET / -> 100ms (delay:delayed)
         GET / -> 200ms
         GET / -> 429 (second:refused) Retry-After=1
         +100 GET / -> 200ms
         GET / -> 429",
    );
    let policy = testing::policy::<RateLimiting>(
        &json!({"second": 10, "algorithm": "smooth", "delay": 1000, "delay_waiters": 2}),
    );
    let turn = || {
        let mut x = testing::exchange("GET /");
        x.now.unix_ms = NOW;
        (policy.request(&mut x), x)
    };
    assert!(matches!(turn().0, Flow::Next));
    let (first, mut a) = turn();
    let (second, b) = turn();
    assert!(matches!((first, second), (Flow::Await(_), Flow::Await(_))));
    assert!(matches!(turn().0, Flow::Reply(_)), "two wait already");
    assert!(matches!(policy.resume(&mut a, Answer::Slept), Flow::Next));
    assert!(matches!(turn().0, Flow::Await(_)), "one has had its turn");
    drop(b);
    assert_eq!(policy.queue.as_ref().map(|(_, n)| n.load(Ordering::Relaxed)), Some(0));
}

#[test]
fn dry_runs_refuse_nothing() {
    check(
        json!({"minute": 1, "dry_run": true}),
        "GET / -> 200 () RateLimit-Limit=\nGET / -> 200 (minute:would_refuse)",
    );
    check(
        json!({"minute": 2, "limits": [{"name": "tight", "limit": 1, "period": "minute", "dry_run": true}]}),
        "GET / -> 200 () X-RateLimit-Limit-tight= X-RateLimit-Remaining-Minute=1
         GET / -> 200 (tight:would_refuse)
         GET / -> 429 (tight:would_refuse,minute:refused)",
    );
}

#[test]
fn a_refusal_may_be_a_problem_document() {
    for (config, request, want) in [
        (json!({"minute": 1}), "GET /\nAccept: application/json, application/problem+json", true),
        (json!({"minute": 1, "problem_details": true}), "GET /", true),
        (json!({"minute": 1}), "GET /\nAccept: application/json", false),
    ] {
        let policy = testing::policy::<RateLimiting>(&config);
        assert!(matches!(policy.request(&mut testing::exchange(request)), Flow::Next));
        let Flow::Reply(reply) = policy.request(&mut testing::exchange(request)) else { panic!("{config}") };
        assert_eq!(reply.content_type.as_deref() == Some("application/problem+json"), want, "{config}");
        if want {
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!((&body["status"], &body["violated-policies"]), (&json!(429), &json!(["minute"])));
            assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
        }
    }
}

#[test]
fn limits_of_several_keys_are_asked_of_redis_together() {
    let config = json!({
        "minute": 5, "policy": "redis", "redis": {"host": "redis.test"}, "count_rejected": false,
        "limits": [
            {"name": "address", "limit": 9, "period": "hour", "by": ["ip"]},
            {"name": "cost", "limit": 9, "period": "hour", "cost_header": "X-Cost"},
        ]
    });
    let policy = testing::policy::<RateLimiting>(&config);
    let Flow::Await(Effect::Limits(asks)) = policy.request(&mut testing::exchange("GET /")) else { panic!() };
    let seen: Vec<_> = asks
        .iter()
        .map(|a| (a.request.hits, a.request.sync.is_some(), a.request.rules.rules.len()))
        .collect();
    assert_eq!(seen, [(1, false, 1), (1, false, 1), (0, true, 1)]);
}

#[test]
fn a_silent_redis_is_met_as_configured() {
    let redis = json!({"host": "redis.test"});
    for (extra, want) in [
        (json!({}), (200, 200)),
        (json!({"fault_tolerant": false}), (500, 500)),
        (json!({"on_store_error": "allow", "fault_tolerant": false}), (200, 200)),
        (json!({"on_store_error": "deny"}), (503, 503)),
        (json!({"on_store_error": "local"}), (200, 429)),
    ] {
        let mut config = json!({"minute": 1, "policy": "redis", "redis": redis});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let policy = testing::policy::<RateLimiting>(&config);
        let turn = || {
            let mut x = testing::exchange("GET /");
            assert!(matches!(policy.request(&mut x), Flow::Await(Effect::Limit(_))));
            match policy.resume(&mut x, Answer::Limit(Err(StoreError::Down))) {
                Flow::Next => 200,
                Flow::Reply(reply) => reply.status,
                Flow::Await(_) => 0,
            }
        };
        assert_eq!((turn(), turn()), want, "{config}");
    }
}

#[test]
fn redis_is_found_in_nested_and_in_flat_fields() {
    let settings = |config: Value| match testing::policy::<RateLimiting>(&config).store {
        Store::Redis { settings, sync, .. } => (settings, sync),
        Store::Local => panic!("{config}"),
    };
    let flat = json!({
        "minute": 1, "policy": "redis", "redis_host": "redis.test", "redis_port": 6380, "redis_password": "p",
        "redis_database": 2, "redis_timeout": 1000, "redis_ssl": true, "redis_server_name": "r.test"
    });
    let nested = json!({
        "minute": 1, "policy": "redis", "sync_rate": 0.5,
        "redis": {
            "host": "redis.test", "port": 6380, "password": "p", "database": 2, "timeout": 1000, "ssl": true,
            "server_name": "r.test"
        }
    });
    let (a, none) = settings(flat);
    let (b, sync) = settings(nested);
    assert_eq!((&a.host, a.port, &a.password, a.database), (&b.host, b.port, &b.password, b.database));
    assert_eq!(a, b);
    assert!(none.is_none());
    assert_eq!(sync.map(|s| s.interval_ms), Some(500));
}

#[test]
fn several_servers_are_read_and_contradictions_are_refused() {
    use crate::limit::redis::Topology;
    let with = |redis: Value| json!({"minute": 1, "policy": "redis", "redis": redis});
    let topology = |redis: Value| match testing::policy::<RateLimiting>(&with(redis)).store {
        Store::Redis { settings, .. } => ((settings.host.clone(), settings.port), settings.topology.clone()),
        Store::Local => panic!("a policy of redis"),
    };
    let nodes = json!([{"ip": "10.0.0.1"}, {"ip": "::1", "port": 7001}]);
    let (first, read) = topology(json!({"host": "127.0.0.1", "port": 1, "cluster_nodes": nodes}));
    assert_eq!(first, ("10.0.0.1".to_owned(), 6379));
    let Topology::Cluster(seeds) = read else { panic!("{read:?}") };
    assert_eq!((seeds.nodes[1].host.as_str(), seeds.nodes[1].port, seeds.max_redirections), ("::1", 7001, 5));

    let sentinels = json!([{"host": "s.test"}]);
    let (first, read) =
        topology(json!({"sentinel_master": "m", "sentinel_nodes": sentinels, "sentinel_password": "p"}));
    assert_eq!(first, ("s.test".to_owned(), 26379));
    let Topology::Sentinel(read) = read else { panic!("{read:?}") };
    assert_eq!((read.master.as_str(), read.password.as_deref()), ("m", Some("p")));

    let refuses = |redis: Value, want: &str| testing::refuses::<RateLimiting>(with(redis), want);
    refuses(json!({"sentinel_nodes": sentinels}), "`redis.sentinel_master`: required field missing");
    refuses(json!({"sentinel_master": "m"}), "`redis.sentinel_nodes`: required field missing");
    refuses(json!({"cluster_nodes": nodes, "database": 2}), "`database` is not 0");
    refuses(
        json!({"cluster_nodes": nodes, "sentinel_nodes": sentinels, "sentinel_master": "m"}),
        "are both given",
    );
}

#[test]
fn configs_that_cannot_work_are_refused() {
    let refuses = testing::refuses::<RateLimiting>;
    refuses(json!({}), "at least one of these fields must be non-empty: 'config.second'");
    refuses(
        json!({"second": 10, "hour": 5}),
        "the limit for hour(5.0) cannot be lower than the limit for second(10.0)",
    );
    refuses(json!({"minute": 1, "limit_by": "header"}), "`header_name`: required field missing");
    refuses(json!({"minute": 1, "limit_by": "path"}), "`path`: required field missing");
    refuses(json!({"minute": 1, "policy": "redis"}), "required field missing");
    refuses(json!({"minute": 1, "sync_rate": 1}), "sync_rate can only be used with the redis policy");
    let redis = json!({"host": "redis.test"});
    refuses(json!({"minute": 1, "policy": "redis", "redis": redis, "sync_rate": 0.01}), "`sync_rate` 0.01");
    refuses(
        json!({"minute": 1, "policy": "redis", "redis": redis, "redis_host": "other.test"}),
        "`redis_host` and `redis.host` are both given and differ",
    );
    testing::policy::<RateLimiting>(
        &json!({"minute": 1, "policy": "redis", "redis": redis, "redis_host": "redis.test", "redis_port": 7000}),
    );
    refuses(json!({"minute": 1, "burst": 5}), "`burst` has no meaning");
    refuses(json!({"minute": 1, "algorithm": "smooth", "burst": 0.5}), "less than one request");
    refuses(json!({"minute": 1, "delay": 100}), "`delay` has no meaning for windows");
    let limits = |limits: Value| json!({ "limits": limits });
    let day = json!({"name": "day", "limit": 1, "period": "day"});
    refuses(limits(json!([day, day])), "two limits are called `day`");
    refuses(json!({"day": 1, "limits": [day]}), "two limits are called `day`");
    refuses(json!({"limit_by": "ip", "limits": [day]}), "`limit_by` belongs to `minute` and the like");
    refuses(limits(json!([{"name": "a b", "limit": 1, "period": "day"}])), "`a b` cannot name a limit");
    let zone = |zone: &str, period: &str| {
        limits(json!([{"name": "l", "limit": 1, "period": period, "time_zone": zone}]))
    };
    refuses(zone("Europe/Berlni", "day"), "there is no time zone `Europe/Berlni`");
    refuses(zone("Europe/Berlin", "hour"), "`time_zone` has no meaning here");
    let many: Vec<_> =
        (0..17).map(|n| json!({"name": format!("l{n}"), "limit": 1, "period": "day"})).collect();
    refuses(limits(json!(many)), "at most 16 limits");
}
