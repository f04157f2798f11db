//! `gw serve --dev`: the production config as it is, and what the terminal offers to try.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use gw_tests::binary::{gw, repository};
use gw_tests::dev::{Dev, FREE, bash};

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

#[test]
fn the_production_config_runs_and_every_line_to_try_does_what_it_says() {
    let mut dev = Dev::start("fixtures/orders/kong.yaml", FREE);
    assert!(dev.shows(&["order-svc.internal:8080", "gw echo on 127.0.0.1:"]), "{:#?}", dev.shown);
    assert!(dev.shows(&["redis.internal:6379", "counters in this process"]), "{:#?}", dev.shown);

    let allowed = dev.command("orders-route -> order-service, as alice").to_owned();
    let answer = bash(&allowed, "-sS");
    assert_eq!(status(&answer), "200", "{answer}");
    for part in
        ["\"x-consumer-username\":\"alice\"", "\"path\":\"/orders\"", "X-RateLimit-Remaining-Minute: 99"]
    {
        assert!(answer.contains(part), "`{part}` not in {answer}");
    }
    assert_eq!(status(&bash(dev.command("401"), "-sS")), "401");
    let tls = bash(dev.command("over TLS"), "-sS");
    assert_eq!(status(&tls), "200", "{tls}");
    assert!(tls.contains("\"x-forwarded-proto\":\"https\""), "{tls}");

    // The request twice above, and a hundred more by one curl.
    let url = allowed.split(' ').find(|w| w.starts_with("http://")).expect("a URL");
    let many = allowed.replace(url, &format!("'{url}?[1-100]'")).replace("curl -i", "curl");
    let statuses = bash(&many, r"-sS -o /dev/null -w '%{http_code}\n'");
    // The window may turn in between, and then more are allowed.
    let refused = statuses.lines().filter(|s| *s == "429").count();
    let passed = statuses.lines().filter(|s| *s == "200").count();
    assert_eq!(passed + refused, 100, "{statuses}");
    if refused == 0 {
        let statuses = bash(&many, r"-sS -o /dev/null -w '%{http_code}\n'");
        assert!(statuses.contains("429"), "{statuses}");
    }

    let proof = bash(dev.command("more than 100 requests a minute: 429"), "");
    assert!(proof.contains("alice: 100 per minute") && proof.contains("held"), "{proof}");

    let mut line = String::new();
    dev.stdout.read_line(&mut line).expect("text");
    for part in [" 200 GET ", " /orders ", " orders-route ", " alice ", " ms"] {
        assert!(line.contains(part), "`{part}` not in `{line}`");
    }
}

/// Ways in which a route is told from others and a caller from others, and what a laptop cannot reach.
const MANY: &str = r#"
_format_version: "3.0"
gateway:
  tls: { cert: /nowhere/cert.pem, key: /nowhere/key.pem }
upstreams:
- name: pool
  targets: [{ target: "pool-1.invalid:9000" }]
services:
- name: secure
  url: https://secure.invalid/base
  tls_verify: true
  routes:
  - { name: by-regex, paths: ["~/items/(?<id>[0-9]+)$"], plugins: [{ name: key-auth, config: { key_names: [x-key] } }, { name: acl, config: { allow: [gold] } }] }
  - { name: by-host, hosts: ["*.shop.test"], plugins: [{ name: basic-auth }] }
  - { name: by-header, paths: [/h], headers: { x-kind: ["it's"] }, methods: [POST] }
  - { name: by-tls, paths: [/s], protocols: [https], snis: [s.shop.test] }
- name: pooled
  host: pool
  routes:
  - { name: to-pool, paths: [/p] }
consumers:
- { username: carol, keyauth_credentials: [{ key: carols-key }] }
- username: dave
  keyauth_credentials: [{ key: "${DEV_TEST_KEY:-daves-key}" }]
  basicauth_credentials: [{ username: dave, password: "it's $(secret)" }]
  acls: [{ group: gold }]
"#;

#[test]
fn every_kind_of_route_and_credential_has_a_line_that_works() {
    let path = std::env::temp_dir().join(format!("gw-dev-{}.yaml", std::process::id()));
    std::fs::write(&path, MANY).expect("a temporary file");
    let dev = Dev::start(path.to_str().expect("UTF-8"), FREE);
    std::fs::remove_file(&path).expect("own file");
    for parts in [
        ["secure.invalid:443", "gw echo"],
        ["pool-1.invalid:9000", "gw echo"],
        ["/nowhere/cert.pem", "development"],
    ] {
        assert!(dev.shows(&parts), "{parts:?} not in {:#?}", dev.shown);
    }
    for (title, want) in [
        ("by-regex -> secure, as dave with an API key", "\"x-consumer-username\":\"dave\""),
        ("by-host -> secure, as dave with a password", "\"x-forwarded-host\":\"www.shop.test\""),
        ("by-header -> secure", "\"x-kind\":\"it's\""),
        ("by-tls -> secure", "\"x-forwarded-host\":\"s.shop.test\""),
    ] {
        let line = dev.command(title);
        let answer = bash(line, "-sS");
        assert_eq!(status(&answer), "200", "{line}\n{answer}");
        assert!(answer.contains(want), "`{want}` not in\n{line}\n{answer}");
    }
}

#[test]
fn a_reload_finds_stand_ins_again() {
    let config =
        std::fs::read_to_string(repository().join("fixtures/orders/kong.yaml")).expect("it is there");
    let path = std::env::temp_dir().join(format!("gw-dev-reload-{}.yaml", std::process::id()));
    std::fs::write(&path, &config).expect("a temporary file");
    let dev = Dev::start(path.to_str().expect("UTF-8"), FREE);
    std::fs::write(&path, config.replace("order-svc.internal", "other-svc.internal")).expect("own file");
    let pid = rustix::process::Pid::from_child(&dev.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("own child");
    let line = dev.command("orders-route -> order-service, as alice");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        // One that comes just as names change hands may be told that there is nobody yet.
        let answer = bash(line, "-sS");
        assert!(["200", "503"].contains(&status(&answer)), "{answer}");
        if answer.contains("\"host\":\"other-svc.internal:8080\"") {
            break;
        }
        assert!(Instant::now() < until, "not reloaded: {answer}");
        std::thread::sleep(Duration::from_millis(200));
    }
    std::fs::remove_file(&path).expect("own file");
}

#[test]
fn without_the_flag_nothing_is_replaced() {
    let port = gw_tests::redis::free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut child = gw()
        .args(["serve", "fixtures/orders/kong.yaml", "--listen", &listen])
        .current_dir(repository())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gw starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.starts_with("listening on") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("text") > 0, "gw ended");
    }
    let mint = "gw token mint --config fixtures/orders/kong.yaml --consumer alice";
    let request = format!(
        "cd '{}' && curl -sS -i -H \"Authorization: Bearer $({mint})\" http://{listen}/orders",
        repository().display()
    );
    let answer = bash(&request, "");
    let _ = child.kill();
    let _ = child.wait();
    // There is no such upstream here.
    assert!(["502", "503"].contains(&status(&answer)), "{answer}");
}
