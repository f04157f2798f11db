//! Limits on requests in flight: a place is given back however a request ends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use gw_tests::serving::{PATIENCE, Serving, get, receive};
use gw_tests::upstream::Upstream;

fn start(upstream: &Upstream, plugin: &str, more: &str) -> Serving {
    Serving::start(&format!(
        "_format_version: \"3.0\"
gateway: {{ limits: {{ buffered_body: 1000000 }} }}
services:
- name: s
  url: http://{}
  read_timeout: 4000
  retries: 0
  routes:
  - {{ name: all, paths: [/], strip_path: false }}
  - {{ name: free, paths: [/free] }}
plugins:
- {plugin}
{more}
",
        upstream.addr()
    ))
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

fn send(to: SocketAddr, path: &str, fields: &str) -> TcpStream {
    let mut stream = connect(to);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n").expect("the gateway reads");
    stream
}

/// Waits until a request passes; how long that took. The client has its answer a moment before the gateway is done with the
/// request, so there is a pause before anything else may count on the place.
#[track_caller]
fn until_free(to: SocketAddr) -> Duration {
    let began = Instant::now();
    while get(to, "/ok").status != 200 {
        assert!(began.elapsed() < PATIENCE, "the place is never given back");
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = began.elapsed();
    std::thread::sleep(Duration::from_millis(300));
    took
}

/// Sends requests that the upstream is slow to answer, and waits until it has them all.
#[track_caller]
fn hold(upstream: &Upstream, to: SocketAddr, path: &str, many: usize) -> Vec<TcpStream> {
    let (before, began) = (upstream.seen().len(), Instant::now());
    let held = (0..many).map(|_| send(to, path, "")).collect();
    while upstream.seen().len() < before + many {
        assert!(began.elapsed() < PATIENCE, "the requests do not arrive");
        std::thread::sleep(Duration::from_millis(5));
    }
    held
}

const ONE: &str = "{ name: concurrency-limiting, config: { max: 1, by: [ip] } }";

#[test]
fn a_place_is_given_back_whatever_becomes_of_the_request() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, ONE, "");
    let to = gateway.http;

    // Answered, refused and kept-alive requests hold nothing.
    let mut kept = send(to, "/ok", "");
    assert_eq!(receive(&mut kept).expect("an answer").status, 200);
    until_free(to);

    // While one waits, another is refused, and the first is answered all the same.
    let mut slow = hold(&upstream, to, "/slow", 1);
    let refused = get(to, "/ok");
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("Retry-After: 1"), "{refused:?}");
    assert!(refused.body.contains("Too many requests at the same time"), "{refused:?}");
    assert_eq!(receive(&mut slow[0]).expect("an answer").status, 200);
    until_free(to);

    // The upstream never answers; it breaks off; the client goes away.
    let mut silent = hold(&upstream, to, "/silent", 1);
    assert_eq!(get(to, "/ok").status, 429);
    assert_eq!(receive(&mut silent[0]).expect("an answer").status, 504);
    until_free(to);
    let mut short = send(to, "/short", "");
    let _ = short.read_to_end(&mut Vec::new());
    until_free(to);
    let gone = hold(&upstream, to, "/silent", 1);
    assert_eq!(get(to, "/ok").status, 429);
    drop(gone);
    assert!(until_free(to) < Duration::from_secs(2), "long before the upstream gives up");

    // The client goes away within a response whose next part does not come.
    let mut dripping = hold(&upstream, to, "/drip", 1);
    assert!(dripping[0].read(&mut [0; 64]).is_ok_and(|n| n > 0));
    drop(dripping);
    until_free(to);

    // A WebSocket holds its place as long as it is open.
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut socket = send(to, "/ws", handshake);
    assert_eq!(receive(&mut socket).expect("an answer").status, 101);
    socket.write_all(b"hello").expect("the tunnel is open");
    let mut back = [0; 5];
    socket.read_exact(&mut back).expect("the tunnel is open");
    assert_eq!(get(to, "/ok").status, 429);
    drop(socket);
    until_free(to);
    assert!(
        gateway.metric(
            "gw_rate_limit_total{service=\"s\",route=\"all\",limit=\"concurrency\",result=\"refused\"}"
        ) > 0.0
    );
}

#[test]
fn counts_go_on_over_reloads_and_are_exact_over_workers() {
    let upstream = Upstream::start();
    let config = "{ name: concurrency-limiting, config: { max: 7, by: [service] } }";
    let mut gateway = start(&upstream, config, "");
    let to = gateway.http;
    for round in 0..2 {
        let all: Vec<u16> = std::thread::scope(|scope| {
            let each: Vec<_> = (0..30)
                .map(|_| scope.spawn(move || receive(&mut send(to, "/slow", "")).expect("an answer").status))
                .collect();
            each.into_iter().map(|c| c.join().expect("no client panics")).collect()
        });
        assert_eq!(all.iter().filter(|s| **s == 200).count(), 7, "round {round}: {all:?}");
        assert_eq!(all.iter().filter(|s| **s == 429).count(), 23, "round {round}: {all:?}");
        until_free(to);
    }
    let mut slow = hold(&upstream, to, "/slow", 7);
    let text = gw_tests::serving::text_of(&gateway.path("gw.yaml"));
    assert!(gateway.reload(&text.replace("max: 7", "max: 2")));
    assert_eq!(get(to, "/ok").status, 429, "those of before the reload count");
    for stream in &mut slow {
        assert_eq!(receive(stream).expect("an answer").status, 200);
    }
    until_free(to);
}

#[test]
fn requests_wait_for_a_place_in_order_and_no_longer_than_they_may() {
    let upstream = Upstream::start();
    let config =
        "{ name: concurrency-limiting, config: { max: 1, by: [service], delay: 3000, delay_waiters: 2 } }";
    let gateway = start(&upstream, config, "");
    let to = gateway.http;

    // One in flight and two that wait; who comes then is refused at once, and the others have their turn.
    let mut first = hold(&upstream, to, "/slow", 1);
    let mut waiting: Vec<TcpStream> = Vec::new();
    for _ in 0..2 {
        waiting.push(send(to, "/ok", ""));
        std::thread::sleep(Duration::from_millis(100));
    }
    let began = Instant::now();
    assert_eq!(get(to, "/ok").status, 429);
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    for stream in first.iter_mut().chain(&mut waiting) {
        assert_eq!(receive(stream).expect("an answer").status, 200);
    }
    let delayed = "gw_rate_limit_total{service=\"s\",route=\"all\",limit=\"concurrency\",result=\"delayed\"}";
    // Counted a moment after the client has its answer.
    let began = Instant::now();
    while gateway.metric(delayed) < 2.0 {
        assert!(began.elapsed() < PATIENCE, "both waited");
        std::thread::sleep(Duration::from_millis(10));
    }

    // A client that goes away while it waits leaves its place in the queue to others.
    let silent = hold(&upstream, to, "/silent", 1);
    let gone: Vec<TcpStream> = (0..2).map(|_| send(to, "/ok", "")).collect();
    std::thread::sleep(Duration::from_millis(100));
    drop(gone);
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    assert_eq!(get(to, "/ok").status, 429, "nobody leaves in time");
    assert!((2..4).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    drop(silent);
    until_free(to);
}

#[test]
fn an_adaptive_limit_sheds_what_a_service_cannot_take() {
    let upstream = Upstream::start();
    let plugin = "{ name: adaptive-concurrency, config: { initial: 3, max: 3, debug_header: true } }";
    let gateway = start(&upstream, plugin, "");
    let to = gateway.http;
    let mut slow = hold(&upstream, to, "/slow", 3);
    let refused = get(to, "/ok");
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("Retry-After: 1"), "{refused:?}");
    for stream in &mut slow {
        let answer = receive(stream).expect("an answer");
        assert!(answer.status == 200 && answer.head.contains("X-Concurrency-Limit: 3"), "{answer:?}");
    }
    until_free(to);
    assert!(
        gateway
            .metric("gw_rate_limit_total{service=\"s\",route=\"all\",limit=\"adaptive\",result=\"refused\"}")
            > 0.0
    );
}
