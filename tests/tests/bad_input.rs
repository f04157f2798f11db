//! Bodies that are broken, huge, nested, wrongly encoded or explosive, against the real binary: each gets a clear answer, the
//! service sees nothing of it, memory stays bounded, and the gateway goes on.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use gw_runtime::body::coding::{Coding, Encoder};
use gw_tests::http::{Connection, Message, get, request};
use gw_tests::scripted::{Part, Scripted, answer, chunk, chunked_head};
use gw_tests::serving::Serving;

const MIB: usize = 1024 * 1024;

struct Place {
    gateway: Serving,
    upstream: Scripted,
}

fn script(request: &Message) -> Vec<Part> {
    let json = "Content-Type: application/json\r\n";
    let xml = "Content-Type: application/xml\r\n";
    let gzip = |body: &[u8]| encode(Coding::Gzip, body);
    let coded = format!("{xml}Content-Encoding: gzip\r\n");
    match request.target().rsplit('/').next().unwrap_or_default() {
        "malformed" => answer(200, xml, b"<a><b></a>"),
        "truncated" => vec![chunked_head(xml), chunk(b"<a>"), Part::Close],
        "doctype" => answer(200, xml, LAUGHS.as_bytes()),
        "latin" => answer(200, "Content-Type: application/xml; charset=iso-8859-1\r\n", b"<a>\xe9</a>"),
        "huge" => endless(xml, b"<a>", 64 * MIB),
        "huge-length" => answer(200, xml, &vec![b' '; 12 * MIB]),
        "deep" => answer(200, xml, "<a>".repeat(100_000).as_bytes()),
        "bomb" => answer(200, &coded, &gzip(&vec![b' '; 64 * MIB])),
        "notgzip" => answer(200, &coded, b"<a/>"),
        "fine" => answer(200, xml, b"<a>1</a>"),
        "json-huge" => endless(json, b"[", 64 * MIB),
        "json-wrong" => answer(200, json, b"{\"a\":1}"),
        _ => answer(200, json, b"[]"),
    }
}

fn endless(fields: &str, start: &[u8], n: usize) -> Vec<Part> {
    let mut parts = vec![chunked_head(fields), chunk(start)];
    let piece = vec![b' '; MIB];
    parts.extend((0..n / MIB).map(|_| chunk(&piece)));
    parts.push(chunk(b""));
    parts
}

const LAUGHS: &str = "<!DOCTYPE a [<!ENTITY x \"ha\"><!ENTITY y \"&x;&x;&x;&x;&x;&x;&x;&x;\">]><a>&y;</a>";

fn place() -> Place {
    let upstream = Scripted::start(script);
    let routes: String = [
        ("xml", "json-xml, config: { service: xml }"),
        ("decode", "request-decompression"),
        ("valid", "request-validator, config: { body_schema: { type: array }, response_schema: { type: array }, response_mode: enforce }"),
        ("threat", "json-threat-protection, config: { max_body_size: 100000, max_container_depth: 8, max_array_element_count: 1000 }"),
        ("graphql", "graphql-limits"),
        ("transform", "request-transformer, config: { add: { body: [\"$.a.b:c\"] } }"),
        ("oas", "oas-validation, config: { api_spec: { openapi: 3.1.0, paths: { /oas: { post: { requestBody: { content: { application/json: { schema: { type: array } } } }, responses: {} } } } } }"),
        ("reshape", "response-transformer, config: { add: { json: [\"$.a.b:c\"] } }"),
        ("shrink", "compression"),
    ]
    .iter()
    .fold(String::new(), |mut out, (path, plugin)| {
        let _ = writeln!(
            out,
            "  - {{ name: {path}, paths: [/{path}], strip_path: false, plugins: [{{ name: {plugin} }}] }}"
        );
        out
    });
    let config = format!(
        "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://{}\n  routes:\n{routes}",
        upstream.addr()
    );
    Place { gateway: Serving::start(&config), upstream }
}

fn encode(coding: Coding, body: &[u8]) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(coding, 6).expect("memory"), Vec::new());
    encoder.push(body, &mut out).expect("it is just bytes");
    encoder.finish(&mut out).expect("it is just bytes");
    out
}

/// The status of a POST, and whether the connection took a second request.
fn post(place: &Place, target: &str, fields: &str, body: &[u8]) -> (u16, Message, bool) {
    let mut c = Connection::open(place.gateway.http);
    let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    // A body that nobody wants may not be taken to its end.
    let mut writer = c.writer();
    let bytes = [head.as_bytes(), body].concat();
    let sender = std::thread::spawn(move || drop(writer.write_all(&bytes)));
    let response = c.response();
    let closes = response.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    if !closes {
        sender.join().expect("the sender");
        c.send("GET /xml/fine HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(c.response().status(), 200, "{target}: the connection is said to go on, and does not");
    }
    (response.status(), response, !closes)
}

#[test]
fn bad_requests_are_answered_and_not_forwarded() {
    let place = place();
    let json = "Content-Type: application/json\r\n";
    let deep = "[".repeat(200_000);
    let many = format!("[{}1]", "1,".repeat(400_000));
    let long = format!("[\"{}\"]", "x".repeat(11 * MIB));
    let gzip = |b: &[u8]| encode(Coding::Gzip, b);
    let coded = |c: &str| format!("{json}Content-Encoding: {c}\r\n");
    let zeros = vec![b' '; 64 * MIB];
    let xml_bomb = format!("<a>{}</a>", "<b/>".repeat(600_000));
    let aliases: String = (0..200).map(|i| format!("a{i}:x ")).collect();
    let query = |text: &str| format!("{{\"query\":\"{text}\"}}").into_bytes();
    for (target, fields, body, status) in [
        ("/xml", json.to_owned(), b"{\"a\":".to_vec(), 400),
        ("/xml", json.to_owned(), b"{\"a\":\"\xff\"}".to_vec(), 400),
        ("/xml", json.to_owned(), b"\xff\xfe{\0}\0".to_vec(), 400),
        ("/xml", json.to_owned(), deep.clone().into_bytes(), 413),
        ("/xml", json.to_owned(), many.clone().into_bytes(), 413),
        ("/xml", json.to_owned(), long.clone().into_bytes(), 413),
        ("/xml", "Content-Type: application/json; charset=utf-16\r\n".to_owned(), b"{}".to_vec(), 415),
        ("/xml", "Content-Type: image/png\r\n".to_owned(), b"x".to_vec(), 415),
        ("/decode", coded("gzip"), b"nonsense".to_vec(), 400),
        ("/decode", coded("gzip"), gzip(b"hello hello")[..14].to_vec(), 400),
        ("/decode", coded("br"), b"\xff\xff\xff".to_vec(), 400),
        ("/decode", coded("lzma"), b"x".to_vec(), 415),
        ("/decode", coded("gzip"), gzip(&zeros), 413),
        ("/decode", coded("deflate"), encode(Coding::Deflate, &zeros), 413),
        ("/decode", coded("br"), encode(Coding::Br, &zeros), 413),
        ("/decode", coded("zstd"), encode(Coding::Zstd, &zeros), 413),
        ("/decode", coded("gzip, gzip"), gzip(&gzip(&zeros)), 413),
        ("/valid", json.to_owned(), b"{}".to_vec(), 400),
        ("/valid", json.to_owned(), b"[1".to_vec(), 400),
        ("/valid", json.to_owned(), deep.clone().into_bytes(), 400),
        ("/valid", json.to_owned(), long.clone().into_bytes(), 413),
        ("/threat", json.to_owned(), deep.clone().into_bytes(), 400),
        ("/threat", json.to_owned(), format!("[{}1]", "1,".repeat(2000)).into_bytes(), 400),
        ("/threat", json.to_owned(), b"[1,]".to_vec(), 400),
        ("/graphql", json.to_owned(), query("{a"), 400),
        ("/graphql", json.to_owned(), query(&"{a".repeat(100_000)), 400),
        ("/graphql", json.to_owned(), query(&format!("{{{aliases}}}")), 400),
        ("/graphql", "Content-Type: text/plain\r\n".to_owned(), query("{a}"), 415),
        ("/transform", json.to_owned(), long.into_bytes(), 413),
    ] {
        let before = place.upstream.seen().iter().filter(|m| m.method() == "POST").count();
        let (got, response, _) = post(&place, target, &fields, &body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(got, status, "{target} {fields} {shown}: {}", response.text());
        assert!(!response.body.is_empty(), "{target} {shown}: no word about what is wrong");
        let after = place.upstream.seen().iter().filter(|m| m.method() == "POST").count();
        assert_eq!(before, after, "{target} {shown}: something was forwarded");
    }
    // As XML, towards a service of JSON, nothing else is different.
    let (got, response, kept) =
        post(&place, "/xml", "Content-Type: application/xml\r\n", xml_bomb.as_bytes());
    assert_eq!((got, kept), (200, true), "the service speaks XML itself: {}", response.text());
    // A body that is cut off is an error, and nobody waits for its rest.
    let mut c = Connection::open(place.gateway.http);
    c.send(format!("POST /xml HTTP/1.1\r\nHost: a\r\n{json}Content-Length: 100\r\n\r\n{{"));
    drop(c.writer().shutdown(std::net::Shutdown::Write));
    assert_eq!(c.response().status(), 400);
}

#[test]
fn bad_answers_are_a_502_and_never_half_an_answer() {
    let place = place();
    for (target, status) in [
        ("/xml/malformed", 502),
        ("/xml/truncated", 502),
        ("/xml/doctype", 502),
        ("/xml/latin", 502),
        ("/xml/huge", 502),
        ("/xml/huge-length", 502),
        ("/xml/deep", 502),
        ("/xml/bomb", 502),
        ("/xml/notgzip", 502),
        ("/xml/fine", 200),
        ("/valid/json-wrong", 502),
        ("/valid/json-huge", 502),
    ] {
        let mut c = Connection::open(place.gateway.http);
        let ask = |target: &str| {
            let empty = if target.starts_with("/valid") {
                "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"
            } else {
                "\r\n"
            };
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n{empty}")
        };
        c.send(ask(target));
        let response = c.response();
        assert_eq!(response.status(), status, "{target}: {}", response.text());
        let text = response.text();
        assert!(text.starts_with('{') && text.trim_end().ends_with('}'), "{target}: {text}");
        // The client's connection goes on, whatever the service's did.
        c.send(ask("/xml/fine"));
        assert_eq!(c.response().text(), "{\"a\":\"1\"}", "{target}");
    }
}

#[test]
fn memory_stays_bounded_under_bombs() {
    let place = place();
    let json = "Content-Type: application/json\r\n";
    assert_eq!(get(place.gateway.http, "/xml/fine").status(), 200);
    let rss = || place.gateway.metric("process_resident_memory_bytes");
    let zeros = vec![b' '; 64 * MIB];
    let bombs: Vec<(String, Vec<u8>)> = [Coding::Gzip, Coding::Br, Coding::Zstd]
        .map(|c| (format!("{json}Content-Encoding: {}\r\n", c.name()), encode(c, &zeros)))
        .into();
    drop(zeros);
    let before = rss();
    let highest = std::sync::Mutex::new(before);
    let since = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (place, bombs, json) = (&place, &bombs, json);
            scope.spawn(move || {
                let deep = "[".repeat(1_000_000);
                for round in 0..6 {
                    let (fields, body) = &bombs[(worker + round) % bombs.len()];
                    assert_eq!(post(place, "/decode", fields, body).0, 413);
                    assert_eq!(post(place, "/xml", json, deep.as_bytes()).0, 413);
                    for target in ["/graphql", "/valid", "/threat", "/oas"] {
                        let status = post(place, target, json, deep.as_bytes()).0;
                        assert!(matches!(status, 400 | 413), "{target}: {status}");
                    }
                    // What is no JSON passes as it came, and an answer that cannot be held is none.
                    assert_eq!(post(place, "/transform", json, deep.as_bytes()).0, 200);
                    assert_eq!(request(place.gateway.http, "GET", "/reshape/json-huge", "").status(), 502);
                    let small = request(place.gateway.http, "GET", "/shrink/huge", "Accept-Encoding: gzip\r\n");
                    assert_eq!((small.status(), small.field("content-encoding")), (200, Some("gzip")));
                    let mut c = Connection::open(place.gateway.http);
                    c.send("GET /xml/bomb HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
                    assert_eq!(c.response().status(), 502);
                }
            });
        }
        scope.spawn(|| {
            while since.elapsed() < Duration::from_secs(4) {
                let now = rss();
                let mut highest = highest.lock().expect("no thread panics here");
                *highest = highest.max(now);
                drop(highest);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    });
    let highest = *highest.lock().expect("the threads are over");
    let grown = (highest - before) / MIB as f64;
    // Four at once, each of which may hold a body of 10 MiB while it is read, and what is made of it.
    assert!(grown < 200.0, "resident memory grew by {grown:.0} MiB");
    assert_eq!(get(place.gateway.http, "/xml/fine").status(), 200);
}
