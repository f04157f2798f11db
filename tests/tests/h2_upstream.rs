//! Services that speak HTTP/2: what policies make of their answers, and how long they may take.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::h2::{DATA, END_STREAM, Frame, HEADERS};
use gw_tests::h2_upstream::{H2Upstream, Part};
use gw_tests::http::{Connection, Message};
use gw_tests::scripted::{self, Scripted, chunk, chunked_head};

fn gateway(service: &str, plugin: &str) -> (Gateway, Folder) {
    let folder = Folder::new("h2-upstream");
    let text = format!(
        "_format_version: \"3.0\"\nservices:\n- {{ name: s, {service}, routes: [{{ name: r, paths: [/] }}] }}\nplugins: [{plugin}]\n"
    );
    let config = folder.write("gw.yaml", &text);
    (Gateway::start(&config, &["--workers", "1"]), folder)
}

/// Status, fields and trailers as curl shows them, and the body.
fn curl(addr: SocketAddr, args: &[&str]) -> (String, Vec<u8>) {
    let out = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--dump-header", "/dev/stderr", "--max-time", "20"])
        .args(["--http2-prior-knowledge", "--compressed"])
        .args(args)
        .arg(format!("http://{addr}/"))
        .output()
        .expect("curl starts: apt-get install curl");
    (String::from_utf8_lossy(&out.stderr).to_ascii_lowercase(), out.stdout)
}

/// An answer in HTTP/2 to every request: a text, and trailers.
fn answering(text: &'static str) -> H2Upstream {
    H2Upstream::start(&[], move |_, frame| {
        if frame.kind != HEADERS {
            return Vec::new();
        }
        let stream = frame.stream;
        let head = [(":status", "200"), ("content-type", "application/json"), ("etag", "\"v1\"")];
        let (one, two) = text.as_bytes().split_at(text.len() / 2);
        vec![
            Part::Frame(Frame::head(stream, 0, &head)),
            Part::Frame(Frame::new(DATA, 0, stream, one)),
            Part::Frame(Frame::new(DATA, 0, stream, two)),
            Part::Frame(Frame::fields(stream, &[("x-sum", "1"), ("content-digest", "x")])),
        ]
    })
}

fn over_http1(text: &'static str) -> Scripted {
    Scripted::start(move |_| {
        let mut parts = vec![chunked_head("Content-Type: application/json\r\nETag: \"v1\"\r\n")];
        parts.push(chunk(text.as_bytes()));
        parts.push(scripted::Part::Bytes(b"0\r\nX-Sum: 1\r\nContent-Digest: x\r\n\r\n".to_vec()));
        parts
    })
}

const LONG: &str =
    r#"{"a": 1, "text": "0123456789012345678901234567890123456789012345678901234567890123456789"}"#;

#[test]
fn bodies_are_changed_and_trailers_pass_over_every_pair_of_protocols() {
    let (h2, h1) = (answering(LONG), over_http1(LONG));
    let compression = "{ name: compression, config: { algorithms: [gzip], min_length: 1 } }";
    let transform = "{ name: response-transformer, config: { remove: { json: [text] } } }";
    for (protocol, addr) in [("grpc", h2.addr()), ("http", h1.addr())] {
        for (plugin, body, coding) in [(compression, LONG, true), (transform, "{\"a\":1}", false)] {
            let what = format!("{protocol} {plugin}");
            let (gateway, _folder) = gateway(&format!("url: \"{protocol}://{addr}\""), plugin);
            let (head, got) = curl(gateway.addr(), &["-H", "TE: trailers"]);
            assert_eq!(
                String::from_utf8_lossy(&got).replace(' ', ""),
                body.replace(' ', ""),
                "{what}: {head}"
            );
            assert_eq!(head.contains("content-encoding: gzip"), coding, "{what}: {head}");
            assert!(head.contains("x-sum: 1"), "{what}: {head}");
            assert!(
                !head.contains("content-digest"),
                "{what}: of bytes that the client does not get: {head}"
            );
            if protocol == "http" {
                let mut connection = Connection::open(gateway.addr());
                connection.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nAccept-Encoding: gzip\r\n\r\n");
                let answer = connection.response();
                assert_eq!(answer.trailers, [("X-Sum".to_owned(), "1".to_owned())], "{what}: {answer:?}");
                connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                let answer: Message = connection.response();
                assert_eq!(answer.trailers, [], "{what}: not asked for");
            }
        }
    }
}

#[test]
fn an_upstream_that_takes_nothing_of_a_body_is_given_up_in_its_write_timeout() {
    // No window for any stream.
    let upstream = H2Upstream::start(&[(4, 0)], |_, _| Vec::new());
    let (gateway, _folder) = gateway(
        &format!("url: \"grpc://{}\", write_timeout: 300, read_timeout: 15000, retries: 0", upstream.addr()),
        "",
    );
    let started = Instant::now();
    let (head, _) = curl(gateway.addr(), &["--data-binary", &"x".repeat(100_000)]);
    assert!(head.starts_with("http/2 504"), "{head}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(upstream.seen().iter().filter(|f| f.kind == HEADERS).count(), 1);
}

#[test]
fn an_upstream_that_takes_a_body_slowly_is_given_the_time() {
    // 16 KiB for a stream, more of it bit by bit, for longer than either timeout.
    let upstream = H2Upstream::start(&[(4, 16 * 1024)], |_, frame| {
        if frame.kind != DATA {
            return Vec::new();
        }
        let stream = frame.stream;
        if frame.flags & END_STREAM != 0 {
            return vec![Part::Frame(Frame::fields(stream, &[(":status", "204")]))];
        }
        let more = (frame.payload.len() as u32).to_be_bytes();
        vec![
            Part::Pause(Duration::from_millis(100)),
            Part::Frame(Frame::new(gw_tests::h2::WINDOW_UPDATE, 0, stream, more)),
            Part::Frame(Frame::new(gw_tests::h2::WINDOW_UPDATE, 0, 0, more)),
        ]
    });
    let (gateway, folder) =
        gateway(&format!("url: \"grpc://{}\", write_timeout: 800, read_timeout: 800", upstream.addr()), "");
    let started = Instant::now();
    let file = folder.write("body", &"x".repeat(400_000));
    let (head, _) = curl(gateway.addr(), &["--data-binary", &format!("@{}", file.display())]);
    assert!(head.starts_with("http/2 204"), "{head}");
    assert!(started.elapsed() > Duration::from_millis(1500), "{:?}", started.elapsed());
}
