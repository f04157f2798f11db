//! The same request and answer over every protocol and framing that a client or an upstream may choose.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gw_tests::binary::gw;
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::h2::{self, Frame, H2};
use gw_tests::http::{Connection, Message, curl};
use gw_tests::upstream::Upstream;

/// A gateway with TLS and without before one upstream.
struct Place {
    gateway: Gateway,
    upstream: Upstream,
    folder: Folder,
}

impl Place {
    fn new() -> Self {
        let (upstream, folder) = (Upstream::start(), Folder::new("protocols"));
        let text = format!(
            "_format_version: \"3.0\"\nservices:\n- {{ name: s, url: \"http://{}\", routes: [{{ paths: [/] }}] }}\n",
            upstream.addr()
        );
        let config = folder.write("kong.yaml", &text);
        let certs = folder.path().join("certs");
        let made = gw().args(["certs", "server", "--out"]).arg(&certs).output().expect("gw starts");
        assert!(made.status.success(), "{made:?}");
        let file = |name: &str| certs.join(name).display().to_string();
        let (cert, key) = (file("server.pem"), file("server-key.pem"));
        let gateway =
            Gateway::start(&config, &["--listen-tls", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key]);
        Self { gateway, upstream, folder }
    }

    fn addr(&self) -> SocketAddr {
        self.gateway.addr()
    }

    /// What `curl` needs for each way to the gateway: its name, its flags, its URL, and the version it must speak.
    fn ways(&self) -> [(&'static str, Vec<String>, String, &'static str); 4] {
        let ca = self.folder.path().join("certs/ca.pem").display().to_string();
        let plain = format!("http://{}", self.addr());
        let tls = format!("https://localhost:{}", self.gateway.tls_addr().port());
        let flags = |all: &[&str]| all.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
        [
            ("HTTP/1.1", flags(&["--http1.1"]), plain.clone(), "1.1"),
            ("HTTP/1.1 over TLS", flags(&["--http1.1", "--ipv4", "--cacert", &ca]), tls.clone(), "1.1"),
            ("HTTP/2 in clear text", flags(&["--http2-prior-knowledge"]), plain, "2"),
            ("HTTP/2 over TLS", flags(&["--http2", "--ipv4", "--cacert", &ca]), tls, "2"),
        ]
    }

    /// The answer to bytes that are written as they are, on a connection of their own.
    fn raw(&self, bytes: impl AsRef<[u8]>) -> Message {
        let mut connection = Connection::open(self.addr());
        connection.send(bytes);
        connection.response()
    }
}

/// Bytes without a pattern that a mistake could hide in.
fn noise(n: u32) -> Vec<u8> {
    (0..n).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn ten_megabytes_go_up_and_down_over_every_protocol() {
    let place = Place::new();
    let body = noise(10 * 1024 * 1024);
    let (up, down) = (place.folder.path().join("up"), place.folder.path().join("down"));
    std::fs::write(&up, &body).expect("the folder is writable");
    for (way, flags, url, version) in place.ways() {
        for path in ["/length", "/chunked", "/until-close"] {
            let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
            let (url, data) = (format!("{url}{path}"), format!("@{}", up.display()));
            let down = down.display().to_string();
            args.extend([
                "--data-binary",
                &data,
                "--output",
                &down,
                "--write-out",
                "%{http_code} %{http_version}",
            ]);
            args.push(&url);
            assert_eq!(curl(&args), format!("200 {version}"), "{way} {path}");
            let got = std::fs::read(&down).expect("curl wrote it");
            assert!(got == body, "{way} {path}: {} bytes came, not the same", got.len());
            let seen = place.upstream.seen();
            let request = seen.last().expect("it was forwarded");
            assert!(request.body == body, "{way} {path}: the upstream got {} bytes", request.body.len());
            assert_eq!(request.start, format!("POST {path} HTTP/1.1"), "{way}");
        }
    }
}

#[test]
fn many_requests_share_one_http2_connection() {
    let place = Place::new();
    let [.., (_, flags, url, _)] = place.ways();
    let urls: Vec<String> = (0..60).map(|n| format!("{url}/{n}")).collect();
    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
    args.extend(["--parallel", "--parallel-max", "20", "--write-out", "\n%{http_code} %{num_connects}\n"]);
    args.extend(urls.iter().map(String::as_str));
    let out = curl(&args);
    assert_eq!(out.lines().filter(|l| l.contains("200 ")).count(), 60, "{out}");
    let mut paths: Vec<_> = place.upstream.seen().iter().map(|r| r.target().to_owned()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 60, "each was forwarded");
}

#[test]
fn an_upstream_cannot_tell_the_protocols_apart() {
    let place = Place::new();
    for (way, flags, url, version) in place.ways() {
        let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
        let url = format!("{url}/a%20b?c=d");
        args.extend([
            "--header",
            "Cookie: a=1; b=2",
            "--header",
            "X-Mine: yes",
            "--header",
            "Host: api.test:81",
        ]);
        args.extend(["--header", "TE: trailers", "--write-out", "%{http_version}"]);
        args.push(&url);
        assert_eq!(curl(&args), format!("ok{version}"), "{way}");
        let seen = place.upstream.seen();
        let request = seen.last().expect("it was forwarded");
        assert_eq!(request.start, "GET /a%20b?c=d HTTP/1.1", "{way}");
        let host = place.upstream.addr().to_string();
        for (name, value) in [
            ("host", Some(host.as_str())),
            ("cookie", Some("a=1; b=2")),
            ("x-mine", Some("yes")),
            ("x-forwarded-host", Some("api.test")),
            ("x-forwarded-proto", Some(if way.contains("TLS") { "https" } else { "http" })),
            ("x-forwarded-for", Some("127.0.0.1")),
            ("x-real-ip", Some("127.0.0.1")),
            ("transfer-encoding", None),
            ("upgrade", None),
            ("keep-alive", None),
        ] {
            assert_eq!(request.field(name), value, "{way}: {name} in {request:#?}");
        }
    }
}

#[test]
fn chunks_of_any_size_are_one_body() {
    let place = Place::new();
    let body = noise(40_000);
    let mut request =
        b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Admin\r\n\r\n"
            .to_vec();
    for chunk in body.chunks(777) {
        request.extend(format!("{:x};name=\"value\"\r\n", chunk.len()).bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\nX-Admin: yes\r\n\r\n");
    let answer = place.raw(&request);
    assert!(answer.status() == 200 && answer.body == body, "{:?}", answer.fields);
    let seen = place.upstream.seen();
    assert!(seen[0].body == body, "{:?}", seen[0].fields);
    assert_eq!(seen[0].field("x-admin"), None, "a trailer is not a header");
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let place = Place::new();
    for path in ["/chunked", "/until-close", "/length"] {
        let answer = place.raw(format!("POST {path} HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"));
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"), "{path}: {answer:?}");
        assert_eq!(answer.field("transfer-encoding"), None, "{path}");
    }
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    let place = Place::new();
    let mut connection = Connection::open(place.addr());
    for (method, path, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("2")),
        ("HEAD", "/length", 200, Some("2")),
        ("HEAD", "/304", 304, Some("2")),
    ] {
        connection.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = connection.head();
        assert_eq!((head.status(), head.field("content-length")), (status, length), "{method} {path}");
        assert_eq!(head.field("transfer-encoding"), None, "{method} {path}");
    }
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().text(), "ok", "no stray byte stands before this answer");
    let mut h2 = H2::open(place.addr());
    for (stream, method, path) in [(1, "GET", "/204"), (3, "GET", "/304"), (5, "HEAD", "/length")] {
        h2.send(&[Frame::request(stream, method, path, h2::END_STREAM)]);
        let head = h2.until(|f| f.stream == stream).expect("an answer");
        assert_eq!(
            (head.kind, head.flags & h2::END_STREAM),
            (h2::HEADERS, h2::END_STREAM),
            "{method} {path}"
        );
    }
}

#[test]
fn what_an_upstream_sends_is_sent_on_at_once() {
    let place = Place::new();
    let started = Instant::now();
    let mut connection = Connection::open(place.addr());
    connection.send("GET /drip HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.head().status(), 200);
    assert_eq!(connection.bytes(8), b"3\r\none\r\n");
    let first = started.elapsed();
    assert_eq!(connection.bytes(13), b"3\r\ntwo\r\n0\r\n\r\n");
    let all = started.elapsed();
    assert!(
        all - first > Duration::from_millis(500),
        "the first part came after {first:?}, all after {all:?}"
    );
}

#[test]
fn interim_answers_are_not_taken_for_the_answer() {
    let place = Place::new();
    let mut connection = Connection::open(place.addr());
    connection.send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n");
    let hints = connection.head();
    assert_eq!((hints.status(), hints.field("link")), (103, Some("</a.css>")), "{hints:?}");
    let answer = connection.response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{answer:?}");
    // HTTP/1.0 knows no interim answers.
    let answer = place.raw("GET /hints HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{answer:?}");
    let mut h2 = H2::open(place.addr());
    let hints = h2.get(1, "/hints").expect("hints");
    // The three digits behind the number of `:status`, and no end of the stream.
    assert_eq!((&hints.payload[..5], hints.flags & h2::END_STREAM), (&b"\x08\x03103"[..], 0));
    let answer = h2.until(|f| f.stream == 1 && f.kind == h2::HEADERS);
    assert_eq!(answer.map(|f| f.payload[0]), Some(0x88), "200 comes next");
}

#[test]
fn trailers_pass_but_for_what_a_head_decides() {
    let place = Place::new();
    let request = |te: &str| {
        format!(
            "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{te}\r\n5\r\nhello\r\n0\r\n\
             X-Sum: 5\r\nX-Consumer-Username: admin\r\nAuthorization: none\r\nSet-Cookie: a=b\r\n\r\n"
        )
    };
    let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let answer = place.raw(request("TE: trailers\r\n"));
    assert_eq!(answer.trailers, pair("X-Sum", "1"), "{answer:?}");
    assert_eq!(place.upstream.seen()[0].trailers, pair("X-Sum", "5"));
    let answer = place.raw(request(""));
    assert_eq!((answer.text().as_str(), answer.trailers), ("hello", vec![]), "not asked for");
    let mut h2 = H2::open(place.addr());
    h2.send(&[
        Frame::request(1, "POST", "/chunked", 0),
        Frame::new(h2::DATA, 0, 1, *b"hello"),
        Frame::fields(1, &[("x-sum", "6"), ("x-consumer-username", "admin"), ("set-cookie", "a=b")]),
    ]);
    let end = h2.until(|f| f.kind == h2::HEADERS && f.flags & h2::END_STREAM != 0).expect("trailers");
    assert!(String::from_utf8_lossy(&end.payload).contains("x-sum") || end.payload.len() > 3, "{end:?}");
    assert_eq!(place.upstream.seen()[2].trailers, pair("x-sum", "6"));
}

#[test]
fn a_body_is_asked_for_only_when_it_is_wanted() {
    let place = Place::new();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    // A client that waits is told; one that does not wait is not, and the connection is good for more.
    let mut connection = Connection::open(place.addr());
    connection.send(head);
    assert_eq!(connection.head().status(), 100);
    connection.send("hello");
    assert_eq!(connection.response().text(), "hello");
    connection.send(format!("{head}hello"));
    let answer = connection.response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    // A final answer in place of 100 ends the connection, since nobody knows whether the body will come.
    connection.send(head.replace("POST /", "POST *"));
    assert_eq!(connection.response().status(), 400);
    let mut connection = Connection::open(place.addr());
    connection.send(head.replace("100-continue", "200-ok"));
    assert_eq!(connection.response().status(), 417);
    let answer = place.raw(format!("{}hello", head.replace("HTTP/1.1", "HTTP/1.0")));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"), "HTTP/1.0 knows no 100");
    // The upstream is never asked to wait.
    assert!(place.upstream.seen().iter().all(|r| r.field("expect").is_none()));
}

#[test]
fn every_form_of_target_is_understood_or_refused() {
    let place = Place::new();
    for (line, status, forwarded) in [
        ("GET http://other.test/a?b HTTP/1.1", 200, Some("/a?b")),
        ("GET HTTPS://other.test HTTP/1.1", 200, Some("/")),
        ("OPTIONS * HTTP/1.1", 204, None),
        ("GET * HTTP/1.1", 400, None),
        ("CONNECT other.test:443 HTTP/1.1", 405, None),
        ("TRACE / HTTP/1.1", 405, None),
        ("GET a HTTP/1.1", 400, None),
        ("GET ftp://other.test/ HTTP/1.1", 400, None),
        ("GET http://user@other.test/ HTTP/1.1", 400, None),
        ("GET / HTTP/1.2", 505, None),
        ("GET / HTTP/3.0", 505, None),
        ("GET /", 400, None),
        ("get / HTTP/1.1", 400, None),
        ("GET  / HTTP/1.1", 400, None),
    ] {
        let before = place.upstream.seen().len();
        let answer = place.raw(format!("{line}\r\nHost: a.test\r\nConnection: close\r\n\r\n"));
        assert_eq!(answer.status(), status, "{line}: {answer:?}");
        let seen = place.upstream.seen();
        assert_eq!(seen.get(before).map(Message::target), forwarded, "{line}");
        if line.contains("other.test") && forwarded.is_some() {
            assert_eq!(seen[before].field("x-forwarded-host"), Some("other.test"), "the target's host wins");
        }
    }
}
