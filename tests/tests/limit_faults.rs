//! A gateway whose Redis dies, hangs, is slow, forgets, or talks nonsense: it does what the config says, and nobody waits.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::{Connection, Message};
use gw_tests::redis::RedisServer;
use gw_tests::redis_cluster::wait_for;
use gw_tests::tcp_proxy::{Mode, TcpProxy};

/// What a request may wait for Redis, as configured, and what a busy machine may add.
const CAP: Duration = Duration::from_millis(100);
const SLACK: Duration = Duration::from_millis(250);

/// Limits of five a day, with each way to go on without Redis, and one that leases.
const ROUTES: [(&str, &str); 5] = [
    ("/allow", "policy: redis, on_store_error: allow"),
    ("/deny", "policy: redis, on_store_error: deny"),
    ("/local", "policy: redis, on_store_error: local"),
    ("/kong", "policy: redis, fault_tolerant: false"),
    ("/hybrid", "policy: hybrid, on_store_error: deny"),
];

fn gateway(folder: &Folder, port: u16) -> Gateway {
    let mut text = "_format_version: \"3.0\"\nroutes:\n".to_owned();
    for (path, config) in ROUTES {
        let _ = write!(
            text,
            "- name: {}\n  paths: [{path}]\n  plugins:\n  - name: request-termination\n    config: {{ status_code: 200 }}\n  \
             - name: rate-limiting\n    config: {{ day: 5, limit_by: header, header_name: X-Who, {config}, \
             redis: {{ host: 127.0.0.1, port: {port}, max_wait: {} }} }}\n",
            &path[1..],
            CAP.as_millis()
        );
    }
    Gateway::start(&folder.write("gw.yaml", &text), &["--workers", "1"])
}

/// A client that remembers how long it waited.
struct Client {
    connection: Connection,
    longest: Duration,
}

impl Client {
    fn new(gateway: &Gateway) -> Self {
        Self { connection: Connection::open(gateway.addr()), longest: Duration::ZERO }
    }

    fn get(&mut self, path: &str, who: &str) -> Message {
        let began = Instant::now();
        self.connection.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Who: {who}\r\n\r\n"));
        let answer = self.connection.response();
        self.longest = self.longest.max(began.elapsed());
        answer
    }

    /// What is left of the day, as the answer says; none while Redis is away and requests pass unseen.
    fn left(&mut self, path: &str, who: &str) -> Option<u32> {
        self.get(path, who).field("X-RateLimit-Remaining-Day")?.parse().ok()
    }
}

/// Six requests for each route by somebody new, after the fault was noticed.
fn behaves_without_redis(client: &mut Client, what: &str) {
    for (path, _) in ROUTES {
        let who = format!("during {what}");
        let statuses: Vec<u16> = (0..6).map(|_| client.get(path, &who).status()).collect();
        let want = match path {
            "/allow" => [200; 6],
            "/local" => [200, 200, 200, 200, 200, 429],
            "/kong" => [500; 6],
            _ => [503; 6],
        };
        assert_eq!(statuses, want, "{path} {what}");
    }
    let refusal = client.get("/deny", "somebody");
    assert_eq!(refusal.field("Retry-After"), Some("1"), "{refusal:?}");
}

/// Waits until Redis decides again, and sees that it does.
fn recovers(client: &mut Client, what: &str) {
    let who = format!("after {what}");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut lefts = Vec::new();
    while lefts.len() < 2 {
        assert!(Instant::now() < deadline, "{what}: redis is not asked again");
        match client.get("/deny", &who) {
            answer if answer.status() == 503 => std::thread::sleep(Duration::from_millis(20)),
            answer => lefts.push(answer.field("X-RateLimit-Remaining-Day").map(str::to_owned)),
        }
    }
    let left = |n: &str| Some(n.to_owned());
    assert!(lefts == [left("4"), left("3")] || lefts[0] < left("5"), "{what}: {lefts:?}");
}

/// Nothing in Redis is negative or lives for ever.
fn is_clean(server: &RedisServer, what: &str) {
    let mut redis = server.client();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).expect("redis runs");
    assert!(!keys.is_empty(), "{what}: nothing was counted");
    for key in keys {
        let (ttl, values): (i64, Vec<String>) =
            redis::pipe().cmd("TTL").arg(&key).cmd("HVALS").arg(&key).query(&mut redis).expect("redis runs");
        assert!(
            ttl > 0 && values.iter().all(|v| v.split(' ').all(|n| !n.starts_with('-'))),
            "{what}: {key} is {values:?} for {ttl} s"
        );
    }
}

/// Breaks Redis and mends it, and looks at the gateway meanwhile.
fn check(
    what: &str,
    break_it: impl FnOnce(&mut RedisServer, &TcpProxy),
    mend_it: impl FnOnce(&mut RedisServer, &TcpProxy),
) {
    let mut server = RedisServer::start();
    let proxy = TcpProxy::start(server.port());
    let folder = Folder::new("faults");
    let gateway = gateway(&folder, proxy.port());
    wait_for("redis decides", || Client::new(&gateway).left("/allow", "first") == Some(4));
    let mut client = Client::new(&gateway);
    for (path, _) in ROUTES {
        assert_eq!(client.left(path, "before"), Some(4), "{path} {what}");
    }
    break_it(&mut server, &proxy);
    client.longest = Duration::ZERO;
    // The first to come may find out the hard way, for each of Redis' ways to be away, but not one after the other.
    let began = Instant::now();
    let mut slow = 0;
    for _ in 0..40 {
        let at = Instant::now();
        client.get("/deny", "finds out");
        slow += u32::from(at.elapsed() > CAP / 2);
    }
    assert!(slow <= 4, "{what}: {slow} of 40 waited, {:?} in all", began.elapsed());
    behaves_without_redis(&mut client, what);
    assert!(client.longest < CAP + SLACK, "{what}: somebody waited {:?}", client.longest);
    mend_it(&mut server, &proxy);
    recovers(&mut client, what);
    assert!(client.longest < CAP + SLACK, "{what}: somebody waited {:?}", client.longest);
    is_clean(&server, what);
}

#[test]
fn a_killed_redis_that_comes_back_empty() {
    check("killed", |redis, _| redis.kill(), |redis, _| redis.restart());
}

#[test]
fn a_redis_that_hangs() {
    check("paused", |redis, _| redis.pause(), |redis, _| redis.resume());
}

#[test]
fn a_redis_that_takes_200_ms() {
    check("slowed by 200 ms", |_, proxy| proxy.set(Mode::Slow(200)), |_, proxy| proxy.set(Mode::Pass));
}

#[test]
fn a_redis_that_answers_with_errors() {
    check("errors", |_, proxy| proxy.set(Mode::Errors), |_, proxy| proxy.set(Mode::Pass));
}

#[test]
fn a_redis_that_answers_with_garbage() {
    check("garbage", |_, proxy| proxy.set(Mode::Garbage), |_, proxy| proxy.set(Mode::Pass));
}

#[test]
fn a_redis_that_answers_something_else() {
    check("another type", |_, proxy| proxy.set(Mode::WrongType), |_, proxy| proxy.set(Mode::Pass));
}

#[test]
fn a_redis_without_memory_for_more() {
    let set = |redis: &mut RedisServer, limit: &str| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxmemory").arg(limit).exec(&mut redis.client()).expect("redis runs");
    };
    check("out of memory", |redis, _| set(redis, "1"), |redis, _| set(redis, "0"));
}

#[test]
fn a_redis_that_is_not_there_when_the_gateway_starts() {
    let mut server = RedisServer::start();
    server.kill();
    let folder = Folder::new("faults");
    let gateway = gateway(&folder, server.port());
    let mut client = Client::new(&gateway);
    behaves_without_redis(&mut client, "absent");
    assert!(client.longest < CAP + SLACK, "somebody waited {:?}", client.longest);
    server.restart();
    recovers(&mut client, "absent");
}
