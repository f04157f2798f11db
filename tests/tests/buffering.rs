//! Requests that are held until they are whole, and those that are not.

use std::time::{Duration, Instant};

use gw_tests::folder::Folder;
use gw_tests::gateway::{Gateway, PATIENCE};
use gw_tests::h2::{self, Frame, H2};
use gw_tests::http::{Connection, get};
use gw_tests::upstream::Upstream;

fn place(route: &str, limits: &str) -> (Gateway, Upstream, Folder) {
    let (upstream, folder) = (Upstream::start(), Folder::new("buffering"));
    let text = format!(
        "_format_version: \"3.0\"\ngateway: {{ limits: {{ {limits} }} }}\nservices:\n- {{ name: s, url: \"http://{}\", routes: [{{ paths: [/]{route} }}] }}\n",
        upstream.addr()
    );
    let config = folder.write("kong.yaml", &text);
    (Gateway::start(&config, &["--workers", "1"]), upstream, folder)
}

const STREAMED: &str = ", request_buffering: false";
/// A moment in which whatever is to be sent is sent.
const MOMENT: Duration = Duration::from_millis(300);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_target_is_asked_when_the_body_is_whole_or_too_long_to_be_held() {
    let length = "Content-Length: 8\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    for (route, limits, fields, half, rest, asked) in [
        ("", "", length, "half", "more", false),
        ("", "", chunked, "4\r\nhalf\r\n", "4\r\nmore\r\n0\r\n\r\n", false),
        (STREAMED, "", length, "half", "more", true),
        (STREAMED, "", chunked, "4\r\nhalf\r\n", "4\r\nmore\r\n0\r\n\r\n", true),
        ("", "request_buffer: 0", length, "half", "more", true),
        ("", "request_buffer: 7", length, "half", "more", true),
        ("", "request_buffer: 3", chunked, "4\r\nhalf\r\n", "4\r\nmore\r\n0\r\n\r\n", true),
        ("", "request_buffer: 4", chunked, "4\r\nhalf\r\n", "4\r\nmore\r\n0\r\n\r\n", true),
    ] {
        let what = format!("{route} {limits} {fields}");
        let (gateway, upstream, _folder) = place(route, limits);
        for method in ["POST", "PUT"] {
            let before = upstream.connections();
            let mut connection = Connection::open(gateway.addr());
            connection.send(format!("{method} /close HTTP/1.1\r\nHost: a\r\n{fields}{half}"));
            std::thread::sleep(MOMENT);
            assert_eq!(upstream.connections() > before, asked, "{method} {what}");
            connection.send(rest);
            assert_eq!(connection.response().text(), "halfmore", "{method} {what}");
            let seen = upstream.seen();
            let request = seen.last().expect("it was forwarded");
            let framing = (request.field("content-length"), request.field("transfer-encoding"));
            let want = if asked && fields == chunked { (None, Some("chunked")) } else { (Some("8"), None) };
            assert_eq!((request.text().as_str(), framing), ("halfmore", want), "{method} {what}");
        }
    }
}

#[test]
fn streams_of_http2_are_held_the_same_way() {
    for (route, asked) in [("", false), (STREAMED, true)] {
        let (gateway, upstream, _folder) = place(route, "");
        let mut h2 = H2::open(gateway.addr());
        h2.send(&[Frame::request(1, "POST", "/", 0), Frame::new(h2::DATA, 0, 1, *b"half")]);
        std::thread::sleep(MOMENT);
        assert_eq!(upstream.connections() > 0, asked, "{route}");
        h2.send(&[Frame::new(h2::DATA, h2::END_STREAM, 1, *b"more")]);
        h2.until(|f| f.stream == 1 && f.kind == h2::HEADERS).expect("an answer");
        assert_eq!(upstream.seen()[0].text(), "halfmore", "{route}");
    }
}

#[test]
fn trailers_of_a_held_body_are_kept() {
    let (gateway, upstream, _folder) = place("", "");
    let mut connection = Connection::open(gateway.addr());
    connection.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n",
    );
    assert_eq!(connection.response().text(), "hi");
    assert_eq!(upstream.seen()[0].trailers, [("X-Sum".to_owned(), "2".to_owned())]);
}

#[test]
fn a_held_request_that_may_be_sent_twice_is() {
    for (method, fields, status) in [
        ("PUT", "Content-Length: 5\r\n\r\nhello", 200),
        ("PUT", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200),
        ("DELETE", "Content-Length: 5\r\n\r\nhello", 200),
        ("POST", "Content-Length: 5\r\n\r\nhello", 502),
    ] {
        let (gateway, _upstream, _folder) = place("", "");
        assert_eq!(get(gateway.addr(), "/").status(), 200);
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("{method} /stale HTTP/1.1\r\nHost: a\r\n{fields}"));
        let answer = connection.response();
        assert_eq!(answer.status(), status, "{method} {fields}: {answer:?}");
        if status == 200 {
            assert_eq!(answer.text(), "hello", "{method} {fields}");
        }
    }
}

#[test]
fn a_slow_client_of_a_held_body_is_told() {
    let (gateway, upstream, _folder) = place("", "");
    let mut connection = Connection::open(gateway.addr());
    connection
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.head().status(), 100, "the body is wanted");
    connection.send("5\r\nhe");
    drop(connection);
    std::thread::sleep(MOMENT);
    assert_eq!(upstream.connections(), 0, "a request that breaks off is nobody's");
    until("the gateway goes on", || get(gateway.addr(), "/").status() == 200);
}
