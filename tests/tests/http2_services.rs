//! Services that are spoken to over HTTP/2, whatever their clients speak. The service is a gateway of its own, before a
//! server that tells what came.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gw_tests::binary::gw;
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::h2::{DATA, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM};
use gw_tests::h2_upstream::{H2Upstream, Part};
use gw_tests::http::{Connection, curl, get};
use gw_tests::upstream::Upstream;

/// Client, gateway, a second gateway that speaks HTTP/2 with it, and the server.
struct Place {
    near: Gateway,
    _far: Gateway,
    upstream: Upstream,
    folder: Folder,
}

fn config(url: &str, service: &str, more: &str) -> String {
    format!(
        "_format_version: \"3.0\"\nservices:\n- {{ name: s, url: \"{url}\"{service}, routes: [{{ paths: [/], strip_path: false }}] }}\n{more}"
    )
}

impl Place {
    fn new(tls: bool, more: &str) -> Self {
        let (upstream, folder) = (Upstream::start(), Folder::new("http2-services"));
        let certs = folder.path().join("certs");
        let made = gw().args(["certs", "server", "--out"]).arg(&certs).output().expect("gw starts");
        assert!(made.status.success(), "{made:?}");
        let file = |name: &str| certs.join(name).display().to_string();
        let (cert, key) = (file("server.pem"), file("server-key.pem"));
        let with_tls = ["--listen-tls", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
        let far = folder.write("far.yaml", &config(&format!("http://{}", upstream.addr()), "", ""));
        let far = Gateway::start(&far, &with_tls);
        let url = match tls {
            true => format!("https://localhost:{}", far.tls_addr().port()),
            false => format!("http://{}", far.addr()),
        };
        let near = folder.write("near.yaml", &config(&url, ", http2: true, read_timeout: 2000", more));
        let near = Gateway::start(&near, &with_tls);
        Self { near, _far: far, upstream, folder }
    }

    /// What `curl` needs for each way to the gateway, and what the gateway says of it.
    fn ways(&self) -> [(Vec<String>, String, &'static str); 5] {
        let ca = self.folder.path().join("certs/ca.pem").display().to_string();
        let plain = format!("http://{}", self.near.addr());
        let tls = format!("https://localhost:{}", self.near.tls_addr().port());
        let flags = |all: &[&str]| all.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
        [
            (flags(&["--http1.0"]), plain.clone(), "1.1"),
            (flags(&["--http1.1"]), plain.clone(), "1.1"),
            (flags(&["--http1.1", "--ipv4", "--cacert", &ca]), tls.clone(), "1.1"),
            (flags(&["--http2-prior-knowledge"]), plain, "2"),
            (flags(&["--http2", "--ipv4", "--cacert", &ca]), tls, "2"),
        ]
    }

    fn connect(&self) -> Connection {
        Connection::open(self.near.addr())
    }
}

#[test]
fn bodies_of_every_size_pass_in_both_directions() {
    for tls in [false, true] {
        let place = Place::new(tls, "");
        let (up, down) = (place.folder.path().join("up"), place.folder.path().join("down"));
        for size in [1_u32, 1000, 3_000_000] {
            let body: Vec<u8> = (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            std::fs::write(&up, &body).expect("the folder is writable");
            for (flags, url, version) in place.ways() {
                for (path, framing) in
                    [("/length", ""), ("/chunked", "Transfer-Encoding: chunked"), ("/until-close", "")]
                {
                    let what = format!("{flags:?} {path} {size} over TLS: {tls}");
                    if !framing.is_empty() && flags[0] != "--http1.1" {
                        continue;
                    }
                    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
                    let (url, data) = (format!("{url}{path}"), format!("@{}", up.display()));
                    let down = down.display().to_string();
                    args.extend(["--data-binary", &data, "--output", &down, "--write-out", "%{http_code}"]);
                    args.extend(["--header", framing, &url]);
                    assert_eq!(curl(&args), "200", "{what}");
                    assert!(std::fs::read(&down).expect("curl wrote it") == body, "{what}: the way down");
                    let seen = place.upstream.seen();
                    let request = seen.last().expect("it was forwarded");
                    assert!(request.body == body, "{what}: the way up");
                    let via = format!("{version} gw, 2 gw");
                    assert_eq!(request.field("via"), Some(via.as_str()), "{what}");
                }
            }
        }
    }
}

#[test]
fn what_surrounds_bodies_passes_too() {
    let place = Place::new(false, "");
    let mut connection = place.connect();
    for (method, path, status, length) in
        [("GET", "/204", 204, None), ("HEAD", "/length", 200, Some("2")), ("HEAD", "/chunked", 200, None)]
    {
        connection.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = connection.head();
        assert_eq!((head.status(), head.field("content-length")), (status, length), "{method} {path}");
    }
    // Two in a row, the first with a body.
    connection.send(
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /b?c=%20d HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!([(); 2].map(|()| connection.response().text()), ["one", "ok"]);
    assert_eq!(place.upstream.seen().last().expect("a request").target(), "/b?c=%20d");
    // Trailers, both ways.
    connection.send(
        "POST /chunked HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Mine: 5\r\nX-Consumer-Username: admin\r\n\r\n",
    );
    let answer = connection.response();
    let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
    assert_eq!((answer.text().as_str(), &answer.trailers[..]), ("hello", &pair("x-sum", "1")[..]));
    assert_eq!(place.upstream.seen().last().expect("a request").trailers, pair("x-mine", "5"));
    // A body is asked for.
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.head().status(), 100);
    connection.send("hello");
    assert_eq!(connection.response().text(), "hello");
    // Both at once: the answer begins before the request ends.
    connection.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    assert_eq!(connection.response().status(), 501);
}

#[test]
fn what_breaks_off_or_takes_too_long_is_told() {
    let place = Place::new(false, "");
    for path in ["/short", "/short-chunked"] {
        let mut connection = place.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = connection.head();
        let rest = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert_eq!(head.status(), 200, "{path}");
        match head.field("content-length") {
            Some(length) => assert!(length == "10" && rest.len() < 10, "{path}: {rest}"),
            None => assert!(!rest.contains("0\r\n\r\n"), "{path}: {rest:?} has an end"),
        }
    }
    let started = Instant::now();
    assert_eq!(get(place.near.addr(), "/silent").status(), 504);
    assert!(started.elapsed() < Duration::from_secs(8));
    // A client that breaks off within its body breaks off for the service, too.
    let before = place.upstream.seen().len();
    let mut connection = place.connect();
    connection.send("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf");
    std::thread::sleep(Duration::from_millis(300));
    drop(connection);
    assert_eq!(get(place.near.addr(), "/").status(), 200, "others go on");
    assert!(place.upstream.seen()[before..].iter().all(|r| r.target() != "/gone"));
}

#[test]
fn what_an_http2_service_sends_is_sent_on_at_once() {
    let place = Place::new(true, "");
    let mut connection = place.connect();
    let started = Instant::now();
    connection.send("GET /drip HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.head().status(), 200);
    assert_eq!(connection.bytes(8), b"3\r\none\r\n");
    let first = started.elapsed();
    assert_eq!(connection.bytes(13), b"3\r\ntwo\r\n0\r\n\r\n");
    assert!(started.elapsed() - first > Duration::from_millis(500));
}

#[test]
fn policies_change_bodies_for_clients_of_either_protocol() {
    let upstream = H2Upstream::start(&[], |_, frame| answer(frame, "{\"a\":1}"));
    let folder = Folder::new("http2-policies");
    for (plugin, coding, want) in [
        ("name: compression, config: { algorithms: [gzip], min_length: 1 }", Some("gzip"), "{\"a\":1}"),
        ("name: response-transformer, config: { add: { json: [\"b:1\"] } }", None, "{\"a\":1,\"b\":\"1\"}"),
    ] {
        let url = format!("http://{}", upstream.addr());
        let more = format!("plugins: [{{ {plugin} }}]\n");
        let file = folder.write("gw.yaml", &config(&url, ", http2: true", &more));
        let gateway = Gateway::start(&file, &[]);
        let mut connection = Connection::open(gateway.addr());
        connection.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        assert_eq!(connection.response().field("content-encoding"), coding, "{plugin}");
        for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
            let url = format!("http://{}/", gateway.addr());
            assert_eq!(curl(&["--compressed", version, &url]), want, "{plugin} {version}");
        }
    }
}

/// A whole answer to a request's head.
fn answer(frame: &Frame, text: &str) -> Vec<Part> {
    if frame.kind != HEADERS {
        return Vec::new();
    }
    let head = [(":status", "200"), ("content-type", "application/json")];
    vec![
        Part::Frame(Frame::head(frame.stream, 0, &head)),
        Part::Frame(Frame::new(DATA, END_STREAM, frame.stream, text.as_bytes())),
    ]
}

fn before(upstream: SocketAddr) -> (Gateway, Folder) {
    let folder = Folder::new("http2-retries");
    let file = folder.write("gw.yaml", &config(&format!("http://{upstream}"), ", http2: true", ""));
    (Gateway::start(&file, &["--workers", "1"]), folder)
}

#[test]
fn a_request_that_was_not_looked_at_is_sent_again() {
    let refused = |n: usize, frame: &Frame| match (n, frame.kind) {
        // REFUSED_STREAM
        (0, HEADERS) => vec![Part::Frame(Frame::new(RST_STREAM, 0, frame.stream, 7_u32.to_be_bytes()))],
        _ => answer(frame, "again"),
    };
    // No stream was looked at, NO_ERROR.
    let going = |n: usize, frame: &Frame| match (n, frame.kind) {
        (0, HEADERS) => vec![Part::Frame(Frame::new(GOAWAY, 0, 0, [0; 8])), Part::Close],
        _ => answer(frame, "again"),
    };
    for (what, upstream) in
        [("REFUSED_STREAM", H2Upstream::start(&[], refused)), ("GOAWAY", H2Upstream::start(&[], going))]
    {
        let (gateway, _folder) = before(upstream.addr());
        for (method, body) in [("GET", ""), ("POST", "hello")] {
            let mut connection = Connection::open(gateway.addr());
            connection.send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            let answer = connection.response();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "again"), "{what} {method}");
        }
        assert_eq!(upstream.connections(), 2, "{what}");
    }
}

#[test]
fn those_that_a_going_upstream_has_taken_are_answered_on_its_connection() {
    // The first request is answered only after the upstream has said that it goes, and the second is not taken.
    let upstream = H2Upstream::start(&[], |n, frame| match (n, frame.kind, frame.stream) {
        (0, HEADERS, 1) => Vec::new(),
        (0, HEADERS, _) => {
            let last = [1_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
            let mut parts =
                vec![Part::Frame(Frame::new(GOAWAY, 0, 0, last)), Part::Pause(Duration::from_millis(300))];
            parts.extend(answer(&Frame::head(1, 0, &[]), "old"));
            parts
        }
        _ => answer(frame, "new"),
    });
    let (gateway, _folder) = before(upstream.addr());
    let mut first = Connection::open(gateway.addr());
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(get(gateway.addr(), "/").text(), "new");
    assert_eq!(first.response().text(), "old");
    assert_eq!(upstream.connections(), 2);
}
