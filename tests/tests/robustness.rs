//! What must not bring the gateway down: too many clients, slow clients, its own end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use gw_tests::counting_upstream::Upstream;
use gw_tests::serving::{PATIENCE, Serving, ask, get, receive, text_of};
use rustix::process::Signal;

fn config(upstream: &Upstream, gateway: &str) -> String {
    let url = upstream.url();
    format!(
        "_format_version: \"3.0\"\ngateway: {gateway}\nservices:\n- name: all\n  url: {url}\n  routes:\n  \
         - {{name: all, paths: [/], strip_path: false}}\n"
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

/// Whether the gateway closes the connection without a word.
fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_))
}

#[test]
fn connections_are_bounded_in_all_and_by_address() {
    let upstream = Upstream::start();
    for (limits, metric) in [
        ("{connections_per_ip: 3}", "gw_connections_refused_total{limit=\"connections_per_ip\"}"),
        ("{connections: 3}", "gw_connections_refused_total{limit=\"connections\"}"),
    ] {
        let mut gw = Serving::start(&config(&upstream, &format!("{{limits: {limits}}}")));
        gw.until("the first connections are over", |gw| gw.metric("gw_connections") == 0.0);
        let refused = gw.metric(metric);
        let mut three: Vec<_> = (0..3).map(|_| connect(gw.http)).collect();
        for stream in &mut three {
            assert_eq!(ask(stream, "/").expect("an answer").status, 200);
        }
        for _ in 0..3 {
            assert!(is_closed(&mut connect(gw.http)), "{limits}: a fourth connection is open");
        }
        assert_eq!(gw.metric(metric), refused + 3.0);
        for stream in &mut three {
            assert_eq!(ask(stream, "/").expect("an answer").status, 200, "{limits}");
        }
        three.pop();
        gw.until("there is room again", |gw| ask(&mut connect(gw.http), "/").is_ok_and(|a| a.status == 200));
    }
}

/// CPU time of a process, in clock ticks of 10 ms.
fn ticks(gw: &Serving) -> u64 {
    let stat = text_of(format!("/proc/{}/stat", gw.pid().as_raw_nonzero()).as_ref());
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

#[test]
fn without_descriptors_it_neither_spins_nor_fails() {
    let upstream = Upstream::start();
    let before = ["prlimit", "--nofile=64:64"];
    let mut gw = Serving::start_with(&config(&upstream, "{}"), &[], &[], &before);
    let mut first = connect(gw.http);
    assert_eq!(ask(&mut first, "/").expect("an answer").status, 200);
    let many: Vec<_> = (0..100).map(|_| connect(gw.http)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let (since, used) = (Instant::now(), ticks(&gw));
    std::thread::sleep(Duration::from_secs(2));
    let share = (ticks(&gw) - used) as f64 / 100.0 / since.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a core while out of descriptors");
    assert_eq!(ask(&mut first, "/").expect("an answer").status, 200, "who is in is served");
    drop(many);
    let since = Instant::now();
    gw.until("it takes connections again", |gw| {
        ask(&mut connect(gw.http), "/").is_ok_and(|a| a.status == 200)
    });
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
}

#[test]
fn slow_clients_are_told_and_closed() {
    let upstream = Upstream::start();
    let gw = Serving::start(&config(&upstream, "{timeouts: {header: 600, body: 600, keep_alive: 600}}"));
    for (what, sent, want) in [
        ("a slow head", "GET / HTTP/1.1\r\nHost: te", Some(408)),
        ("a slow body", "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nabc", Some(408)),
        ("silence", "", None),
    ] {
        let mut stream = connect(gw.http);
        stream.write_all(sent.as_bytes()).expect("the gateway reads");
        let since = Instant::now();
        match want {
            Some(status) => {
                let answer = receive(&mut stream).expect("an answer");
                assert_eq!(answer.status, status, "{what}: {answer:?}");
                assert!(answer.head.contains("Connection: close"), "{what}: {answer:?}");
            }
            None => assert!(is_closed(&mut stream), "{what}"),
        }
        let took = since.elapsed();
        assert!(took > Duration::from_millis(500) && took < Duration::from_secs(3), "{what}: {took:?}");
    }
    // A head that comes a byte at a time does not move its deadline.
    let mut stream = connect(gw.http);
    let since = Instant::now();
    for byte in "GET / HTTP/1.1\r\nX-Slow: 0123456789012345678901234567890123456789".bytes() {
        if stream.write_all(&[byte]).is_err() || since.elapsed() > Duration::from_secs(2) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(receive(&mut stream).map(|a| a.status).unwrap_or(408), 408);
}

/// Whether an HTTP/2 connection is told that it ends.
fn goes_away(stream: &mut TcpStream) -> bool {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        stream.read_exact(&mut payload).expect("a whole frame");
        match (kind, flags) {
            (7, _) => return true,
            // A PING wants its answer before the connection ends.
            (6, 0) => {
                head[4] = 1;
                let _ = stream.write_all(&[&head[..], &payload].concat());
            }
            _ => {}
        }
    }
    false
}

#[test]
fn draining_finishes_what_is_in_flight_and_ends_in_time() {
    let upstream = Upstream::start();
    let mut gw = Serving::start(&config(&upstream, "{drain: 3}"));
    let mut ws = connect(gw.http);
    ws.write_all(
        b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .expect("the gateway reads");
    assert_eq!(receive(&mut ws).expect("an answer").status, 101);
    let mut idle = connect(gw.http);
    assert_eq!(ask(&mut idle, "/").expect("an answer").status, 200);
    let mut slow = connect(gw.http);
    slow.write_all(b"GET /wait/1500 HTTP/1.1\r\nHost: test\r\n\r\n").expect("the gateway reads");
    let mut h2 = connect(gw.http);
    // The preface, and SETTINGS that change nothing.
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("the gateway reads");
    // Open, and about to speak.
    let mut fresh = connect(gw.http);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(get(gw.admin, "/ready").status, 200);
    let since = Instant::now();
    gw.signal(Signal::TERM);
    gw.until("it is not ready any more", |gw| get(gw.admin, "/ready").status == 503);
    assert!(since.elapsed() < Duration::from_millis(500), "{:?}", since.elapsed());
    assert_eq!(get(gw.admin, "/healthz").status, 200);
    let answer = ask(&mut fresh, "/").expect("an answer");
    assert!(answer.status == 200 && answer.head.contains("Connection: close"), "{answer:?}");
    assert!(is_closed(&mut idle));
    assert!(goes_away(&mut h2), "no GOAWAY before the end of an HTTP/2 connection");
    let answer = receive(&mut slow).expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, "/wait/1500"));
    assert!(answer.head.contains("Connection: close"), "{answer:?}");
    let (status, _) = gw.ended();
    let took = since.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took > Duration::from_millis(2900) && took < Duration::from_secs(5), "{took:?}");
    assert!(is_closed(&mut ws));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::start();
    let mut gw = Serving::start(&config(&upstream, "{drain: 30}"));
    let mut slow = connect(gw.http);
    slow.write_all(b"GET /wait/15000 HTTP/1.1\r\nHost: test\r\n\r\n").expect("the gateway reads");
    std::thread::sleep(Duration::from_millis(200));
    gw.signal(Signal::TERM);
    gw.until("it drains", |gw| gw.log().contains("draining"));
    std::thread::sleep(Duration::from_millis(300));
    gw.signal(Signal::TERM);
    let (status, took) = gw.ended();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn without_traffic_it_ends_at_once() {
    let upstream = Upstream::start();
    let mut gw = Serving::start(&config(&upstream, "{drain: 30}"));
    let mut idle = connect(gw.http);
    assert_eq!(ask(&mut idle, "/").expect("an answer").status, 200);
    gw.signal(Signal::TERM);
    let (status, took) = gw.ended();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
