//! SIGTERM, whatever the gateway is doing: it ends with 0, and at the latest when the time for draining is over.
//!
//! `GW_DRAIN_ROUNDS=20` repeats every case, for those who look for what happens seldom.

use std::any::Any;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gw_tests::binary::gw;
use gw_tests::counting_upstream::Upstream;
use gw_tests::dev::Dev;
use gw_tests::h2::{self, Frame, H2};
use gw_tests::redis::RedisServer;
use gw_tests::serving::{PATIENCE, Serving, ask, receive};
use rustix::process::{Pid, Signal, kill_process};

/// What a machine that is busy with other tests may add.
const SLACK: Duration = Duration::from_secs(4);

fn config(upstream: &Upstream, redis: &RedisServer, drain: u32) -> String {
    format!(
        "_format_version: \"3.0\"
gateway: {{ drain: {drain} }}
services:
- name: all
  url: {}
  routes:
  - {{ name: all, paths: [/], strip_path: false }}
  - name: counted
    paths: [/counted]
    plugins:
    - name: rate-limiting
      config:
        hour: 1000000
        policy: redis
        redis: {{ host: 127.0.0.1, port: {}, timeout: 60000 }}
",
        upstream.url(),
        redis.port()
    )
}

/// What a case has to play with.
struct Stage<'a> {
    gw: &'a Serving,
    redis: &'a RedisServer,
}

/// What a case keeps open until the gateway has ended.
type Held = Box<dyn Any>;

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

fn send(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(to);
    stream.write_all(bytes).expect("the gateway reads");
    stream
}

fn many<T: 'static>(one: impl Fn() -> T) -> Held {
    Box::new((0..6).map(|_| one()).collect::<Vec<T>>())
}

fn nothing(_: &Stage<'_>) -> Held {
    Box::new(())
}

fn silent(s: &Stage<'_>) -> Held {
    many(|| connect(s.gw.http))
}

fn idle(s: &Stage<'_>) -> Held {
    many(|| {
        let mut stream = connect(s.gw.http);
        assert_eq!(ask(&mut stream, "/").expect("an answer").status, 200);
        stream
    })
}

fn half_a_head(s: &Stage<'_>) -> Held {
    many(|| send(s.gw.http, b"GET / HTTP/1.1\r\nHost: te"))
}

fn half_a_body(s: &Stage<'_>) -> Held {
    many(|| send(s.gw.http, b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf"))
}

fn slow_answer(s: &Stage<'_>) -> Held {
    many(|| send(s.gw.http, b"GET /wait/500 HTTP/1.1\r\nHost: test\r\n\r\n"))
}

fn endless_answer(s: &Stage<'_>) -> Held {
    many(|| send(s.gw.http, b"GET /wait/600000 HTTP/1.1\r\nHost: test\r\n\r\n"))
}

fn event_stream(s: &Stage<'_>) -> Held {
    many(|| {
        let mut stream = send(s.gw.http, b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(receive(&mut stream).expect("a head").status, 200);
        stream
    })
}

fn websocket(s: &Stage<'_>) -> Held {
    many(|| {
        let mut stream = send(
            s.gw.http,
            b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert_eq!(receive(&mut stream).expect("an answer").status, 101);
        stream
    })
}

/// Clients that read on, as living ones do.
fn h2_idle(s: &Stage<'_>) -> Held {
    many(|| {
        let mut h2 = H2::open(s.gw.http);
        assert!(h2.get(1, "/").is_some());
        std::thread::spawn(move || while h2.receive().is_some() {})
    })
}

/// Clients that are open and have stopped to listen.
fn h2_deaf(s: &Stage<'_>) -> Held {
    many(|| {
        let mut h2 = H2::open(s.gw.http);
        assert!(h2.get(1, "/").is_some());
        h2
    })
}

fn h2_streams(s: &Stage<'_>) -> Held {
    many(|| {
        let mut h2 = H2::open(s.gw.http);
        for n in 0..4 {
            h2.send(&[Frame::request(2 * n + 1, "GET", "/wait/600000", h2::END_STREAM)]);
        }
        std::thread::spawn(move || while h2.receive().is_some() {})
    })
}

fn h2_preface(s: &Stage<'_>) -> Held {
    many(|| send(s.gw.http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
}

/// The start of a TLS record that never comes whole.
fn half_a_handshake(s: &Stage<'_>) -> Held {
    many(|| send(s.gw.https, &[22, 3, 1, 2, 0, 1, 0]))
}

fn admin(s: &Stage<'_>) -> Held {
    many(|| send(s.gw.admin, b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"))
}

fn redis_waits(s: &Stage<'_>) -> Held {
    assert_eq!(ask(&mut connect(s.gw.http), "/counted").expect("an answer").status, 200);
    s.redis.pause();
    many(|| send(s.gw.http, b"GET /counted HTTP/1.1\r\nHost: test\r\n\r\n"))
}

fn reload(s: &Stage<'_>) -> Held {
    s.gw.signal(Signal::HUP);
    Box::new(())
}

/// Clients that come back as fast as they can.
struct Load(Arc<AtomicBool>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn load(s: &Stage<'_>) -> Held {
    let stop = Arc::new(AtomicBool::new(false));
    for n in 0..6 {
        let (to, stop) = (s.gw.http, Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut kept = None;
            while !stop.load(Ordering::Relaxed) {
                let Some(mut stream) = kept.take().or_else(|| TcpStream::connect(to).ok()) else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let answered = ask(&mut stream, "/").is_ok();
                kept = (answered && n % 2 == 0).then_some(stream);
            }
        });
    }
    std::thread::sleep(Duration::from_millis(150));
    Box::new(Load(stop))
}

/// Name, what the gateway is busy with, and whether it may take all its time.
const CASES: &[(&str, fn(&Stage<'_>) -> Held, bool)] = &[
    ("nothing", nothing, false),
    ("connections without a byte", silent, false),
    ("idle connections", idle, false),
    ("half a head", half_a_head, true),
    ("half a body", half_a_body, true),
    ("a slow answer", slow_answer, false),
    ("an answer that does not come", endless_answer, true),
    ("an event stream", event_stream, true),
    ("a WebSocket", websocket, true),
    ("idle HTTP/2", h2_idle, false),
    ("HTTP/2 clients that are gone without a word", h2_deaf, true),
    ("HTTP/2 streams", h2_streams, true),
    ("an HTTP/2 preface alone", h2_preface, true),
    ("half a TLS handshake", half_a_handshake, false),
    ("admin connections", admin, false),
    ("requests that wait for Redis", redis_waits, true),
    ("a reload", reload, false),
    ("load", load, false),
];

fn rounds() -> usize {
    std::env::var("GW_DRAIN_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Runs every case with so many workers. Where the gateway need not wait, it must not.
fn check(workers: &str) {
    let upstream = Upstream::start();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("the name is valid");
    let files = [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())];
    let files = [("cert.pem", files[0].1.as_str()), ("key.pem", files[1].1.as_str())];
    let args = ["--workers", workers, "--listen-tls", "127.0.0.1:0", "--tls-cert", "{dir}/cert.pem"];
    let args = [&args[..], &["--tls-key", "{dir}/key.pem"]].concat();
    for round in 0..rounds() {
        for (name, begin, may_take_all) in CASES {
            let redis = RedisServer::start();
            let drain: u32 = if *may_take_all { 1 } else { 12 };
            let config = config(&upstream, &redis, drain);
            let mut gw = Serving::start_with(&config, &files, &args, &[]);
            let held = begin(&Stage { gw: &gw, redis: &redis });
            // Odd rounds give what was sent no time to arrive.
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            gw.signal(Signal::TERM);
            let (status, took) = gw.ended();
            drop(held);
            assert_eq!(status.code(), Some(0), "{name}, {workers} workers: {}", gw.log());
            let most = if *may_take_all { Duration::from_secs(1) + SLACK } else { 2 * SLACK };
            assert!(took < most, "{name}, {workers} workers: took {took:?}");
        }
    }
}

#[test]
fn one_worker_ends() {
    check("1");
}

#[test]
fn two_workers_end() {
    check("2");
}

#[test]
fn four_workers_end() {
    check("4");
}

#[test]
fn the_first_moment_is_early_enough() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    for round in 0..5 * rounds() {
        let dir = gw_tests::folder::Folder::new("drain");
        let file = dir.write("gw.yaml", &config(&upstream, &redis, 10));
        let mut child = gw()
            .args(["serve", "--listen", "127.0.0.1:0", "--workers", "2"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gw starts");
        // Before it listens the signal may end it as it ends any process.
        std::thread::sleep(Duration::from_millis(10 * (round as u64 % 8)));
        kill_process(Pid::from_child(&child), Signal::TERM).expect("a child of this process");
        let since = Instant::now();
        while child.try_wait().expect("a child of this process").is_none() {
            assert!(since.elapsed() < 2 * SLACK, "round {round}: gw does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    for _ in 0..rounds() {
        let mut gw = Serving::start(&config(&upstream, &redis, 600));
        let held = endless_answer(&Stage { gw: &gw, redis: &redis });
        std::thread::sleep(Duration::from_millis(100));
        gw.signal(Signal::TERM);
        gw.until("it drains", |gw| gw.log().contains("draining"));
        gw.signal(Signal::TERM);
        let (status, took) = gw.ended();
        drop(held);
        assert_eq!(status.code(), Some(0));
        assert!(took < SLACK, "{took:?}");
    }
}

/// The stand-ins of `--dev` run in the same process and must not keep it.
#[test]
fn dev_ends_and_ends_at_once_when_told_twice() {
    for _ in 0..rounds() {
        for twice in [false, true] {
            let mut dev = Dev::start("fixtures/orders/kong.yaml", gw_tests::dev::FREE);
            let shown = dev.shown.join("\n");
            let addr = shown.lines().find_map(|l| l.trim().strip_prefix("http://")?.parse().ok());
            let mut kept = connect(addr.expect("an address"));
            assert_eq!(ask(&mut kept, "/orders").expect("an answer").status, 401);
            let line = dev.command("as alice").replace("/orders", "/orders?delay=9s");
            let asking = std::thread::spawn(move || twice.then(|| bash_quietly(&line)));
            std::thread::sleep(Duration::from_millis(500));
            let pid = Pid::from_child(&dev.child);
            kill_process(pid, Signal::TERM).expect("a child of this process");
            if twice {
                std::thread::sleep(Duration::from_millis(200));
                kill_process(pid, Signal::TERM).expect("a child of this process");
            }
            let since = Instant::now();
            let status = loop {
                if let Some(status) = dev.child.try_wait().expect("a child of this process") {
                    break status;
                }
                assert!(since.elapsed() < SLACK, "gw does not end, told twice: {twice}");
                std::thread::sleep(Duration::from_millis(5));
            };
            assert_eq!(status.code(), Some(0));
            let _ = asking.join();
        }
    }
}

/// Runs a line whose outcome does not matter.
fn bash_quietly(line: &str) {
    let _ = std::process::Command::new("bash")
        .args(["-c", line])
        .env("NO_PROXY", "*")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
