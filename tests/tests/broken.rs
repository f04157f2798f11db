//! Connections that end where they should not, and what the other side learns of it.

use std::time::{Duration, Instant};

use gw_tests::folder::Folder;
use gw_tests::gateway::{Gateway, PATIENCE};
use gw_tests::http::{Connection, get, request};
use gw_tests::upstream::Upstream;

/// A gateway with one worker, so that each request finds the connection of the one before it.
fn place(plugins: &str) -> (Gateway, Upstream, Folder) {
    let (upstream, folder) = (Upstream::start(), Folder::new("broken"));
    let text = format!(
        "_format_version: \"3.0\"\nservices:\n- {{ name: s, url: \"http://{}\", routes: [{{ paths: [/] }}] }}\n{plugins}",
        upstream.addr()
    );
    let config = folder.write("kong.yaml", &text);
    (Gateway::start(&config, &["--workers", "1"]), upstream, folder)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_request_lost_to_a_stale_connection_is_sent_again() {
    let (gateway, upstream, _folder) = place("");
    for (method, fields) in [("GET", ""), ("PUT", "Content-Length: 0\r\n"), ("DELETE", "")] {
        assert_eq!(get(gateway.addr(), "/").status(), 200);
        let before = upstream.seen().len();
        let answer = request(gateway.addr(), method, "/stale", fields);
        assert_eq!(answer.status(), 200, "{method}: {answer:?}");
        assert_eq!(upstream.seen().len(), before + 2, "{method}: lost once, answered once");
    }
}

#[test]
fn a_request_that_may_have_had_effects_is_not_sent_twice() {
    let (gateway, upstream, _folder) = place("");
    assert_eq!(get(gateway.addr(), "/").status(), 200);
    let answer = request(gateway.addr(), "POST", "/stale", "Content-Length: 0\r\n");
    assert_eq!(answer.status(), 502, "{answer:?}");
    assert_eq!(upstream.seen().len(), 2, "the upstream had read it, and may have acted upon it");
}

#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    let (gateway, _upstream, _folder) = place("");
    for path in ["/short", "/short-chunked"] {
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = connection.head();
        assert_eq!(head.status(), 200, "{path}");
        let rest = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(rest.contains("half"), "{path}: {rest}");
        match head.field("content-length") {
            Some(length) => assert_eq!((length, rest.len()), ("10", 4), "{path}"),
            None => assert!(!rest.contains("0\r\n\r\n"), "{path}: {rest:?} has an end"),
        }
    }
    assert_eq!(get(gateway.addr(), "/").status(), 200, "the gateway goes on");
}

#[test]
fn an_upload_that_breaks_off_is_not_completed_for_the_upstream() {
    let (gateway, upstream, _folder) = place("gateway: { limits: { request_buffer: 0 } }\n");
    for fields in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let before = upstream.connections();
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{fields}"));
        std::thread::sleep(Duration::from_millis(200));
        drop(connection);
        assert_eq!(get(gateway.addr(), "/").status(), 200);
        until("the broken upload's connection is not used again", || upstream.connections() > before);
    }
    assert!(upstream.seen().iter().all(|r| r.target() != "/upload"), "no upload was whole");
}

#[test]
fn requests_in_a_row_are_answered_in_their_order() {
    let (gateway, upstream, _folder) = place("");
    let mut connection = Connection::open(gateway.addr());
    connection.send(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n",
    );
    let bodies = [(); 3].map(|()| connection.response().text());
    assert_eq!(bodies, ["one", "ok", "three"]);
    let targets: Vec<_> = upstream.seen().iter().map(|r| r.target().to_owned()).collect();
    assert_eq!(targets, ["/1", "/2", "/3"]);
}

#[test]
fn who_is_refused_is_not_asked_for_the_body() {
    let (gateway, upstream, _folder) = place(
        "plugins: [{ name: key-auth }]\nconsumers: [{ username: a, keyauth_credentials: [{ key: k }] }]\n",
    );
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let answer = connection.response();
    assert_eq!(answer.status(), 401, "{answer:?}");
    // Whether a body follows cannot be known, so that nothing on this connection can be a request.
    connection.send("GET /?apikey=k HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.rest(), b"");
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn a_websocket_ends_for_both_when_one_ends() {
    let (gateway, upstream, _folder) = place("");
    let open = || {
        let mut connection = Connection::open(gateway.addr());
        connection.send(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly",
        );
        assert_eq!(connection.head().status(), 101);
        assert_eq!(connection.bytes(5), b"early", "what came with the handshake is not lost");
        connection
    };
    let mut connection = open();
    connection.send("bye");
    assert_eq!(connection.rest(), b"bye", "the upstream's end is the client's");
    drop(open());
    let before = upstream.connections();
    assert_eq!(get(gateway.addr(), "/").status(), 200);
    assert_eq!(upstream.connections(), before + 1, "a tunnel's connection is never used for requests");
}
