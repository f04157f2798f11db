//! What goes wrong around a gateway, and what its clients see of it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gw_tests::folder::Folder;
use gw_tests::gateway::{Gateway, PATIENCE};
use gw_tests::http::{Connection, Message, get, request};
use gw_tests::redis::{RedisServer, free_port};
use gw_tests::upstream::Upstream;

/// A gateway before one upstream at `/`.
struct Place {
    gateway: Gateway,
    upstream: Upstream,
    _folder: Folder,
}

impl Place {
    /// `more` is whatever follows the service `s` in the config; `{port}` in it is the upstream's.
    fn new(more: &str) -> Self {
        let (upstream, folder) = (Upstream::start(), Folder::new("faults"));
        let config = folder.write("kong.yaml", &config(&upstream, more));
        let gateway = Gateway::start(&config, &[]);
        Self { gateway, upstream, _folder: folder }
    }

    fn addr(&self) -> SocketAddr {
        self.gateway.addr()
    }
}

fn config(upstream: &Upstream, more: &str) -> String {
    let port = upstream.addr().port();
    format!(
        "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://127.0.0.1:{port}\n  read_timeout: 20000\n  routes: [{{ name: all, paths: [/] }}]\n{}",
        more.replace("{port}", &port.to_string())
    )
}

/// Repeats until it holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn limited(redis: &RedisServer, fault_tolerant: bool) -> String {
    format!(
        "plugins:\n- {{ name: rate-limiting, config: {{ year: 100000, policy: redis, fault_tolerant: {fault_tolerant}, redis: {{ host: 127.0.0.1, port: {} }} }} }}\n",
        redis.port()
    )
}

fn remaining(answer: &Message) -> Option<&str> {
    answer.field("x-ratelimit-remaining-year")
}

#[test]
fn a_limit_that_tolerates_faults_outlives_redis_under_load() {
    let mut redis = RedisServer::start();
    let place = Place::new(&limited(&redis, true));
    until("limits are counted", || remaining(&get(place.addr(), "/")).is_some());
    let stop = AtomicBool::new(false);
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(place.addr(), "/");
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                }
            });
        }
        thread::sleep(Duration::from_millis(300));
        redis.kill();
        thread::sleep(Duration::from_secs(1));
        redis.restart();
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
    });
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed: Vec<_> = answers.iter().filter(|a| a.status() != 200).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), answers.len(), failed.first());
    assert!(answers.iter().any(|a| remaining(a).is_none()), "some went through uncounted");
    until("limits resume", || remaining(&get(place.addr(), "/")).is_some());
}

#[test]
fn a_limit_that_does_not_tolerate_faults_answers_500_until_redis_is_back() {
    let mut redis = RedisServer::start();
    let place = Place::new(&limited(&redis, false));
    until("limits are counted", || get(place.addr(), "/").status() == 200);
    redis.kill();
    let before = place.upstream.seen().len();
    for _ in 0..5 {
        let answer = get(place.addr(), "/");
        assert_eq!(answer.status(), 500, "{answer:?}");
        assert!(answer.text().contains("An unexpected error occurred"), "{answer:?}");
    }
    assert_eq!(place.upstream.seen().len(), before, "none was forwarded");
    redis.restart();
    until("the gateway recovers", || remaining(&get(place.addr(), "/")).is_some());
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    let mut place = Place::new("");
    let mut slow = Connection::open(place.addr());
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the upstream is asked", || !place.upstream.seen().is_empty());
    place.gateway.terminate();
    place.gateway.hears("draining");
    let answer = slow.response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!(place.gateway.exit_code(), Some(0));
}

#[test]
fn a_reload_adds_a_route_and_a_bad_config_changes_nothing() {
    let upstream = Upstream::start();
    let folder = Folder::new("faults");
    let with = |paths: &str| config(&upstream, "").replace("paths: [/]", &format!("paths: [{paths}]"));
    let path = folder.write("kong.yaml", &with("/old"));
    let mut gateway = Gateway::start(&path, &[]);
    let statuses = |g: &Gateway| [get(g.addr(), "/old").status(), get(g.addr(), "/new").status()];
    assert_eq!(statuses(&gateway), [200, 404]);
    folder.write("kong.yaml", &with("/old, /new"));
    gateway.reload();
    gateway.hears("reloaded: ");
    until("the route is there", || statuses(&gateway) == [200, 200]);
    folder.write("kong.yaml", "_format_version: \"3.0\"\nservices: [{ nonsense: true }]\n");
    gateway.reload();
    gateway.hears("not reloaded: ");
    assert_eq!(statuses(&gateway), [200, 200]);
}

#[test]
fn an_upstream_that_fails_is_told_from_one_that_is_slow_or_unknown() {
    let more = format!(
        "- {{ name: refused, url: \"http://127.0.0.1:{}\", retries: 0, routes: [{{ paths: [/refused] }}] }}\n\
         - {{ name: silent, url: \"http://127.0.0.1:{{port}}/silent\", read_timeout: 300, retries: 0, routes: [{{ paths: [/quiet] }}] }}\n\
         - {{ name: unknown, url: \"http://no-such-host.invalid\", routes: [{{ paths: [/unknown] }}] }}\n",
        free_port()
    );
    let place = Place::new(&more);
    let cases = [
        ("/refused", 502, "An invalid response was received from the upstream server"),
        ("/quiet", 504, "The upstream server is timing out"),
        ("/unknown", 503, "name resolution failed"),
    ];
    for (path, status, message) in cases {
        let start = Instant::now();
        let answer = request(place.addr(), "GET", path, "Accept: application/json\r\n");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!((answer.status(), body["message"].as_str()), (status, Some(message)), "{path}");
        let took = start.elapsed();
        if status == 504 {
            assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(5), "{took:?}");
        }
    }
}

#[test]
fn a_pooled_connection_that_went_stale_is_not_the_clients_trouble() {
    let place = Place::new("");
    for round in 0..10 {
        assert_eq!(get(place.addr(), "/close").status(), 200, "round {round}: it closes behind the answer");
        // A POST that meets the end on its way is not sent again, so the end must have come first.
        std::thread::sleep(Duration::from_millis(50));
        let post = request(place.addr(), "POST", "/", "Content-Length: 0\r\n");
        assert_eq!(post.status(), 200, "round {round}");
        place.upstream.close_connections();
        assert_eq!(get(place.addr(), "/").status(), 200, "round {round}: after all were closed");
    }
    assert_eq!(place.upstream.seen().len(), 30, "each request came once");
    for _ in 0..10 {
        get(place.addr(), "/");
    }
    // Each of the two workers may have a connection of its own.
    let connections = place.upstream.connections();
    for _ in 0..20 {
        get(place.addr(), "/");
    }
    assert!(place.upstream.connections() <= connections + 1, "connections are kept where they can be");
}

#[test]
fn two_framings_at_once_are_refused() {
    let place = Place::new("");
    let cases = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
    ];
    for fields in cases {
        let mut connection = Connection::open(place.addr());
        connection.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        let answer = connection.response();
        assert_eq!(answer.status(), 400, "{fields}{answer:?}");
        assert_eq!(connection.rest(), b"", "{fields}: the connection is closed and nothing more is answered");
    }
    assert_eq!(place.upstream.seen().len(), 0, "nothing reaches the upstream");
}

#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    let place = Place::new("");
    let body: Vec<u8> =
        (0..10 * 1024 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let answer = thread::scope(|scope| {
        let head = format!("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut connection = Connection::open(place.addr());
        let body = &body;
        scope
            .spawn(move || {
                connection.send(head);
                connection.send(body);
                connection.response()
            })
            .join()
            .expect("no panic")
    });
    assert_eq!(answer.status(), 200);
    assert!(answer.body == body, "downloaded {} bytes, not the same", answer.body.len());
    assert!(place.upstream.seen()[0].body == body, "uploaded bytes are not the same");
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let place = Place::new("");
    let mut connection = Connection::open(place.addr());
    connection.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = connection.head();
    assert_eq!((head.status(), head.field("content-length")), (200, Some("2")));
    // The connection goes on, so nothing stood where a body would be.
    connection.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(connection.response().text(), "ok");
    assert_eq!(connection.rest(), b"");
}

#[test]
fn a_client_that_waits_for_100_is_told_to_continue() {
    let place = Place::new("");
    let mut connection = Connection::open(place.addr());
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let interim = connection.head();
    assert_eq!(interim.status(), 100, "{interim:?}");
    connection.send("hello");
    let answer = connection.response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
}

#[test]
fn a_websocket_is_a_tunnel_of_bytes() {
    let place = Place::new("");
    let mut connection = Connection::open(place.addr());
    connection.send(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = connection.head();
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    let seen = place.upstream.seen();
    assert_eq!(seen[0].field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    for n in [1_usize, 125, 3000, 100_000] {
        let sent: Vec<u8> = (0..n).map(|i| (i % 251) as u8).collect();
        connection.send(&sent);
        assert!(connection.bytes(n) == sent, "{n} bytes come back as they were");
    }
}

#[test]
fn an_upstream_that_takes_nothing_of_a_body_is_given_up_in_time() {
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
    let port = deaf.local_addr().expect("a bound socket has an address").port();
    let folder = Folder::new("write-timeout");
    let config = folder.write(
        "kong.yaml",
        &format!(
            "_format_version: \"3.0\"\nservices:\n- url: http://127.0.0.1:{port}\n  write_timeout: 300\n  read_timeout: 20000\n  \
             retries: 0\n  routes: [{{ paths: [/] }}]\n"
        ),
    );
    let gateway = Gateway::start(&config, &["--workers", "1"]);
    for framing in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("PUT / HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n"));
        let started = Instant::now();
        let mut writer = connection.writer();
        // More than sockets between here and there hold; the gateway stops taking it.
        let client = thread::spawn(move || {
            let piece = vec![b'x'; 64 * 1024];
            let chunked = [b"10000\r\n", &piece[..], b"\r\n"].concat();
            let bytes = if framing.starts_with('T') { &chunked } else { &piece };
            while writer.write_all(bytes).is_ok() {}
        });
        let answer = connection.head();
        assert_eq!(answer.status(), 504, "{framing}: {answer:?}");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{framing}: {took:?}");
        drop(connection);
        client.join().expect("the client ends with its connection");
    }
}

#[test]
fn a_client_that_pauses_is_not_taken_for_an_upstream_that_does() {
    let place = Place::new(
        "- { name: w, url: \"http://127.0.0.1:{port}\", write_timeout: 200, routes: [{ paths: [/pause] }] }\n",
    );
    let mut connection = Connection::open(place.addr());
    connection.send("PUT /pause HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabc");
    thread::sleep(Duration::from_millis(700));
    connection.send("def");
    assert_eq!(connection.response().text(), "abcdef");
}
