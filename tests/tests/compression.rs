//! Compressed answers as clients see them: curl, Python, and a connection by hand.

use std::process::Command;
use std::time::{Duration, Instant};

use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::{Connection, Message, request};
use gw_tests::scripted::{Part, Scripted, answer, chunk, chunked_head};

const JSON: &str = "Content-Type: application/json\r\nETag: \"v1\"\r\n";

struct Place {
    gateway: Gateway,
    upstream: Scripted,
    _folder: Folder,
}

/// Text that is longer than any buffer on its way, and no two parts of it are the same.
fn long() -> Vec<u8> {
    let mut text = Vec::new();
    for i in 0..60_000_u64 {
        text.extend_from_slice(format!("{{\"id\":{i},\"square\":{}}},", i * i).as_bytes());
    }
    text
}

fn script(request: &Message) -> Vec<Part> {
    let body = long();
    match request.target() {
        "/length" => answer(200, JSON, &body),
        "/short" => answer(200, JSON, b"{}"),
        "/chunked" => {
            let mut parts = vec![chunked_head(JSON)];
            parts.extend(body.chunks(50_001).map(chunk));
            parts.push(chunk(b""));
            parts
        }
        "/close" => {
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{JSON}\r\n");
            vec![Part::Bytes(head.into_bytes()), Part::Bytes(body), Part::Close]
        }
        "/empty" => vec![chunked_head(JSON), chunk(b"")],
        "/head" => {
            vec![Part::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n{JSON}\r\n").into_bytes())]
        }
        "/same" if request.field("if-none-match") == Some("\"v1\"") => {
            vec![Part::Bytes(b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_vec())]
        }
        "/same" => answer(200, JSON, &body),
        "/part" => answer(206, &format!("{JSON}Content-Range: bytes 0-1999/5000\r\n"), &body[..2000]),
        "/drip" => vec![
            chunked_head("Content-Type: text/plain\r\n"),
            chunk(b"first"),
            Part::Pause(Duration::from_secs(1)),
            chunk(b"second"),
            chunk(b""),
        ],
        "/events" => {
            vec![chunked_head("Content-Type: text/event-stream\r\n"), chunk(b"data: 1\n\n"), chunk(b"")]
        }
        "/broken" => vec![chunked_head(JSON), chunk(&body[..100_000]), Part::Close],
        "/lying" => answer(200, &format!("{JSON}Content-Encoding: gzip\r\n"), b"this is not gzip"),
        _ => answer(404, "", b""),
    }
}

fn place(config: &str) -> Place {
    let (upstream, folder) = (Scripted::start(script), Folder::new("compression"));
    let text = format!(
        "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://{}\n  routes: [{{ name: all, paths: [/] }}]\nplugins:\n- {{ name: compression, config: {config} }}\n",
        upstream.addr()
    );
    let config = folder.write("gw.yaml", &text);
    let gateway = Gateway::start(&config, &[]);
    Place { gateway, upstream, _folder: folder }
}

/// What curl makes of it, with the headers that it got.
fn curl(place: &Place, target: &str, args: &[&str]) -> (Option<i32>, String, Vec<u8>) {
    let url = format!("http://{}{target}", place.gateway.addr());
    let out = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--dump-header", "/dev/stderr", "--max-time", "20"])
        .args(args)
        .arg(url)
        .output()
        .expect("curl starts: apt-get install curl");
    (out.status.code(), String::from_utf8_lossy(&out.stderr).to_ascii_lowercase(), out.stdout)
}

#[test]
fn curl_reads_every_coding_over_every_protocol_and_framing() {
    let place = place("{}");
    let supported = Command::new("curl").arg("--version").output().expect("curl starts").stdout;
    let supported = String::from_utf8_lossy(&supported).into_owned();
    let body = long();
    for (coding, feature) in [("gzip", "libz"), ("br", "brotli"), ("zstd", "zstd")] {
        if !supported.contains(feature) {
            eprintln!("this curl does not read {coding}");
            continue;
        }
        let accept = format!("Accept-Encoding: {coding}");
        for protocol in ["--http1.1", "--http1.0", "--http2-prior-knowledge"] {
            for target in ["/length", "/chunked", "/close"] {
                let (code, head, got) = curl(&place, target, &["--compressed", protocol, "-H", &accept]);
                assert_eq!(code, Some(0), "{coding} {protocol} {target}: {head}");
                assert!(head.contains(&format!("content-encoding: {coding}")), "{protocol} {target}: {head}");
                assert!(head.contains("vary: accept-encoding"), "{head}");
                assert!(head.contains(&format!("etag: w/\"v1-{coding}\"")), "{head}");
                assert!(got == body, "{coding} {protocol} {target}: {} bytes", got.len());
            }
        }
    }
}

#[test]
fn python_reads_what_curl_may_not() {
    let place = place("{ algorithms: [gzip, deflate] }");
    let script = r#"
import gzip, http.client, sys, zlib
addr = sys.argv[1]
for coding, decode in [("gzip", gzip.decompress), ("deflate", zlib.decompress)]:
    c = http.client.HTTPConnection(addr)
    for target in ["/length", "/chunked", "/empty", "/length"]:
        c.request("GET", target, headers={"Accept-Encoding": coding})
        r = c.getresponse()
        body = r.read()
        assert r.getheader("Content-Encoding") == coding, (target, r.getheaders())
        print(coding, target, len(decode(body)))
"#;
    let out = Command::new("python3")
        .args(["-c", script, &place.gateway.addr().to_string()])
        .output()
        .expect("python3 starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let n = long().len();
    let want: String = ["gzip", "deflate"]
        .map(|c| format!("{c} /length {n}\n{c} /chunked {n}\n{c} /empty 0\n{c} /length {n}\n"))
        .concat();
    assert_eq!(String::from_utf8_lossy(&out.stdout), want);
}

#[test]
fn heads_conditions_and_parts_are_as_without_compression() {
    let place = place("{ algorithms: [gzip] }");
    let gzip = "Accept-Encoding: gzip\r\n";
    let head = {
        let mut c = Connection::open(place.gateway.addr());
        c.send(format!("HEAD /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{gzip}\r\n"));
        let head = c.head();
        assert!(c.rest().is_empty());
        head
    };
    assert_eq!(head.field("content-encoding"), Some("gzip"));
    assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (None, None));
    assert_eq!(head.field("etag"), Some("W/\"v1-gzip\""));
    let same =
        request(place.gateway.addr(), "GET", "/same", &format!("{gzip}If-None-Match: W/\"v1-gzip\"\r\n"));
    assert_eq!((same.status(), same.field("etag")), (304, Some("W/\"v1-gzip\"")));
    assert_eq!(place.upstream.seen().last().unwrap().field("if-none-match"), Some("\"v1\""));
    let part = request(place.gateway.addr(), "GET", "/part", &format!("{gzip}Range: bytes=0-1999\r\n"));
    assert_eq!((part.status(), part.field("content-encoding"), part.body.len()), (206, None, 2000));
    for (target, coding) in [("/short", None), ("/events", None)] {
        let got = request(place.gateway.addr(), "GET", target, gzip);
        assert_eq!((got.status(), got.field("content-encoding")), (200, coding), "{target}");
    }
    let plain = request(place.gateway.addr(), "GET", "/length", "");
    assert_eq!((plain.field("content-encoding"), plain.field("vary")), (None, Some("Accept-Encoding")));
    assert_eq!(plain.field("etag"), Some("\"v1\""));
}

#[test]
fn a_slow_answer_is_not_held_back() {
    let place = place("{ algorithms: [gzip] }");
    let mut c = Connection::open(place.gateway.addr());
    c.send("GET /drip HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(c.head().field("content-encoding"), Some("gzip"));
    let since = Instant::now();
    // The header of gzip, and the word; a flush ends with an empty block.
    let mut seen = Vec::new();
    while !seen.ends_with(b"\x00\x00\xff\xff") {
        seen.extend(c.bytes(1));
        assert!(since.elapsed() < Duration::from_millis(700), "{seen:?}");
    }
}

#[test]
fn what_breaks_off_is_seen_to_break_off() {
    let broken = place("{ algorithms: [gzip] }");
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let (code, head, _) =
            curl(&broken, "/broken", &["--compressed", protocol, "-H", "Accept-Encoding: gzip"]);
        // curl may pass over a head that comes together with the reset of its stream.
        assert!(head.contains(" 200") || protocol != "--http1.1", "{code:?}: {head}");
        assert_ne!(code, Some(0), "{protocol}: curl takes half an answer for a whole one");
    }
    // The gateway is told to take off a coding that is none.
    let lying = place("{ recompress: true, algorithms: [br] }");
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let (code, head, body) = curl(&lying, "/lying", &[protocol]);
        assert_ne!(code, Some(0), "{protocol}: {head}");
        assert!(body.is_empty(), "{body:?}");
    }
}
