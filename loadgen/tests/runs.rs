//! Whole runs against small servers that behave, stall, hang up or say nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gw_loadgen::plan::{Draft, Phase, Target};
use gw_loadgen::run::{Outcome, RunError, run};
use gw_loadgen::schedule::Pace;
use gw_loadgen::tally::{Class, Failure};
use gw_loadgen::validity;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Serves each connection on a thread of its own with `serve`, which returns false to hang up.
fn server(serve: impl Fn(&mut TcpStream, u64) -> bool + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, serve) = (stream.unwrap(), Arc::clone(&serve));
            std::thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut requests = 0;
                while read_head(&mut stream) {
                    requests += 1;
                    if !serve(&mut stream, requests) {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// Reads a request without a body.
fn read_head(stream: &mut TcpStream) -> bool {
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return false,
            Ok(n) => head.extend_from_slice(&piece[..n]),
        }
    }
    true
}

fn draft(addr: SocketAddr, pace: Pace, duration: Option<Duration>) -> Draft {
    let target = Target {
        name: "t".into(),
        method: http::Method::GET,
        uri: format!("http://{addr}/").parse().unwrap(),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    Draft {
        targets: vec![target],
        phases: vec![Phase { name: "p".into(), pace, duration, mix: Vec::new() }],
        connections: 4,
        streams: 1,
        threads: 2,
        timeout: Duration::from_secs(5),
        ..Draft::default()
    }
}

fn go(draft: Draft) -> Outcome {
    run(draft.check().unwrap(), Arc::new(AtomicBool::new(false)), &mut |_| {}).unwrap()
}

fn rate(n: f64) -> Pace {
    Pace::Rate { from: n, to: n }
}

/// Two freezes of 1 s in 5 s at 200/s: 400 of 1000 requests are due in a freeze and wait between 0 and 1 s for its end.
/// Only the four that are on their way when it begins see it in their service time, too few to move its p99.
#[test]
fn a_stall_of_the_target_shows_in_full() {
    let began = Instant::now();
    let addr = server(move |stream, _| {
        let now = began.elapsed().as_millis() as u64;
        for freeze in [1_000, 3_000] {
            if (freeze..freeze + 1_000).contains(&now) {
                std::thread::sleep(Duration::from_millis(freeze + 1_000 - now));
            }
        }
        stream.write_all(ANSWER).is_ok()
    });
    let plan = draft(addr, rate(200.0), Some(Duration::from_secs(5)));
    let outcome = go(plan);
    assert_eq!((outcome.offered, outcome.tally.sent), (1000, 1000));
    let class = outcome.tally.class(Class::Success);
    assert_eq!(class.count, 1000);
    let ms = |l: &gw_loadgen::histogram::Latencies, q| l.quantile(q).unwrap() / 1_000_000;
    let response = class.response.as_ref().unwrap();
    let p99 = ms(response, 0.99);
    assert!((850..1100).contains(&p99), "p99 from due is {p99} ms");
    // 400 of 1000 are spread evenly over the second: a quarter of all waits for more than 375 ms.
    let p75 = ms(response, 0.75);
    assert!((250..500).contains(&p75), "p75 from due is {p75} ms");
    let hidden = ms(class.service.as_ref().unwrap(), 0.99);
    assert!(hidden < 500, "p99 from sent is {hidden} ms");
    assert!(validity::judge(&outcome, true, 2).is_valid(), "the stall is the target's, not the generator's");
}

#[test]
fn a_number_of_requests_is_sent_exactly() {
    let addr = server(|stream, _| stream.write_all(ANSWER).is_ok());
    let outcome = go(Draft { requests: Some(501), ..draft(addr, Pace::Closed, None) });
    assert_eq!((outcome.tally.sent, outcome.tally.answered(), outcome.tally.bytes), (501, 501, 1002));
    assert_eq!(outcome.tally.connections.opened, 4);
    let outcome = go(Draft { requests: Some(50), ..draft(addr, rate(1000.0), None) });
    assert_eq!((outcome.offered, outcome.tally.sent), (50, 50));
}

#[test]
fn a_server_that_closes_after_each_answer_is_no_error() {
    let addr = server(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        false
    });
    let outcome = go(Draft { requests: Some(40), ..draft(addr, Pace::Closed, None) });
    assert_eq!(outcome.tally.class(Class::Success).count, 40, "{:?}", outcome.tally.examples);
    assert!(outcome.tally.connections.opened >= 40);
}

#[test]
fn each_way_to_fail_has_its_name() {
    let check = |serve: fn(&mut TcpStream, u64) -> bool, want: Failure| {
        let plan = Draft {
            requests: Some(8),
            timeout: Duration::from_millis(100),
            ..draft(server(serve), Pace::Closed, None)
        };
        let outcome = go(plan);
        assert_eq!(outcome.tally.failures[want as usize], 8, "{want:?}: {:?}", outcome.tally.failures);
        assert_eq!(outcome.tally.class(Class::Failed).count, 8);
        assert!(!validity::judge(&outcome, false, 2).is_valid(), "nothing was answered");
    };
    check(|_, _| false, Failure::Reset);
    check(
        |_, _| {
            std::thread::sleep(Duration::from_secs(1));
            false
        },
        Failure::Timeout,
    );
    check(|s, _| s.write_all(b"SMTP 220 hello\r\n\r\n").is_err(), Failure::Protocol);
    check(
        |s, _| {
            let _ = s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok");
            false
        },
        Failure::Body,
    );
}

#[test]
fn a_target_that_is_too_slow_for_the_rate_makes_the_run_invalid() {
    let addr = server(|stream, _| {
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(ANSWER).is_ok()
    });
    // Four connections of 20/s each, for 500/s.
    let outcome = go(draft(addr, rate(500.0), Some(Duration::from_secs(1))));
    assert!(outcome.tally.sent < outcome.offered, "{} of {}", outcome.tally.sent, outcome.offered);
    let verdict = validity::judge(&outcome, true, 2);
    assert!(verdict.reasons.iter().any(|r| r.contains("never were")), "{verdict:?}");
}

#[test]
fn a_run_can_be_stopped_and_counts_what_is_under_way() {
    let addr = server(|stream, requests| {
        if requests > 3 {
            std::thread::sleep(Duration::from_secs(20));
        }
        stream.write_all(ANSWER).is_ok()
    });
    let stop = Arc::new(AtomicBool::new(false));
    let plan = draft(addr, Pace::Closed, Some(Duration::from_secs(60))).check().unwrap();
    let began = Instant::now();
    let (watched, mut seen) = (Arc::clone(&stop), 0);
    let outcome = run(plan, stop, &mut |progress| {
        seen = progress.ended.iter().sum();
        watched.store(progress.elapsed > Duration::from_millis(300), Ordering::Relaxed);
    })
    .unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(outcome.interrupted && seen >= 12);
    assert_eq!(outcome.tally.class(Class::Success).count, 12);
    assert_eq!(outcome.tally.failures[Failure::Unresolved as usize], 4);
}

#[test]
fn a_server_that_is_not_there_is_told_before_the_run() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plan = draft(free, Pace::Closed, Some(Duration::from_secs(1))).check().unwrap();
    let error = run(plan, Arc::new(AtomicBool::new(false)), &mut |_| {}).unwrap_err();
    assert!(matches!(error, RunError::Connect { .. }), "{error}");
    assert!(error.to_string().contains(&free.to_string()), "{error}");
}
