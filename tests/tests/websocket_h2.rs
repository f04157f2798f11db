//! WebSockets of HTTP/2 clients (RFC 8441), frame by frame. `tests/interop` has the same with a foreign client.

use gw_tests::counting_upstream::Upstream;
use gw_tests::h2::{DATA, END_STREAM, Frame, H2, HEADERS, RST_STREAM, SETTINGS};
use gw_tests::serving::Serving;
use gw_tests::upstream;

const STATUS_200: u8 = 0x88;

fn config(url: &str, on: bool) -> String {
    format!(
        "_format_version: \"3.0\"
gateway: {{ websocket_over_http2: {on} }}
services:
- name: s
  url: {url}
  routes:
  - {{ name: ws, paths: [/ws], strip_path: false, methods: [GET] }}
  - name: locked
    paths: [/locked]
    plugins: [{{ name: key-auth }}]
  - name: fixed
    paths: [/fixed]
    plugins: [{{ name: request-termination, config: {{ status_code: 200, message: done }} }}]
"
    )
}

fn connect(stream: u32, path: &str, protocol: Option<&str>) -> Frame {
    let fields = [(":method", "CONNECT"), (":scheme", "http"), (":authority", "test"), (":path", path)];
    let last = [("sec-websocket-version", "13")];
    let protocol = protocol.map(|p| (":protocol", p));
    // A plain CONNECT has neither scheme nor path.
    let fields = if protocol.is_some() { fields.to_vec() } else { vec![fields[0], fields[2]] };
    let all: Vec<_> = fields.into_iter().chain(protocol).chain(last).collect();
    Frame::head(stream, 0, &all)
}

/// The status of the answer on a stream; 0 where it is reset.
fn status(h2: &mut H2, stream: u32) -> u16 {
    let frame =
        h2.until(|f| f.stream == stream && matches!(f.kind, HEADERS | RST_STREAM)).expect("an answer");
    match (frame.kind, frame.payload.as_slice()) {
        (HEADERS, [STATUS_200, ..]) => 200,
        // A literal with the indexed name of `:status`, its value as three digits in Huffman's code or not.
        (HEADERS, [0x8d, ..]) => 404,
        (HEADERS, [0x8c, ..]) => 400,
        (HEADERS, [0x8e, ..]) => 500,
        (HEADERS, _) => 1,
        _ => 0,
    }
}

fn data(h2: &mut H2, stream: u32) -> Frame {
    h2.until(|f| f.stream == stream && matches!(f.kind, DATA | RST_STREAM)).expect("a frame")
}

#[test]
fn a_stream_becomes_a_tunnel_and_the_others_stay_requests() {
    let upstream = Upstream::start();
    let mut gw = Serving::start(&config(&upstream.url(), true));
    let mut h2 = H2::open(gw.http);
    let settings = h2.until(|f| f.kind == SETTINGS && f.flags == 0).expect("settings");
    assert!(settings.payload.chunks(6).any(|s| s == [0, 8, 0, 0, 0, 1]), "it is announced: {settings:?}");
    // One after the other, since answers come in any order.
    for stream in [1, 3] {
        h2.send(&[connect(stream, "/ws", Some("websocket"))]);
        assert_eq!(status(&mut h2, stream), 200);
    }
    for text in [b"first".as_slice(), &[7; 9000]] {
        h2.send(&[Frame::new(DATA, 0, 1, text)]);
        let mut back = Vec::new();
        while back.len() < text.len() {
            back.extend(data(&mut h2, 1).payload);
        }
        assert_eq!(back, text);
    }
    h2.send(&[Frame::request(5, "GET", "/ws/plain", END_STREAM)]);
    assert_eq!(status(&mut h2, 5), 200);
    // An old config goes though tunnels are open since then.
    assert!(gw.reload(&config(&upstream.url(), true).replace("/fixed", "/other")));
    gw.until("the old snapshot is freed", |gw| gw.metric("gw_live_snapshots") == 1.0);
    h2.send(&[Frame::new(DATA, 0, 3, *b"second")]);
    assert_eq!(data(&mut h2, 3).payload, b"second");
    // The end of one direction is the end of the tunnel, as over HTTP/1.1.
    h2.send(&[Frame::new(DATA, END_STREAM, 3, *b"")]);
    let end = h2.until(|f| f.stream == 3 && (f.flags & END_STREAM != 0 || f.kind == RST_STREAM));
    assert_eq!(end.map(|f| f.kind), Some(DATA));
    h2.send(&[Frame::new(RST_STREAM, 0, 1, 8_u32.to_be_bytes())]);
    gw.until("both are counted", |gw| gw.metric("gw_live_snapshots") == 1.0);
}

#[test]
fn who_gets_no_tunnel_gets_no_success() {
    let plain = upstream::Upstream::start();
    let gw = Serving::start(&config(&format!("http://{}", plain.addr()), true));
    for (path, protocol, what) in [
        ("/nowhere", Some("websocket"), "no route"),
        ("/locked", Some("websocket"), "no credentials"),
        ("/fixed", Some("websocket"), "an answer of the gateway's own"),
        ("/ws/length", Some("websocket"), "an upstream that answers as to a plain request"),
        // It answers the sample key of the specification, whatever it is asked.
        ("/ws", Some("websocket"), "an upstream that answers another's key"),
        ("/ws", Some("connect-udp"), "another protocol"),
        ("test:80", None, "a plain CONNECT"),
    ] {
        let mut h2 = H2::open(gw.http);
        h2.send(&[connect(1, path, protocol)]);
        let status = status(&mut h2, 1);
        assert!(status != 200 && status != 0, "{what}: {status}");
    }
    let gw = Serving::start(&config(&format!("http://{}", plain.addr()), false));
    let mut h2 = H2::open(gw.http);
    h2.send(&[connect(1, "/ws", Some("websocket"))]);
    assert_ne!(status(&mut h2, 1), 200, "it is off unless the config says so");
}
