//! A connection against frames: what each must cause, as RFC 9113 says it section by section.

use std::task::{Context, Poll, Waker};

use super::connection::{Config, Connection, Ending, Event};
use super::frame::{self, Code, HEAD, Head, PREFACE, flag, kind};
use super::hpack::{Decoder, Encoder};
use super::send::Body;
use super::stream::Key;
use crate::http1::{Buffer, Framing};
use crate::message::{Fields, names};

/// A client and the connection that it speaks to.
struct Talk {
    connection: Connection,
    input: Buffer,
    decoder: Decoder,
    events: Vec<Event>,
}

/// A frame of the gateway.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn config() -> Config {
    Config { header_bytes: 4096, header_count: 20, uri: 100, streams: 4, connect_protocol: true }
}

impl Talk {
    /// A connection after the exchange of SETTINGS.
    fn new() -> Self {
        let mut talk = Self::fresh();
        talk.say(PREFACE).unwrap();
        talk.frame(kind::SETTINGS, 0, 0, &[]).unwrap();
        talk.frame(kind::SETTINGS, flag::ACK, 0, &[]).unwrap();
        talk.heard();
        talk
    }

    fn fresh() -> Self {
        let connection = Connection::new(config());
        Self { connection, input: Buffer::default(), decoder: Decoder::default(), events: Vec::new() }
    }

    /// Sends bytes, a few at a time where they are few.
    fn say(&mut self, bytes: &[u8]) -> Result<(), Code> {
        for piece in bytes.chunks(if bytes.len() < 200 { 7 } else { 5000 }) {
            let room = self.input.spare();
            room[..piece.len()].copy_from_slice(piece);
            self.input.filled(piece.len());
            while let Some(event) = self.connection.next(&mut self.input)? {
                self.events.push(event);
            }
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Code> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind, flags, stream, payload);
        self.say(&bytes)
    }

    /// What the gateway has sent since.
    fn heard(&mut self) -> Vec<Frame> {
        let mut bytes = self.connection.pending();
        let mut frames = Vec::new();
        while let Some(head) = Head::read(bytes) {
            let payload = bytes[HEAD..HEAD + head.len].to_vec();
            bytes = &bytes[HEAD + head.len..];
            frames.push(Frame { kind: head.kind, flags: head.flags, stream: head.stream, payload });
        }
        assert!(bytes.is_empty());
        let n = self.connection.pending().len();
        self.connection.wrote(n);
        self.connection.share();
        frames
    }

    fn get(&mut self, stream: u32) -> Key {
        self.frame(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, stream, &block(GET)).unwrap();
        let slot = self.connection.key(stream).expect("it is open").slot;
        Key { slot, id: stream }
    }

    /// The codes of streams that the gateway has taken back since.
    fn resets(&mut self) -> Vec<(u32, u32)> {
        let code = |f: &Frame| u32::from_be_bytes(f.payload[..4].try_into().unwrap());
        self.heard().iter().filter(|f| f.kind == kind::RST_STREAM).map(|f| (f.stream, code(f))).collect()
    }

    fn fields(&mut self, block: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let decoded =
            self.decoder.decode(block, |f| all.push(format!("{}: {}", text(f.name), text(f.value))));
        decoded.unwrap();
        all
    }
}

const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

/// Fields as literals, without a table.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for text in fields.iter().flat_map(|(n, v)| [(0, n), (1, v)]) {
        if text.0 == 0 {
            block.push(0);
        }
        assert!(text.1.len() < 127);
        block.push(text.1.len() as u8);
        block.extend_from_slice(text.1.as_bytes());
    }
    block
}

const END: u8 = flag::END_STREAM | flag::END_HEADERS;

/// What must come of it.
#[derive(Clone, Copy, Debug)]
enum Want {
    Connection(Code),
    Stream(Code),
    Fine,
}
use Want::{Connection as C, Fine, Stream as S};

/// Frames: type, flags, stream and payload.
type Sent = &'static [(u8, u8, u32, &'static [u8])];

/// A block that asks for `/`, in numbers of the static table.
const HEAD_BLOCK: &[u8] = b"\x82\x86\x84\x01\x01a";
const OPEN: (u8, u8, u32, &[u8]) = (kind::HEADERS, flag::END_HEADERS, 1, HEAD_BLOCK);
const OPEN_ENDED: (u8, u8, u32, &[u8]) = (kind::HEADERS, END, 1, HEAD_BLOCK);
const RESET: (u8, u8, u32, &[u8]) = (kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);

#[rustfmt::skip]
const FRAMES: &[(&str, Sent, Want)] = &[
    ("4.1 an unknown type is ignored", &[(0x16, 0, 0, b"12345678")], Fine),
    ("4.1 flags without a meaning are ignored", &[(kind::PING, 0x16, 0, b"12345678")], Fine),
    ("4.2 a block larger than a frame may be", &[(kind::HEADERS, END, 1, &[0; 16_385])], C(Code::FRAME_SIZE_ERROR)),
    ("4.2 data larger than a frame may be", &[OPEN, (kind::DATA, 0, 1, &[0; 16_385])], C(Code::FRAME_SIZE_ERROR)),
    ("4.3 a block that cannot be read", &[(kind::HEADERS, END, 1, &[0x40])], C(Code::COMPRESSION_ERROR)),
    ("4.3 another frame within a block", &[(kind::HEADERS, 1, 1, HEAD_BLOCK), (kind::PRIORITY, 0, 1, &[0; 5])], C(Code::PROTOCOL_ERROR)),
    ("4.3 another stream's block within a block", &[(kind::HEADERS, 1, 1, HEAD_BLOCK), (kind::HEADERS, END, 3, HEAD_BLOCK)], C(Code::PROTOCOL_ERROR)),
    ("4.3 an unknown type within a block", &[(kind::HEADERS, 1, 1, HEAD_BLOCK), (0x16, 0, 1, &[])], C(Code::PROTOCOL_ERROR)),
    ("5.1 idle: data", &[(kind::DATA, 1, 1, b"x")], C(Code::PROTOCOL_ERROR)),
    ("5.1 idle: a reset", &[RESET], C(Code::PROTOCOL_ERROR)),
    ("5.1 idle: a window", &[(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], C(Code::PROTOCOL_ERROR)),
    ("5.1 idle: a continuation", &[(kind::CONTINUATION, 4, 1, HEAD_BLOCK)], C(Code::PROTOCOL_ERROR)),
    ("5.1 half-closed: data", &[OPEN_ENDED, (kind::DATA, 1, 1, b"x")], S(Code::STREAM_CLOSED)),
    ("5.1 half-closed: a block", &[OPEN_ENDED, OPEN_ENDED], S(Code::STREAM_CLOSED)),
    ("5.1 half-closed: a continuation", &[OPEN_ENDED, (kind::CONTINUATION, 4, 1, HEAD_BLOCK)], C(Code::PROTOCOL_ERROR)),
    ("5.1 half-closed: a window, a priority and a reset", &[OPEN_ENDED, (kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), (kind::PRIORITY, 0, 1, &[0; 5]), RESET], Fine),
    ("5.1 closed by a reset: data", &[OPEN, RESET, (kind::DATA, 1, 1, b"x")], S(Code::STREAM_CLOSED)),
    ("5.1 closed by a reset: a block", &[OPEN, RESET, OPEN_ENDED], S(Code::STREAM_CLOSED)),
    ("5.1 closed by a reset: a continuation", &[OPEN, RESET, (kind::CONTINUATION, 4, 1, &[])], C(Code::PROTOCOL_ERROR)),
    ("5.1 closed by a reset: a window", &[OPEN, RESET, (kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], Fine),
    ("5.1.1 an even number", &[(kind::HEADERS, END, 2, HEAD_BLOCK)], C(Code::PROTOCOL_ERROR)),
    ("5.1.1 a number below the last", &[(kind::HEADERS, END, 5, HEAD_BLOCK), (kind::HEADERS, END, 3, HEAD_BLOCK)], C(Code::PROTOCOL_ERROR)),
    ("5.4.1 nothing is read after it", &[(kind::PING, 0, 0, b"1234567")], C(Code::FRAME_SIZE_ERROR)),
    ("6.1 data on stream 0", &[(kind::DATA, 1, 0, b"x")], C(Code::PROTOCOL_ERROR)),
    ("6.1 more padding than payload", &[OPEN, (kind::DATA, 9, 1, b"\x06x")], C(Code::PROTOCOL_ERROR)),
    ("6.1 padding", &[OPEN, (kind::DATA, 9, 1, b"\x02x\0\0")], Fine),
    ("6.2 a block on stream 0", &[(kind::HEADERS, END, 0, HEAD_BLOCK)], C(Code::PROTOCOL_ERROR)),
    ("6.2 more padding than block", &[(kind::HEADERS, END | 8, 1, b"\x09\x82")], C(Code::PROTOCOL_ERROR)),
    ("6.2 padding and priority", &[(kind::HEADERS, END | 0x28, 1, b"\x01\0\0\0\0\x09\x82\x86\x84\x01\x01a\0")], Fine),
    ("6.3 a priority on stream 0", &[(kind::PRIORITY, 0, 0, &[0; 5])], C(Code::PROTOCOL_ERROR)),
    ("6.3 a priority of another size", &[OPEN, (kind::PRIORITY, 0, 1, &[0; 4])], S(Code::FRAME_SIZE_ERROR)),
    ("6.3 a priority on an idle stream", &[(kind::PRIORITY, 0, 1, &[0; 5])], Fine),
    ("5.3.1 a stream that depends on itself", &[(kind::HEADERS, END | 0x20, 1, b"\0\0\0\x01\x09\x82\x86\x84\x01\x01a")], S(Code::PROTOCOL_ERROR)),
    ("5.3.1 a stream that comes to depend on itself", &[OPEN, (kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 9])], S(Code::PROTOCOL_ERROR)),
    ("6.4 a reset of stream 0", &[(kind::RST_STREAM, 0, 0, &[0; 4])], C(Code::PROTOCOL_ERROR)),
    ("6.4 a reset of another size", &[OPEN, (kind::RST_STREAM, 0, 1, &[0; 3])], C(Code::FRAME_SIZE_ERROR)),
    ("6.5 an acknowledgement with a payload", &[(kind::SETTINGS, 1, 0, &[0; 6])], C(Code::FRAME_SIZE_ERROR)),
    ("6.5 settings of a stream", &[(kind::SETTINGS, 0, 1, &[])], C(Code::PROTOCOL_ERROR)),
    ("6.5 settings of another size", &[(kind::SETTINGS, 0, 0, &[0; 3])], C(Code::FRAME_SIZE_ERROR)),
    ("6.5.2 ENABLE_PUSH", &[(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])], C(Code::PROTOCOL_ERROR)),
    ("6.5.2 INITIAL_WINDOW_SIZE", &[(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])], C(Code::FLOW_CONTROL_ERROR)),
    ("6.5.2 MAX_FRAME_SIZE below", &[(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff])], C(Code::PROTOCOL_ERROR)),
    ("6.5.2 MAX_FRAME_SIZE above", &[(kind::SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0])], C(Code::PROTOCOL_ERROR)),
    ("6.5.2 an unknown setting", &[(kind::SETTINGS, 0, 0, &[0, 0xff, 1, 0, 0, 0])], Fine),
    ("6.6 a push", &[OPEN, (kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])], C(Code::PROTOCOL_ERROR)),
    ("6.7 a ping of a stream", &[(kind::PING, 0, 1, &[0; 8])], C(Code::PROTOCOL_ERROR)),
    ("6.7 a ping of another size", &[(kind::PING, 0, 0, &[0; 9])], C(Code::FRAME_SIZE_ERROR)),
    ("6.7 an answer that was not asked for", &[(kind::PING, 1, 0, b"unasked!")], Fine),
    ("6.8 a going away of a stream", &[(kind::GOAWAY, 0, 1, &[0; 8])], C(Code::PROTOCOL_ERROR)),
    ("6.8 a going away", &[(kind::GOAWAY, 0, 0, &[0; 8])], Fine),
    ("6.9 the connection's window opened by nothing", &[(kind::WINDOW_UPDATE, 0, 0, &[0; 4])], C(Code::PROTOCOL_ERROR)),
    ("6.9 a stream's window opened by nothing", &[OPEN, (kind::WINDOW_UPDATE, 0, 1, &[0; 4])], S(Code::PROTOCOL_ERROR)),
    ("6.9 a window of another size", &[(kind::WINDOW_UPDATE, 0, 0, &[0; 3])], C(Code::FRAME_SIZE_ERROR)),
    ("6.9.1 the connection's window opened too far", &[(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])], C(Code::FLOW_CONTROL_ERROR)),
    ("6.9.1 a stream's window opened too far", &[OPEN, (kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])], S(Code::FLOW_CONTROL_ERROR)),
    ("6.9.2 all windows opened too far", &[OPEN, (kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0, 0]), (kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])], C(Code::FLOW_CONTROL_ERROR)),
    ("6.10 a block in parts", &[(kind::HEADERS, 1, 1, b"\x82\x86"), (kind::CONTINUATION, 0, 1, b"\x84"), (kind::CONTINUATION, 4, 1, b"\x01\x01a")], Fine),
    ("6.10 a part of no block", &[OPEN, (kind::CONTINUATION, 4, 1, HEAD_BLOCK)], C(Code::PROTOCOL_ERROR)),
    ("6.10 a part on stream 0", &[(kind::HEADERS, 1, 1, HEAD_BLOCK), (kind::CONTINUATION, 4, 0, HEAD_BLOCK)], C(Code::PROTOCOL_ERROR)),
    ("6.10 data within a block", &[OPEN, (kind::HEADERS, 1, 3, HEAD_BLOCK), (kind::DATA, 1, 1, b"x")], C(Code::PROTOCOL_ERROR)),
    ("8.1 a second block that does not end the stream", &[OPEN, (kind::HEADERS, 4, 1, b"\0\x01a\x01b")], S(Code::PROTOCOL_ERROR)),
    ("8.1 trailers", &[OPEN, (kind::HEADERS, END, 1, b"\0\x01a\x01b")], Fine),
    ("8.1 a pseudo-field in trailers", &[OPEN, (kind::HEADERS, END, 1, b"\x82")], S(Code::PROTOCOL_ERROR)),
];

#[test]
fn frames_cause_what_the_specification_says() {
    for (what, frames, want) in FRAMES {
        let mut talk = Talk::new();
        let mut error = None;
        for (kind, flags, stream, payload) in *frames {
            assert_eq!(error, None, "{what}: too early");
            error = talk.frame(*kind, *flags, *stream, payload).err();
        }
        let resets = talk.resets();
        match want {
            C(code) => assert_eq!(error, Some(*code), "{what}"),
            S(code) => assert_eq!((error, &resets[..]), (None, &[(1, code.0)][..]), "{what}"),
            Fine => assert_eq!((error, resets), (None, vec![]), "{what}"),
        }
        if error.is_none() {
            talk.get(101);
        }
    }
}

#[test]
fn a_connection_begins_with_a_preface_and_settings() {
    let bad: &[&[u8]] = &[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"];
    for bytes in bad {
        assert_eq!(Talk::fresh().say(bytes), Err(Code::PROTOCOL_ERROR));
    }
    for (kind, flags) in [(kind::PING, 0), (kind::HEADERS, END), (kind::SETTINGS, flag::ACK)] {
        let mut talk = Talk::fresh();
        talk.say(PREFACE).unwrap();
        assert_eq!(talk.frame(kind, flags, 0, &[]), Err(Code::PROTOCOL_ERROR));
    }
    let heard = Talk::fresh().heard();
    assert_eq!((heard[0].kind, heard[1].kind), (kind::SETTINGS, kind::WINDOW_UPDATE));
}

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

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn bodies_are_held_to_their_length_and_window() {
    for (length, pieces, want) in [
        ("5", &[5][..], None),
        ("5", &[2, 3], None),
        ("5", &[6], Some(Code::PROTOCOL_ERROR)),
        ("5", &[4], Some(Code::PROTOCOL_ERROR)),
        ("5", &[4, 2], Some(Code::PROTOCOL_ERROR)),
        ("99999", &[16_384, 16_384, 16_384, 16_384], Some(Code::PROTOCOL_ERROR)),
        ("99999", &[16_384, 16_384, 16_384, 16_384, 1], Some(Code::FLOW_CONTROL_ERROR)),
    ] {
        let mut talk = Talk::new();
        let fields = [POST, &[("content-length", length)]].concat();
        talk.frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&fields)).unwrap();
        for (i, n) in pieces.iter().enumerate() {
            let end = u8::from(i + 1 == pieces.len());
            talk.frame(kind::DATA, end, 1, &vec![0; *n]).unwrap();
        }
        let want: Vec<_> = want.iter().map(|c| (1, c.0)).collect();
        assert_eq!(talk.resets(), want, "{length} {pieces:?}");
        if !want.is_empty() {
            assert_eq!(talk.events.last(), Some(&Event::Gone { slot: 0 }));
        }
    }
}

#[test]
fn what_is_used_may_be_sent_again() {
    let mut talk = Talk::new();
    talk.frame(kind::HEADERS, flag::END_HEADERS, 1, &block(POST)).unwrap();
    let key = Key { slot: 0, id: 1 };
    let mut piece = Vec::new();
    let mut allowed = [0_u64; 2];
    for _ in 0..200 {
        // A padded frame: padding counts, too.
        let payload = [&[200][..], &[7; 4000], &[0; 200]].concat();
        talk.frame(kind::DATA, flag::PADDED, 1, &payload).unwrap();
        assert_eq!(talk.connection.poll_body(key, &mut piece, &cx()), Poll::Ready(Body::Data));
        assert_eq!(piece, [7; 4000]);
        talk.connection.used(key, piece.len());
        for frame in talk.heard() {
            assert_eq!(frame.kind, kind::WINDOW_UPDATE);
            let n = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
            allowed[frame.stream as usize] += u64::from(n);
        }
    }
    assert!(talk.connection.poll_body(key, &mut piece, &cx()).is_pending());
    let sent = 200 * 4201;
    assert!(allowed[1] > sent - 32_768 && allowed[0] > sent - 524_288, "{allowed:?}");
    // What nobody takes is given back to the others when its stream goes.
    for _ in 0..3 {
        talk.frame(kind::DATA, 0, 1, &[0; 16_000]).unwrap();
    }
    talk.frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]).unwrap();
    for stream in (3..200).step_by(2) {
        talk.frame(kind::HEADERS, flag::END_HEADERS, stream, &block(POST)).unwrap();
        for _ in 0..4 {
            talk.frame(kind::DATA, 0, stream, &[0; 16_000]).unwrap();
        }
        let key = talk.connection.key(stream).unwrap();
        talk.connection.reset(key, Code::CANCEL);
    }
}

#[test]
fn answers_keep_to_the_windows() {
    let mut talk = Talk::new();
    // Ten bytes a stream.
    talk.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10]).unwrap();
    let key = talk.get(1);
    talk.heard();
    let mut fields = Fields::default();
    fields.push(b"Content-Type", b"text/plain");
    fields.push(b"Connection", b"close");
    talk.connection.head(key, 200, &fields, Some(25), false).unwrap();
    assert_eq!(talk.connection.poll_room(key, &cx()), Poll::Ready(Ok(10)));
    talk.connection.data(key, &[1; 10], false).unwrap();
    assert!(talk.connection.poll_room(key, &cx()).is_pending());
    let heard = talk.heard();
    let fields = talk.fields(&heard[0].payload);
    assert_eq!(fields, [":status: 200", "content-type: text/plain", "content-length: 25"]);
    assert_eq!((heard[1].kind, heard[1].payload.len()), (kind::DATA, 10));
    talk.frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 5]).unwrap();
    assert_eq!(talk.connection.poll_room(key, &cx()), Poll::Ready(Ok(5)));
    // The window becomes smaller than what was sent, and larger again.
    talk.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]).unwrap();
    assert!(talk.connection.poll_room(key, &cx()).is_pending());
    talk.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 30]).unwrap();
    assert_eq!(talk.connection.poll_room(key, &cx()), Poll::Ready(Ok(25)));
    talk.connection.data(key, &[1; 15], true).unwrap();
    talk.connection.finish(key);
    assert_eq!(talk.connection.open(), 0);
    assert!(talk.resets().is_empty());
}

#[test]
fn streams_share_what_room_there_is() {
    let mut talk = Talk::new();
    talk.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x10, 0, 0, 0]).unwrap();
    talk.frame(kind::WINDOW_UPDATE, 0, 0, &[0x10, 0, 0, 0]).unwrap();
    let keys = [1, 3, 5].map(|id| talk.get(id));
    for key in keys {
        talk.connection.head(key, 200, &Fields::default(), None, false).unwrap();
    }
    talk.heard();
    let mut sent = [0_usize; 3];
    for _ in 0..100 {
        for (key, sent) in keys.iter().zip(&mut sent) {
            while let Poll::Ready(room) = talk.connection.poll_room(*key, &cx()) {
                let n = room.unwrap();
                talk.connection.data(*key, &vec![0; n], false).unwrap();
                *sent += n;
            }
        }
        talk.heard();
    }
    let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
    assert!(*least > 0 && most - least <= 128 * 1024, "{sent:?}");
}

#[test]
fn floods_end_the_connection() {
    let request = || {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind::HEADERS, flag::END_HEADERS, 0, &block(POST));
        bytes
    };
    let on = |stream: u32, mut bytes: Vec<u8>| {
        bytes[5..9].copy_from_slice(&stream.to_be_bytes());
        bytes
    };
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind, flags, stream, payload);
        bytes
    };
    type Round<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let rounds: [(&str, u32, Round<'_>); 9] = [
        (
            "rapid reset",
            200,
            Box::new(|s| [on(s, request()), frame(kind::RST_STREAM, 0, s, &[0, 0, 0, 8])].concat()),
        ),
        (
            "a window opened by nothing",
            200,
            Box::new(|s| [on(s, request()), frame(kind::WINDOW_UPDATE, 0, s, &[0; 4])].concat()),
        ),
        (
            "data after the end",
            200,
            Box::new(|s| {
                [on(s, request()), frame(kind::DATA, 1, s, b""), frame(kind::DATA, 1, s, b"x")].concat()
            }),
        ),
        ("malformed requests", 200, Box::new(|s| frame(kind::HEADERS, END, s, &block(&[("A", "b")])))),
        ("streams beyond the bound", 1100, Box::new(|s| on(s, request()))),
        ("pings", 1100, Box::new(|_| frame(kind::PING, 0, 0, b"12345678"))),
        ("settings", 1100, Box::new(|_| frame(kind::SETTINGS, 0, 0, &[]))),
        ("priorities", 1100, Box::new(|s| frame(kind::PRIORITY, 0, s, &[0; 5]))),
        ("frames of no known type", 1100, Box::new(|s| frame(0x16, 0, s, &[]))),
    ];
    for (what, most, round) in rounds {
        let mut talk = Talk::new();
        let ended = (0..2000).find_map(|n| talk.say(&round(2 * n + 1)).err().map(|code| (n, code)));
        assert!(
            ended.is_some_and(|(n, code)| n <= most && code == Code::ENHANCE_YOUR_CALM),
            "{what}: {ended:?}"
        );
    }
    let mut talk = Talk::new();
    talk.frame(kind::HEADERS, flag::END_HEADERS, 1, &block(POST)).unwrap();
    let empty = (0..2000).find_map(|_| talk.frame(kind::DATA, 0, 1, &[]).err());
    assert_eq!(empty, Some(Code::ENHANCE_YOUR_CALM), "empty data");
    let mut talk = Talk::new();
    talk.frame(kind::HEADERS, flag::END_STREAM, 1, &block(POST)).unwrap();
    let parts = (0..200).find_map(|_| talk.frame(kind::CONTINUATION, 0, 1, &[]).err());
    assert_eq!(parts, Some(Code::ENHANCE_YOUR_CALM), "a block in many parts");
}

#[test]
fn what_comes_slowly_is_no_flood() {
    let mut talk = Talk::new();
    let mut now = crate::clock::monotonic();
    for _ in 0..20 {
        talk.connection.tick(now);
        for _ in 0..500 {
            talk.frame(kind::PING, 0, 0, b"12345678").unwrap();
            talk.heard();
        }
        now += std::time::Duration::from_secs(11);
    }
}

#[test]
fn what_was_taken_back_is_passed_over_and_what_was_done_is_not() {
    let mut talk = Talk::new();
    talk.frame(kind::HEADERS, flag::END_HEADERS, 1, &block(POST)).unwrap();
    let key = Key { slot: 0, id: 1 };
    talk.connection.head(key, 200, &Fields::default(), None, true).unwrap();
    // Answered before the request was whole.
    talk.connection.finish(key);
    assert_eq!(talk.resets(), [(1, 0)]);
    talk.frame(kind::DATA, 0, 1, b"late").unwrap();
    talk.frame(kind::HEADERS, END, 1, b"\0\x01a\x01b").unwrap();
    let key = talk.get(3);
    talk.connection.head(key, 200, &Fields::default(), None, true).unwrap();
    talk.connection.finish(key);
    assert_eq!(talk.frame(kind::DATA, 1, 3, b"x"), Err(Code::STREAM_CLOSED));
}

#[test]
fn large_blocks_go_out_in_parts() {
    let mut talk = Talk::new();
    let key = talk.get(1);
    talk.heard();
    let mut fields = Fields::default();
    let value = vec![b'v'; 9000];
    for n in 0..5 {
        fields.push(format!("x-{n}").as_bytes(), &value);
    }
    talk.connection.head(key, 200, &fields, None, true).unwrap();
    let heard = talk.heard();
    let kinds: Vec<_> = heard.iter().map(|f| (f.kind, f.flags)).collect();
    let middle = (kind::CONTINUATION, 0);
    assert_eq!(kinds, [(kind::HEADERS, 1), middle, (kind::CONTINUATION, 4)]);
    let block: Vec<u8> = heard.into_iter().flat_map(|f| f.payload).collect();
    assert_eq!(talk.fields(&block).len(), 6);
}

#[test]
fn an_end_is_told_twice() {
    let mut talk = Talk::new();
    let first = talk.get(1);
    talk.connection.announce_end();
    let heard = talk.heard();
    assert_eq!((heard[0].kind, &heard[0].payload[..4]), (kind::GOAWAY, &[0x7f, 0xff, 0xff, 0xff][..]));
    assert_eq!(heard[1].kind, kind::PING);
    // What the client had sent before it read that is served.
    let second = talk.get(3);
    talk.frame(kind::PING, flag::ACK, 0, &heard[1].payload).unwrap();
    assert_eq!(talk.connection.ending(), Ending::Last);
    let heard = talk.heard();
    assert_eq!((heard[0].kind, &heard[0].payload[..4]), (kind::GOAWAY, &[0, 0, 0, 3][..]));
    talk.frame(kind::HEADERS, END, 5, &block(GET)).unwrap();
    assert_eq!(talk.connection.open(), 2);
    for key in [first, second] {
        talk.connection.head(key, 204, &Fields::default(), None, true).unwrap();
        talk.connection.finish(key);
    }
    assert!(!talk.connection.is_over());
    talk.heard();
    assert!(talk.connection.is_over());
}

/// Whatever bytes come, none panics, and none makes more go out than it is worth.
#[test]
fn random_frames_are_harmless() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut encoder = Encoder::default();
    for _ in 0..300 {
        let mut talk = Talk::new();
        for _ in 0..100 {
            let (kind, flags, stream) = (next(11) as u8, next(64) as u8, next(9) as u32);
            let mut payload = Vec::new();
            match next(3) {
                0 => encoder.status(&mut payload, 200),
                1 => payload = HEAD_BLOCK.to_vec(),
                _ => payload.extend((0..next(30)).map(|_| next(256) as u8)),
            }
            if talk.frame(kind, flags, stream, &payload).is_err() {
                break;
            }
            for key in talk.connection.by_id.clone().into_iter().map(|(id, slot)| Key { slot, id }) {
                match next(6) {
                    0 => drop(talk.connection.head(key, 200, &Fields::default(), None, false)),
                    1 => talk.connection.finish(key),
                    2 => talk.connection.reset(key, Code::CANCEL),
                    _ => {}
                }
            }
            assert!(talk.connection.open() <= 4);
            talk.heard();
        }
    }
}
