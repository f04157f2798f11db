//! Heads: what makes a request, what is refused, and what it costs.

use super::*;

#[test]
fn requests_are_what_their_fields_say() {
    let with = |fields: &[(&'static str, &'static str)]| [GET, fields].concat();
    let without = |name: &str| GET.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let changed = |name: &str, value: &'static str| {
        GET.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect::<Vec<_>>()
    };
    let reset = Err(Code::PROTOCOL_ERROR);
    for (what, fields, want) in [
        ("a request", GET.to_vec(), Ok(0)),
        ("an upper-case name", with(&[("X-A", "b")]), reset),
        ("an unknown pseudo-field", with(&[(":x", "b")]), reset),
        ("a response's pseudo-field", with(&[(":status", "200")]), reset),
        ("a pseudo-field behind a field", [&[("a", "b")], GET].concat(), reset),
        ("a method twice", with(&[(":method", "GET")]), reset),
        ("a path twice", with(&[(":path", "/")]), reset),
        ("a scheme twice", with(&[(":scheme", "http")]), reset),
        ("no method", without(":method"), reset),
        ("no scheme", without(":scheme"), reset),
        ("no path", without(":path"), reset),
        ("an empty path", changed(":path", ""), reset),
        ("connection", with(&[("connection", "close")]), reset),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), reset),
        ("upgrade", with(&[("upgrade", "h2c")]), reset),
        ("te of another kind", with(&[("te", "gzip")]), reset),
        ("te", with(&[("te", "trailers")]), Ok(0)),
        ("a control character", with(&[("a", "b\r\nc: d")]), reset),
        ("a length without a body", with(&[("content-length", "5")]), reset),
        ("a length that is none", with(&[("content-length", "+0")]), reset),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "1")]), reset),
        ("no authority", without(":authority"), Ok(400)),
        ("host instead", [&without(":authority")[..], &[("host", "a")]].concat(), Ok(0)),
        ("the same host", with(&[("host", "A")]), Ok(0)),
        ("the host twice", with(&[("host", "a"), ("host", "a")]), Ok(400)),
        ("a method that is too long", changed(":method", "AAAAAAAAAAAAAAAAA"), Ok(501)),
        ("another host", with(&[("host", "b")]), Ok(400)),
        ("an authority that is none", changed(":authority", "a b"), Ok(400)),
        ("a relative path", changed(":path", "admin"), Ok(400)),
        ("an absolute path", changed(":path", "http://x/"), Ok(400)),
        (
            "a long path",
            changed(
                ":path",
                "/ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss",
            ),
            Ok(414),
        ),
        ("a star", changed(":path", "*"), Ok(400)),
        ("a method with a line in it", changed(":method", "GET /admin HTTP/1.1"), Ok(400)),
        ("TRACE", changed(":method", "TRACE"), Ok(405)),
        ("two authorizations", with(&[("authorization", "a"), ("authorization", "b")]), Ok(400)),
        ("an expectation", with(&[("expect", "100-continue")]), Ok(0)),
        ("another expectation", with(&[("expect", "200-ok")]), Ok(417)),
        ("many fields", with(&[("a", "b"); 21]), Ok(431)),
        ("many crumbs", with(&[("cookie", "b"); 21]), Ok(431)),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a:1")], Ok(405)),
        ("CONNECT with a path", changed(":method", "CONNECT"), reset),
        ("a protocol without CONNECT", with(&[(":protocol", "websocket")]), reset),
        ("a WebSocket", [&changed(":method", "CONNECT")[..], &[(":protocol", "websocket")]].concat(), Ok(0)),
        ("another protocol", [&changed(":method", "CONNECT")[..], &[(":protocol", "x")]].concat(), Ok(501)),
    ] {
        let mut talk = Talk::new();
        talk.frame(kind::HEADERS, END, 1, &block(&fields)).unwrap();
        let resets = talk.resets();
        let got = match (talk.events.first(), &resets[..]) {
            (Some(Event::Request { meta, .. }), []) => Ok(meta.refused.map_or(0, |(status, _)| status)),
            (None, [(1, code)]) => Err(Code(*code)),
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(got, want, "{what}");
        // Whatever came of it, the table and the connection go on.
        talk.get(3);
    }
}

#[test]
fn a_head_is_read_into_the_canonical_form() {
    let mut talk = Talk::new();
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "Shop.test:8443"),
        (":path", "/a/b?c=d"),
        ("cookie", "a=1"),
        ("x-one", "1"),
        ("cookie", "b=2"),
        ("content-length", "5"),
    ];
    talk.frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&fields)).unwrap();
    let head = &talk.connection.head;
    assert_eq!((head.method.as_str(), head.raw_path.as_str()), ("POST", "/a/b"));
    assert_eq!((head.query.as_deref(), head.host.as_str()), (Some("c=d"), "Shop.test:8443"));
    assert_eq!(head.fields.text(&names::COOKIE), Some("a=1; b=2"));
    assert_eq!(head.fields.len(), 2);
    assert!(matches!(&talk.events[0], Event::Request { meta, .. } if meta.framing == Framing::Length(5)));
}

#[test]
fn a_list_that_is_too_large_costs_its_request_only() {
    let mut talk = Talk::new();
    let mut block = block(GET);
    // One entry of the table, asked for again and again.
    block.extend_from_slice(b"\x40\x01a\x7f\x81\x02");
    block.extend_from_slice(&[b'v'; 384]);
    block.extend_from_slice(&[0xbe; 10_000]);
    talk.frame(kind::HEADERS, END, 1, &block).unwrap();
    assert!(
        matches!(&talk.events[0], Event::Request { meta, .. } if meta.refused.is_some_and(|r| r.0 == 431))
    );
    let again = [HEAD_BLOCK, &[0xbe]].concat();
    talk.frame(kind::HEADERS, END, 3, &again).unwrap();
    assert!(matches!(&talk.events[1], Event::Request { meta, .. } if meta.refused.is_none()));
    assert_eq!(talk.connection.head.fields.len(), 1);
}
