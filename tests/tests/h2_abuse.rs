//! HTTP/2 clients that abuse the protocol, and honest ones that look a little like them.

use gw_tests::counting_upstream::Upstream;
use gw_tests::h2::{DATA, END_STREAM, Frame, GOAWAY, H2, HEADERS, PING, RST_STREAM, WINDOW_UPDATE};
use gw_tests::serving::{Serving, get};

const CALM: u32 = 11;

fn serving() -> Serving {
    let upstream = Upstream::start();
    Serving::start(&format!(
        "_format_version: \"3.0\"\nservices:\n- {{ name: s, url: \"{}\", routes: [{{ paths: [/] }}] }}\n",
        upstream.url()
    ))
}

/// Sends what `round` makes until the gateway has had enough; how many rounds that took, and what it said.
fn flood(gw: &Serving, most: u32, round: impl Fn(u32) -> Vec<Frame>) -> (u32, Option<u32>) {
    let mut h2 = H2::open(gw.http);
    h2.polite = false;
    let sent = (0..most).find(|n| !h2.send(&round(*n))).unwrap_or(most);
    (sent, h2.until(|f| f.kind == GOAWAY).and_then(|f| f.error()))
}

#[test]
fn streams_that_the_gateway_is_made_to_reset_are_bounded() {
    let gw = serving();
    let wide = 0x7fff_ffff_u32.to_be_bytes();
    for (what, kind, payload, flags) in [
        ("a window opened by nothing", WINDOW_UPDATE, [0; 4], 0),
        ("a window opened too far", WINDOW_UPDATE, wide, 0),
        ("data after the end", DATA, *b"more", END_STREAM),
    ] {
        let (_, said) = flood(&gw, 2000, |n| {
            let stream = 2 * n + 1;
            vec![Frame::request(stream, "POST", "/", flags), Frame::new(kind, 0, stream, payload)]
        });
        assert_eq!(said, Some(CALM), "{what}");
    }
    let (_, said) = flood(&gw, 2000, |n| {
        let stream = 2 * n + 1;
        vec![
            Frame::request(stream, "GET", "/", END_STREAM),
            Frame::new(RST_STREAM, 0, stream, 8_u32.to_be_bytes()),
        ]
    });
    assert_eq!(said, Some(CALM), "rapid reset");
    let (_, said) = flood(&gw, 200_000, |_| vec![Frame::new(PING, 0, 0, *b"12345678")]);
    assert_eq!(said, Some(CALM), "pings");
    assert_eq!(get(gw.http, "/").status, 200, "others are served");
}

/// gRPC clients send a PING for each piece of data that they get, to find out how much is under way.
#[test]
fn a_client_that_measures_the_way_is_served() {
    let gw = serving();
    let mut h2 = H2::open(gw.http);
    for n in 0..3000 {
        let stream = 2 * n + 1;
        assert!(h2.get(stream, "/some/path").is_some_and(|f| f.kind == HEADERS), "request {n}");
        assert!(h2.send(&[Frame::new(PING, 0, 0, *b"12345678")]), "request {n}");
    }
}

/// HPACK's one byte for the status 200.
const OK: u8 = 0x88;

#[test]
fn heads_that_http_1_1_would_not_allow_are_refused() {
    let gw = serving();
    let head = |method, more: &[(&str, &str)]| {
        let mut fields = vec![(":method", method), (":scheme", "http"), (":path", "/")];
        fields.extend(more);
        let mut h2 = H2::open(gw.http);
        h2.send(&[Frame::head(1, END_STREAM, &fields)]);
        let answer = h2.until(|f| f.stream == 1 && f.kind == HEADERS).expect("there is an answer");
        answer.payload.first() == Some(&OK)
    };
    for (method, more, served) in [
        ("GET", vec![(":authority", "a.test")], true),
        ("get", vec![(":authority", "a.test")], false),
        ("G.T", vec![(":authority", "a.test")], false),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", vec![(":authority", "a.test")], false),
        ("GET", vec![("host", "a.test")], true),
        ("GET", vec![("host", "a.test"), ("host", "a.test")], false),
        ("GET", vec![(":authority", "a.test"), ("host", "a.test"), ("host", "b.test")], false),
        ("GET", vec![(":authority", "a.test"), ("expect", "more")], false),
        ("GET", vec![(":authority", "a.test"), ("expect", "100-continue")], true),
    ] {
        assert_eq!(head(method, &more), served, "{method} {more:?}");
    }
}
