//! A connection against frames: what each must cause, as RFC 9113 says it section by section.

use std::task::{Context, Poll, Waker};

use super::connection::{Config, Connection, Ending, Event};
use super::frame::{self, Code, HEAD, Head, PREFACE, flag, kind};
use super::hpack::{Decoder, Encoder};
use super::send::Body;
use super::stream::Key;
use crate::http1::{Buffer, Framing};
use crate::message::{Fields, names};

mod floods;
mod requests;
mod windows;

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

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
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
