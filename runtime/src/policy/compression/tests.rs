use serde_json::{Value, json};

use super::*;
use crate::body::coding::{Bounds, decode};
use crate::policy::filter::whole;
use crate::policy::testing::{exchange, policy, refuses, request};

const BOUNDS: Bounds = Bounds { size: 1 << 24, ratio: 1 << 20 };

/// What the client gets: fields that matter, and the body decoded, in one line.
fn answer(config: Value, asked: &str, status: u16, fields: &str, body: &[u8], known: bool) -> String {
    let p = policy::<Compression>(&config);
    let mut x = exchange(asked);
    assert!(matches!(request(&p, &mut x), Flow::Next));
    x.response.status = status;
    for line in fields.lines() {
        let (name, value) = line.split_once(": ").expect("a field");
        x.response.fields.push(name.as_bytes(), value.as_bytes());
    }
    let filter = p.response_filter(&mut x, known.then_some(body.len() as u64));
    let sent = match filter {
        Some(mut filter) => match whole(&mut *filter, body, 1 << 24) {
            Ok(sent) => sent,
            Err(error) => return format!("broken: {}", error.0),
        },
        None => body.to_vec(),
    };
    let coding = x.response.fields.text(&names::CONTENT_ENCODING).map(str::to_owned);
    let decoded = match coding.as_deref().and_then(Coding::parse) {
        Some(coding) => decode(coding, &sent, BOUNDS).expect("what was encoded can be decoded"),
        None => sent,
    };
    let same = if decoded == body { "same" } else { "other" };
    let field = |name: &str| list(&x.response.fields, &FieldName::new(name));
    format!("{} {same} vary={} etag={}", coding.unwrap_or_default(), field("Vary"), field("ETag"))
}

fn text() -> Vec<u8> {
    b"{\"name\":\"tea\",\"price\":1.25},".repeat(100)
}

fn check(asked: &str, status: u16, fields: &str, want: &str) {
    let got = answer(json!({}), &format!("GET /\n{asked}"), status, fields, &text(), true);
    assert_eq!(got, want, "{asked} {status} {fields}");
}

const JSON: &str = "Content-Type: application/json";

#[test]
fn responses_are_compressed_if_client_and_type_allow_it() {
    let vary = "vary=Accept-Encoding etag=";
    for (asked, fields, want) in [
        ("Accept-Encoding: gzip", JSON, format!("gzip same {vary}")),
        ("Accept-Encoding: gzip, deflate, br, zstd", JSON, format!("zstd same {vary}")),
        ("Accept-Encoding: br", "Content-Type: text/html; charset=utf-8", format!("br same {vary}")),
        ("Accept-Encoding: gzip;q=0", JSON, format!(" same {vary}")),
        ("X: y", JSON, format!(" same {vary}")),
        ("Accept-Encoding: gzip", "Content-Type: image/png", " same vary= etag=".to_owned()),
        ("Accept-Encoding: gzip", "X: y", " same vary= etag=".to_owned()),
        ("Accept-Encoding: gzip", "Content-Type: text/event-stream", " same vary= etag=".to_owned()),
        ("Accept-Encoding: gzip", "Content-Type: application/problem+json", format!("gzip same {vary}")),
        ("Accept-Encoding: gzip", "Content-Type: application/json\nContent-Encoding: br", "br".to_owned()),
        (
            "Accept-Encoding: gzip",
            "Content-Type: application/json\nCache-Control: public, no-transform",
            " same vary= etag=".to_owned(),
        ),
        ("Accept-Encoding: gzip\nCache-Control: no-transform", JSON, " same vary= etag=".to_owned()),
        (
            "Accept-Encoding: gzip",
            "Content-Type: application/json\nContent-Range: bytes 0-1/2",
            " same vary= etag=".to_owned(),
        ),
        (
            "Accept-Encoding: gzip",
            "Content-Type: application/json\nVary: accept-encoding",
            "gzip same vary=accept-encoding etag=".to_owned(),
        ),
        (
            "Accept-Encoding: gzip",
            "Content-Type: application/json\nETag: \"a\"\nContent-Encoding: identity",
            format!("gzip same {vary}W/\"a-gzip\""),
        ),
    ] {
        if want == "br" {
            // Encoded already, and not by us: nothing is touched.
            let p = policy::<Compression>(&json!({}));
            let mut x = exchange(&format!("GET /\n{asked}"));
            request(&p, &mut x);
            x.response.status = 200;
            x.response.fields.push(b"Content-Type", b"application/json");
            x.response.fields.push(b"Content-Encoding", b"br");
            assert!(p.response_filter(&mut x, None).is_none());
            assert_eq!(x.response.fields.len(), 2);
            continue;
        }
        check(asked, 200, fields, &want);
    }
    for status in [204, 205, 206] {
        check("Accept-Encoding: gzip", status, JSON, " same vary= etag=");
    }
    check("Accept-Encoding: gzip", 404, JSON, &format!("gzip same {vary}"));
}

#[test]
fn short_bodies_are_left_alone_if_they_are_known_to_be_short() {
    let asked = "GET /\nAccept-Encoding: gzip";
    for (n, known, want) in
        [(1023, true, ""), (1024, true, "gzip"), (10, false, "gzip"), (0, false, "gzip"), (0, true, "")]
    {
        let got = answer(json!({}), asked, 200, JSON, &vec![b'x'; n], known);
        assert_eq!(got, format!("{want} same vary=Accept-Encoding etag="), "{n} {known}");
    }
    let got = answer(json!({"min_length": 0}), asked, 200, JSON, b"x", true);
    assert_eq!(got, "gzip same vary=Accept-Encoding etag=");
}

#[test]
fn tags_are_the_upstreams_own_on_its_side() {
    let p = policy::<Compression>(&json!({}));
    let mut x = exchange("GET /\nAccept-Encoding: br\nIf-None-Match: W/\"a-br\", \"b\"");
    request(&p, &mut x);
    assert_eq!(x.request.fields.text(&FieldName::new("If-None-Match")), Some("\"a\", \"b\""));
    x.response.status = 304;
    x.response.fields.push(b"ETag", b"\"a\"");
    assert!(p.response_filter(&mut x, Some(0)).is_none());
    assert_eq!(x.response.fields.text(&names::ETAG), Some("W/\"a-br\""));
    assert_eq!(x.response.fields.text(&names::VARY), Some("Accept-Encoding"));
}

#[test]
fn codings_that_the_client_does_not_take_are_replaced() {
    let config = json!({"recompress": true, "algorithms": ["gzip"]});
    let body = text();
    let mut encoder = Encoder::new(Coding::Br, 4).unwrap();
    let mut coded = Vec::new();
    encoder.push(&body, &mut coded).unwrap();
    encoder.finish(&mut coded).unwrap();
    let run = |asked: &str, coded: &[u8]| {
        let p = policy::<Compression>(&config);
        let mut x = exchange(&format!("GET /\n{asked}"));
        request(&p, &mut x);
        x.response.status = 200;
        for (n, v) in [("Content-Type", "application/json"), ("Content-Encoding", "br"), ("ETag", "\"a\"")] {
            x.response.fields.push(n.as_bytes(), v.as_bytes());
        }
        let filter = p.response_filter(&mut x, Some(coded.len() as u64));
        let sent = filter.map(|mut f| whole(&mut *f, coded, 1 << 20));
        let coding = list(&x.response.fields, &names::CONTENT_ENCODING);
        assert_eq!(x.response.fields.text(&names::VARY), Some("Accept-Encoding"));
        (sent, coding, list(&x.response.fields, &names::ETAG))
    };
    assert_eq!(run("Accept-Encoding: br", &coded), (None, "br".to_owned(), "\"a\"".to_owned()));
    let (sent, coding, tag) = run("Accept-Encoding: gzip", &coded);
    assert_eq!((coding.as_str(), tag.as_str()), ("gzip", "W/\"a-gzip\""));
    assert_eq!(decode(Coding::Gzip, &sent.unwrap().unwrap(), BOUNDS).unwrap(), body);
    let (sent, coding, tag) = run("X: y", &coded);
    assert_eq!((coding.as_str(), tag.as_str()), ("", "W/\"a-identity\""));
    assert_eq!(sent.unwrap().unwrap(), body);
    let (sent, ..) = run("X: y", &coded[..coded.len() / 2]);
    assert_eq!(sent.unwrap().unwrap_err().0, "the compressed body ends too early");
    let (sent, ..) = run("Accept-Encoding: gzip", b"\xffnonsense");
    assert_eq!(sent.unwrap().unwrap_err().0, "the compressed body is malformed");
}

#[test]
fn the_upstream_may_be_asked_not_to_compress() {
    let p = policy::<Compression>(&json!({"upstream_encoding": "identity"}));
    let mut x = exchange("GET /\nAccept-Encoding: gzip");
    request(&p, &mut x);
    assert!(!x.request.fields.contains(&FieldName::new("Accept-Encoding")));
    x.response.status = 200;
    x.response.fields.push(b"Content-Type", b"text/plain");
    assert!(p.response_filter(&mut x, None).is_some());
}

#[test]
fn mistakes_are_found_at_load() {
    for bad in ["json", "*/*", "text/", "a/b;c"] {
        refuses::<Compression>(json!({"content_types": [bad]}), "is no `type/subtype`");
    }
    refuses::<Compression>(json!({"algorithms": []}), "names no coding");
}
