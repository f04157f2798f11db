use std::path::PathBuf;

use clap::Parser as _;
use gw_loadgen::limits::{Calendar, Period, Rule, Weekday};

use super::*;

/// The arguments as the command line gives them.
#[derive(clap::Parser)]
struct Bench {
    #[command(flatten)]
    args: Args,
}

fn prepared(words: &[&str]) -> anyhow::Result<(Plan, Vec<Assertion>)> {
    let words = std::iter::once("bench").chain(words.iter().copied());
    prepare(&Bench::try_parse_from(words)?.args)
}

fn fixture() -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/orders/kong.yaml").display().to_string()
}

#[test]
fn flags_become_a_plan() {
    let (plan, asserts) = prepared(&[
        "http://127.0.0.1:1/a?b=1",
        "--rate",
        "500/s",
        "--duration",
        "3s",
        "--header",
        "X-A: 1",
        "--assert",
        "p99<5ms",
    ])
    .unwrap();
    assert_eq!(plan.phases[0].pace, Pace::Rate { from: 500.0, to: 500.0 });
    assert_eq!(plan.phases[0].duration, Some(Duration::from_secs(3)));
    assert_eq!((plan.connections, plan.seed, asserts.len()), (CONNECTIONS, SEED, 1));
    assert_eq!(plan.targets[0].headers["x-a"], "1");
    let (plan, _) = prepared(&["http://127.0.0.1:1/", "--rate", "0", "--body", "x"]).unwrap();
    assert!(!plan.is_open());
    assert_eq!((plan.targets[0].method.as_str(), plan.phases[0].duration), ("POST", Some(DURATION)));
    let (plan, _) = prepared(&["http://127.0.0.1:1/", "-n", "5"]).unwrap();
    assert_eq!((plan.requests, plan.phases[0].duration), (Some(5), None));
}

#[test]
fn mistakes_are_told_before_anything_is_sent() {
    let check = |words: &[&str], part: &str| {
        let error = prepared(words).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(part), "{words:?}: {error}");
    };
    check(&["127.0.0.1:8000"], "neither a URL nor a scenario");
    check(&["ftp://h/"], "not an absolute `http://`");
    check(&["http://h/", "--duration", "10"], "no unit");
    check(&["http://h/", "--assert", "p99<5"], "no unit");
    check(&["http://h/", "--header", "Content-Length: 5"], "set by the connection");
    check(&["http://h/", "--consumer", "alice"], "--config");
    check(&["none.yaml", "--rate", "5/s"], "`--rate` cannot go with a scenario");
    check(&["none.yaml"], "cannot read `none.yaml`");
    check(&["http://h/orders", "--config", &fixture(), "--consumer", "alcie"], "did you mean `alice`");
    check(&["http://h/nowhere", "--config", &fixture(), "--consumer", "alice"], "no route of");
    check(&["http://h/", "--body", "@/nonexistent"], "`@` names a file");
}

#[test]
fn consumers_bring_their_credentials_and_limits() {
    let (plan, _) = prepared(&[
        "http://127.0.0.1:8000/orders",
        "--config",
        &fixture(),
        "--consumer",
        "alice",
        "--consumer",
        "bob",
    ])
    .unwrap();
    assert_eq!(plan.consumers.len(), 2);
    for consumer in &plan.consumers {
        let (name, value) = &consumer.headers[0];
        assert_eq!(name, "authorization");
        assert!(value.is_sensitive() && value.to_str().unwrap().starts_with("Bearer ey"));
    }
    assert_eq!(plan.limits.len(), 2, "each consumer has a counter of its own");
    for (i, limit) in plan.limits.iter().enumerate() {
        assert_eq!(limit.rule, Rule::FixedWindow { limit: 100, period: Period::Minute });
        assert_eq!(limit.members.len(), 1, "limit {i}");
        assert!(limit.counts_rejected, "refused requests count where counters are in Redis");
        assert_eq!(limit.name, "`rate-limiting` of service `order-service`");
    }
}

/// A config with two limits on a route, from a file of its own.
fn with_config(plugins: &str, words: &[&str]) -> Plan {
    let folder = std::env::temp_dir().join(format!("gw-bench-{}-{}", std::process::id(), plugins.len()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("kong.yaml");
    let text = format!(
        "_format_version: \"3.0\"\nservices:\n  - name: s\n    url: http://127.0.0.1:9\n    routes:\n      - {{ name: r, paths: [/r] }}\n\
         consumers:\n  - username: alice\n    keyauth_credentials: [{{ key: alice-key }}]\n  - username: bob\n    \
         keyauth_credentials: [{{ key: bob-key }}]\nplugins:\n{plugins}"
    );
    std::fs::write(&file, text).unwrap();
    let config = file.display().to_string();
    let words: Vec<_> =
        ["http://127.0.0.1:8000/r", "--config", &config].iter().chain(words).copied().collect();
    let plan = prepared(&words).unwrap().0;
    std::fs::remove_dir_all(&folder).unwrap();
    plan
}

#[test]
fn limits_are_those_that_the_gateway_would_apply() {
    let both = ["--consumer", "alice", "--consumer", "bob"];
    let auth = "  - { name: key-auth }\n";
    let plan = with_config(
        &format!("{auth}  - name: rate-limiting\n    config: {{ second: 5, minute: 100, limit_by: ip }}\n"),
        &both,
    );
    assert_eq!(plan.consumers[0].headers[0].0, "apikey");
    assert_eq!(plan.limits.len(), 2);
    assert!(
        plan.limits.iter().all(|l| l.members.len() == 2 && !l.counts_rejected),
        "one address, one counter"
    );

    let plan = with_config(
        &format!(
            "{auth}  - {{ name: rate-limiting, config: {{ minute: 10 }} }}\n  \
             - {{ name: rate-limiting, consumer: bob, config: {{ minute: 60, algorithm: token-bucket, burst: 7 }} }}\n"
        ),
        &both,
    );
    let rules: Vec<_> = plan.limits.iter().map(|l| (l.rule.clone(), l.members[0].consumer)).collect();
    assert!(rules.contains(&(Rule::FixedWindow { limit: 10, period: Period::Minute }, 0)), "{rules:?}");
    assert!(rules.contains(&(Rule::TokenBucket { per_second: 1.0, burst: 7.0 }, 1)), "{rules:?}");

    let plan = with_config("  - { name: rate-limiting, config: { hour: 9, policy: local } }\n", &[]);
    assert_eq!(plan.consumers[0].name, "anonymous");
    assert_eq!(plan.limits[0].rule, Rule::FixedWindow { limit: 9, period: Period::Hour });

    // Statuses, weights, waiting, calendars and keys are the config's.
    let plan = with_config(
        &format!(
            "{auth}  - name: rate-limiting\n    config:\n      error_code: 418\n      delay: 500\n      limits:\n        \
             - {{ name: heavy, limit: 10, period: minute, weight: 3 }}\n        \
             - {{ name: bucket, limit: 60, period: minute, algorithm: token-bucket, burst: 6, weight: 2 }}\n        \
             - {{ name: week, limit: 9, period: week, week_start: sunday, by: [service] }}\n        \
             - {{ name: day, limit: 9, period: day, time_zone: Europe/Berlin, by: ['claim:tenant'] }}\n"
        ),
        &both,
    );
    assert_eq!(plan.refusals, [418]);
    let of = |name: &str| {
        let all: Vec<_> = plan.limits.iter().filter(|l| l.name.contains(name)).collect();
        (all[0].rule.clone(), all.len())
    };
    assert_eq!(of("`heavy`"), (Rule::FixedWindow { limit: 3, period: Period::Minute }, 2));
    assert_eq!(of("`bucket`"), (Rule::WaitingBucket { per_second: 0.5, burst: 3.0, waiting: 0.25 }, 2));
    let zone = |name: &str| gw_runtime::limit::Calendar::zone(name).unwrap();
    let calendar = |period, place: &str, week_start| Calendar { period, zone: zone(place), week_start };
    let week = calendar(Period::Week, "UTC", Weekday::Sunday);
    assert_eq!(of("`week`"), (Rule::CalendarWindow { limit: 9, calendar: week }, 1));
    // Nobody here has the claim, so that all count by address.
    let day = calendar(Period::Day, "Europe/Berlin", Weekday::Monday);
    assert_eq!(of("`day`"), (Rule::CalendarWindow { limit: 9, calendar: day }, 1));
}
