//! Requests that do not end well: broken off by the upstream, taken back by the client, or ended by a bug.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gw_tests::folder::Folder;
use gw_tests::gateway::{Gateway, PATIENCE};
use gw_tests::h2::{DATA, END_STREAM, Frame, H2, HEADERS, RST_STREAM};
use gw_tests::http::{Connection, get};
use gw_tests::serving::text_of;
use gw_tests::upstream::Upstream;

/// A gateway that writes an access log, in front of an upstream.
struct Place {
    gateway: Gateway,
    _upstream: Upstream,
    log: PathBuf,
    _folder: Folder,
}

impl Place {
    fn new() -> Self {
        let (upstream, folder) = (Upstream::start(), Folder::new("endings"));
        let text = format!(
            "_format_version: \"3.0\"\nservices:\n- {{ name: s, url: \"http://{}\", routes: [{{ paths: [/], strip_path: false }}] }}\n",
            upstream.addr()
        );
        let config = folder.write("kong.yaml", &text);
        let log = folder.path().join("access.log");
        let args = ["--access-log", &log.display().to_string(), "--admin", "127.0.0.1:0", "--workers", "1"];
        let gateway = Gateway::start_in(&[("GW_PANIC_AT", "/boom")], &config, &args);
        Self { gateway, _upstream: upstream, log, _folder: folder }
    }

    /// Waits for a line about `path` in the access log, and returns its status.
    fn logged(&self, path: &str) -> u64 {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = text_of(&self.log);
            let lines = log.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
            if let Some(line) = lines.into_iter().find(|l| l["path"] == path) {
                return line["status"].as_u64().unwrap_or(0);
            }
            assert!(Instant::now() < until, "no line about {path}: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// `:status: 200` of HPACK's static table.
const STATUS_200: u8 = 0x88;

#[test]
fn what_an_upstream_said_before_it_broke_off_is_passed_on() {
    let place = Place::new();
    for path in ["/short", "/short-chunked"] {
        let mut h2 = H2::open(place.gateway.addr());
        let head = h2.get(1, path).expect("a head");
        assert_eq!((head.kind, head.payload[0]), (HEADERS, STATUS_200), "{path}");
        let mut body = Vec::new();
        let end = h2.until(|f| {
            if f.stream == 1 && f.kind == DATA {
                assert_eq!(f.flags & END_STREAM, 0, "{path}: it looks whole");
            }
            f.stream == 1 && f.kind == RST_STREAM
        });
        body.extend(end.expect("a reset").payload);
        assert_eq!(place.logged(path), 200);
    }
}

#[test]
fn a_client_that_leaves_before_the_answer_is_logged() {
    let place = Place::new();
    let mut h2 = H2::open(place.gateway.addr());
    h2.send(&[Frame::request(1, "GET", "/silent", END_STREAM)]);
    std::thread::sleep(Duration::from_millis(200));
    h2.send(&[Frame::new(RST_STREAM, 0, 1, 8_u32.to_be_bytes())]);
    assert_eq!(place.logged("/silent"), 499);
    assert!(h2.get(3, "/other").is_some(), "the connection goes on");
}

/// Needs a debug build, in which requests for `GW_PANIC_AT` panic.
#[test]
fn a_panic_ends_its_request_alone() {
    let mut place = Place::new();
    let mut bystander = Connection::open(place.gateway.addr());
    bystander.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut h1 = Connection::open(place.gateway.addr());
    h1.send("GET /boom HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(h1.rest().is_empty(), "no answer is better than one that nobody meant");
    let mut h2 = H2::open(place.gateway.addr());
    h2.send(&[Frame::request(1, "GET", "/slow", END_STREAM), Frame::request(3, "GET", "/boom", END_STREAM)]);
    assert!(h2.until(|f| f.stream == 3 && f.kind == RST_STREAM).is_some(), "its stream is reset");
    assert!(h2.until(|f| f.stream == 1 && f.kind == HEADERS).is_some(), "the other stream goes on");
    assert_eq!(bystander.response().status(), 200, "other connections go on");
    assert_eq!(place.logged("/boom"), 500);
    let admin = place.gateway.hears("admin on http://");
    let admin = admin.rsplit('/').next().and_then(|a| a.parse().ok()).expect("an address");
    assert!(get(admin, "/metrics").text().contains("gw_panics_total 2"));
    assert!(place.gateway.said().iter().any(|l| l.starts_with("bug: panic in thread")));
    assert!(
        !place.gateway.said().iter().any(|l| l.contains("asked for by a test")),
        "the message stays inside"
    );
}
