//! Memory runs short: new requests are turned away before the process is ended for it, and taken again afterwards.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use gw_tests::counting_upstream::Upstream;
use gw_tests::serving::{PATIENCE, Serving, ask, get};

const MIB: f64 = 1024.0 * 1024.0;

fn config(upstream: &Upstream, memory: u64) -> String {
    format!(
        "_format_version: \"3.0\"
gateway: {{ limits: {{ memory: {memory} }} }}
services:
- name: s
  url: {}
  routes:
  - {{ name: plain, paths: [/], strip_path: false }}
  - name: held
    paths: [/held]
    plugins: [{{ name: request-transformer, config: {{ add: {{ body: [\"a:b\"] }} }} }}]
",
        upstream.url()
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

#[test]
fn requests_are_turned_away_and_taken_again() {
    let upstream = Upstream::start();
    let mut gw = Serving::start(&config(&upstream, 0));
    assert!(gw.metric("gw_memory_limit_bytes") > 0.0, "the machine's, or the control group's");
    assert_eq!((get(gw.http, "/").status, gw.metric("gw_overloaded")), (200, 0.0));
    // Every process uses more than a megabyte.
    assert!(gw.reload(&config(&upstream, 1024 * 1024)));
    gw.until("it is overloaded", |gw| gw.metric("gw_overloaded") == 1.0);
    let answer = get(gw.http, "/");
    assert_eq!(answer.status, 503);
    let head = answer.head.to_ascii_lowercase();
    assert!(head.contains("retry-after: 1") && head.contains("connection: close"), "{head}");
    assert!(gw.metric("gw_requests_shed_total") >= 1.0);
    assert!(gw.log().contains("memory is used up"));
    assert!(gw.reload(&config(&upstream, 0)));
    gw.until("there is room again", |gw| gw.metric("gw_overloaded") == 0.0);
    assert_eq!(get(gw.http, "/").status, 200);
}

#[test]
fn bodies_that_are_held_do_not_use_up_memory() {
    let upstream = Upstream::start();
    let gw = Serving::start(&config(&upstream, 0));
    let idle = gw.metric("process_resident_memory_bytes");
    let limit = idle + 60.0 * MIB;
    let mut gw = gw;
    assert!(gw.reload(&config(&upstream, limit as u64)));
    // Each is just within what a policy may hold, and none ever comes whole.
    let head = "POST /held HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n";
    let to = gw.http;
    let senders: Vec<_> = (0..30)
        .map(|_| {
            std::thread::spawn(move || {
                let mut stream = connect(to);
                let _ = stream.write_all(head.as_bytes());
                for _ in 0..95 {
                    if stream.write_all(&[b' '; 100_000]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(40));
                }
                stream
            })
        })
        .collect();
    let mut most: f64 = 0.0;
    while !senders.iter().all(std::thread::JoinHandle::is_finished) {
        most = most.max(gw.metric("process_resident_memory_bytes"));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Without the guard it would be 285 MiB more. What sockets hold comes in at once, between two looks.
    assert!(most < limit + 60.0 * MIB, "{} of {} MiB", most / MIB, limit / MIB);
    assert!(gw.metric("gw_requests_shed_total") > 0.0);
    drop(senders);
    gw.until("there is room again", |gw| ask(&mut connect(gw.http), "/").is_ok_and(|a| a.status == 200));
}
