//! Plans and quotas as their users meet them: the example, restarts, and who has used what.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Output;

use gw_tests::binary::gw;
use gw_tests::dev::{Dev, FREE};
use gw_tests::folder::Folder;
use gw_tests::redis::RedisServer;
use gw_tests::serving::{Answer, Serving, get, receive};
use rustix::process::Signal;
use serde_json::Value;

const EXAMPLE: &str = "fixtures/plans/kong.yaml";

fn run(args: &[&str]) -> Output {
    gw().args(args).current_dir(gw_tests::binary::repository()).output().expect("gw starts")
}

/// What a run printed, after it ended as it should.
#[track_caller]
fn said(code: i32, args: &[&str]) -> String {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}{errors}");
    if code == 0 { text } else { errors }
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&said(0, args)).expect("JSON and nothing else")
}

/// A field of an answer.
fn field<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|l| {
        let (n, value) = l.split_once(':')?;
        n.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

#[test]
fn the_example_holds_its_plans_warns_at_80_percent_and_reports_usage() {
    let admin = format!("127.0.0.1:{}", gw_tests::redis::free_port());
    let dev = Dev::start(EXAMPLE, &[FREE, &["--admin", &admin]].concat());
    let url =
        dev.shown.iter().find(|l| l.trim().starts_with("http://")).expect("a listener").trim().to_owned();
    let to = url.trim_start_matches("http://").parse().expect("an address");
    let catalogue = format!("{url}/catalogue");

    // Warnings begin with the 48th of 60. A new minute may begin on the way, so what is asserted is what each answer says.
    let mut warned = 0;
    for _ in 0..50 {
        let answer = get(to, "/catalogue?apikey=anna-development-key");
        assert_eq!(answer.status, 200, "{answer:?}");
        let left: u32 = field(&answer, "X-RateLimit-Remaining-per-minute")
            .and_then(|v| v.parse().ok())
            .expect("a number");
        let warning = field(&answer, "X-RateLimit-Warning");
        assert_eq!(warning.is_some(), left <= 12, "{answer:?}");
        warned += u32::from(warning.is_some());
        let daily = field(&answer, "RateLimit").expect("the structured field");
        assert!(daily.contains("\"daily\";r=9"), "{daily}");
    }

    let report = json(&[
        "bench",
        &catalogue,
        "--config",
        EXAMPLE,
        "--consumer",
        "anna",
        "--consumer",
        "ben",
        "--consumer",
        "acme",
        "--requests",
        "400",
        "--connections",
        "4",
        "--no-progress",
        "--format",
        "json",
    ]);
    let text = report.to_string();
    assert!(report["limits"].as_array().is_some_and(|l| l.len() == 5), "{text}");
    // Ben reaches his limit: the 48th to the 60th, and all that are refused, were warned.
    assert!(report["load"]["warned"].as_u64().is_some_and(|n| n >= 12), "{text}");
    let verdicts: Vec<&str> = report["limits"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|l| l["windows"].as_array().or(l["rows"].as_array()).into_iter().flatten())
        .filter_map(|row| row["verdict"].as_str())
        .collect();
    assert!(!verdicts.is_empty() && verdicts.iter().all(|v| !v.contains("admitted")), "{text}");

    let usage = json(&["usage", "--admin", &admin, "--format", "json"]);
    let rows = usage["rows"].as_array().expect("rows");
    let of = |consumer: &str, limit: &str| {
        rows.iter()
            .find(|r| r["consumer"] == consumer && r["limit"] == limit)
            .unwrap_or_else(|| panic!("{consumer} {limit} is not in {usage}"))
    };
    assert_eq!(
        (&of("anna", "daily")["plan"], &of("anna", "daily")["allowed"]),
        (&"free".into(), &1000.into())
    );
    assert!(of("anna", "daily")["used"].as_u64().is_some_and(|n| n >= 60), "{usage}");
    assert_eq!(of("acme", "per-minute")["allowed"], 600);
    assert_eq!(rows.len(), 5, "{usage}");
    let table = said(0, &["usage", "--admin", &admin, "--plan", "pro"]);
    assert!(table.lines().count() == 2 && table.contains("acme"), "{table}");
    let csv = said(0, &["usage", "--admin", &admin, "--consumer", "ben", "--format", "csv"]);
    assert!(csv.starts_with("consumer,plan,route,limit,") && csv.lines().count() == 3, "{csv}");
    for (args, want) in [
        (["--plan", "fre"], "there is no plan `fre`; did you mean `free`?"),
        (["--consumer", "bem"], "there is no consumer `bem`; did you mean `ben`?"),
        (["--route", "catalog"], "there is no route `catalog`; did you mean `catalogue`?"),
    ] {
        let errors = said(2, &[&["usage", "--admin", &admin], &args[..]].concat());
        assert!(errors.contains(want), "{errors}");
    }
    let metrics = get(admin.parse().expect("an address"), "/metrics").body;
    assert!(metrics.contains("limit=\"per-minute\",result=\"refused\""), "{metrics}");
    assert!(warned == 0 || metrics.contains("limit=\"per-minute\",result=\"warned\""), "{metrics}");
}

/// A config whose plans are told apart by what they allow.
fn config(gateway: &str, plugin: &str) -> String {
    format!(
        "_format_version: \"3.0\"
gateway: {{ {gateway} }}
services:
- name: s
  url: http://127.0.0.1:9
  routes:
  - {{ name: first, paths: [/first] }}
  - {{ name: second, paths: [/second] }}
plugins:
- {{ name: key-auth }}
- {{ name: request-termination, config: {{ status_code: 200, message: fine }} }}
- {{ name: rate-limiting, config: {{ day: 5 }} }}
consumer_groups:
- name: free
  plugins: [{{ name: rate-limiting, config: {{ {plugin} limits: [{{ name: daily, limit: 10, period: day }}] }} }}]
- name: pro
  plugins:
  - {{ name: rate-limiting, config: {{ limits: [{{ name: monthly, limit: 100, period: month, time_zone: Europe/Berlin }}] }} }}
  - {{ name: rate-limiting, route: second, config: {{ limits: [{{ name: second, limit: 50, period: day, by: [consumer, route] }}] }} }}
consumers:
- {{ username: free, groups: [free], keyauth_credentials: [{{ key: free-key-0123456789 }}] }}
- {{ username: pro, groups: [pro], keyauth_credentials: [{{ key: pro-key-0123456789 }}] }}
- {{ username: both, groups: [pro, free], keyauth_credentials: [{{ key: both-key-0123456789 }}] }}
- username: own
  groups: [free]
  keyauth_credentials: [{{ key: own-key-0123456789 }}]
  plugins: [{{ name: rate-limiting, config: {{ day: 77 }} }}]
- {{ username: none, keyauth_credentials: [{{ key: none-key-0123456789 }}] }}
"
    )
}

fn ask(gateway: &Serving, route: &str, consumer: &str) -> Answer {
    get(gateway.http, &format!("/{route}?apikey={consumer}-key-0123456789"))
}

#[test]
fn each_consumer_is_under_its_own_plugin_else_its_first_groups_else_everybodys() {
    let gateway = Serving::start(&config("", ""));
    for (consumer, route, name, limit) in [
        ("none", "first", "Day", "5"),
        ("free", "first", "daily", "10"),
        ("pro", "first", "monthly", "100"),
        ("pro", "second", "second", "50"),
        ("both", "first", "monthly", "100"),
        ("own", "first", "Day", "77"),
        ("own", "second", "Day", "77"),
    ] {
        let answer = ask(&gateway, route, consumer);
        let limited: Vec<&str> =
            answer.head.lines().filter_map(|l| l.strip_prefix("X-RateLimit-Limit-")).collect();
        assert_eq!(limited, [format!("{name}: {limit}")], "{consumer} on {route}: {answer:?}");
    }
    let admin = gateway.admin.to_string();
    let usage = json(&["usage", "--admin", &admin, "--format", "json"]);
    let mut rows: Vec<String> = (usage["rows"].as_array().expect("rows").iter())
        .filter(|r| r["used"].as_u64() != Some(0))
        .map(|r| format!("{} {} {} {} {}", r["consumer"], r["plan"], r["route"], r["limit"], r["used"]))
        .map(|r| r.replace('"', ""))
        .collect();
    rows.sort();
    assert_eq!(
        rows,
        [
            "both pro first monthly 1",
            "free free * daily 1",
            "none null * day 1",
            "own null * day 2",
            "pro pro first monthly 1",
            "pro pro second second 1",
        ]
    );
}

#[test]
fn quotas_survive_a_restart_and_a_crash_forgets_no_more_than_a_second() {
    let folder = Folder::new("quotas");
    let file = folder.path().join("counters");
    let config = config(&format!("counter_file: {}", file.display()), "");
    let left = |gateway: &Serving| {
        let answer = ask(gateway, "first", "free");
        field(&answer, "X-RateLimit-Remaining-daily").and_then(|v| v.parse::<u32>().ok()).expect("a number")
    };
    let mut gateway = Serving::start(&config);
    assert_eq!((left(&gateway), left(&gateway)), (9, 8));
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().0.success());
    drop(gateway);

    let mut gateway = Serving::start(&config);
    assert_eq!(left(&gateway), 7, "after an orderly restart");
    // Another gateway must not write to the same file.
    let config_file = folder.write("kong.yaml", &config);
    let path = config_file.display().to_string();
    let errors = said(3, &["serve", &path, "--listen", "127.0.0.1:0"]);
    assert!(errors.contains("another gateway has it open"), "{errors}");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    gateway.signal(Signal::KILL);
    let _ = gateway.ended();
    drop(gateway);

    let usage = said(0, &["usage", &path, "--consumer", "free"]);
    assert!(usage.contains("free") && usage.contains("daily") && usage.contains("30%"), "{usage}");
    let gateway = Serving::start(&config);
    assert_eq!(left(&gateway), 6, "after a crash");
}

#[test]
fn usage_is_read_from_redis_too() {
    let redis = RedisServer::start();
    let plugin = "policy: redis,";
    let url = redis.url();
    let text = config(&format!("redis: \"{url}\""), plugin);
    let mut gateway = Serving::start(&text);
    gateway
        .until("redis counts", |g| field(&ask(g, "first", "free"), "X-RateLimit-Remaining-daily").is_some());
    let folder = Folder::new("usage");
    let file = folder.write("kong.yaml", &text).display().to_string();
    let usage = json(&["usage", &file, "--consumer", "free", "--format", "json"]);
    assert_eq!(usage["rows"][0]["limit"], "daily", "{usage}");
    assert!(usage["rows"][0]["used"].as_u64().is_some_and(|n| n > 0), "{usage}");
    // Others count in memory, which only the gateway knows.
    let errors = said(2, &["usage", &file, "--consumer", "none"]);
    assert!(errors.contains("ask it with --admin"), "{errors}");
    let by_admin = json(&["usage", "--admin", &gateway.admin.to_string(), "--format", "json"]);
    assert!(by_admin["rows"].as_array().is_some_and(|r| r.len() >= 5), "{by_admin}");
    drop(redis);
    let errors = said(3, &["usage", &file, "--consumer", "free"]);
    assert!(errors.contains("cannot read counters: redis://"), "{errors}");
}

#[test]
fn usage_by_address_header_and_other_keys_is_found_in_memory_and_in_redis() {
    let redis = RedisServer::start();
    for policy in ["local", "redis"] {
        let text = format!(
            "_format_version: \"3.0\"
gateway: {{ redis: \"{}\" }}
routes:
- {{ name: r, paths: [/] }}
plugins:
- {{ name: request-termination, config: {{ status_code: 200 }} }}
- name: rate-limiting
  config:
    policy: {policy}
    limits:
    - {{ name: address, limit: 10, period: year, by: [ip] }}
    - {{ name: client, limit: 5, period: year, by: ['header:X-Client'] }}
    - {{ name: token, limit: 4, period: year, by: ['header:X-Api-Key'] }}
",
            redis.url()
        );
        let gateway = Serving::start(&text);
        let send = |client: &str, key: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Client: {client}\r\nX-Api-Key: {key}\r\n\r\n");
            let mut stream = TcpStream::connect(gateway.http).expect("the gateway listens");
            stream.write_all(head.as_bytes()).expect("the gateway reads");
            receive(&mut stream).expect("an answer")
        };
        while field(&send("first", "hunter2"), "X-RateLimit-Remaining-client").is_none() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for client in ["b", "b", "c"] {
            assert_eq!(send(client, &format!("other{client}")).status, 200);
        }
        let admin = gateway.admin.to_string();
        let rows = |keys: &str| {
            json(&["usage", "--admin", &admin, "--keys", keys, "--format", "json"])["rows"].clone()
        };
        let of = |rows: &Value, limit: &str| -> Vec<String> {
            let rows = rows.as_array().expect("rows");
            let rows = rows.iter().filter(|r| r["limit"] == limit);
            rows.map(|r| format!("{} {}", r["key"].as_str().unwrap_or("-"), r["used"])).collect()
        };
        let all = rows("10");
        assert!(of(&all, "address")[0].starts_with("127.0.0.1 "), "{policy}: {all}");
        let clients = of(&all, "client");
        assert!(clients.len() == 3 && clients.contains(&"b 2".to_owned()), "{policy}: {all}");
        assert!(of(&all, "token").iter().all(|t| t.starts_with("sha256=")), "{policy}: {all}");
        assert!(!all.to_string().contains("hunter2"), "{policy}: {all}");
        assert_eq!(of(&rows("1"), "client").len(), 1, "{policy}");
        assert_eq!(rows("0").as_array().map(Vec::len), Some(0), "{policy}: no consumers, no rows");
        if policy == "redis" {
            let folder = Folder::new("usage-keys");
            let file = folder.write("kong.yaml", &text).display().to_string();
            let table = said(0, &["usage", &file, "--keys", "5"]);
            assert!(table.contains("127.0.0.1") && table.contains("client"), "{table}");
            print!("{table}");
        }
    }
}
