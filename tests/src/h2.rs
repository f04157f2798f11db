//! HTTP/2 frame by frame, for what no well-behaved library would send or leave out.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use crate::gateway::PATIENCE;

/// A frame: type, flags, stream and payload.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl Frame {
    /// See the type.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A request's head for host `test`, in fields that no table holds.
    pub fn request(stream: u32, method: &str, path: &str, flags: u8) -> Self {
        let fields = [(":method", method), (":scheme", "http"), (":authority", "test"), (":path", path)];
        Self::new(HEADERS, flags | END_HEADERS, stream, block(&fields))
    }

    /// Fields that begin a stream.
    pub fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, flags | END_HEADERS, stream, block(fields))
    }

    /// Fields that end a stream.
    pub fn fields(stream: u32, fields: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, END_STREAM | END_HEADERS, stream, block(fields))
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub fn error(&self) -> Option<u32> {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// The next frame; none where the connection has ended.
    pub fn read(from: &mut impl std::io::Read) -> Option<Self> {
        let mut head = [0; 9];
        from.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        from.read_exact(&mut payload).ok()?;
        Some(Self { kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]), payload })
    }

    /// The frame as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// Fields as literals, without a table.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer texts need another form");
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A connection without TLS, on which HTTP/2 is spoken from the first byte.
pub struct H2 {
    stream: TcpStream,
    /// Whether SETTINGS and PINGs are answered, as a living client does.
    pub polite: bool,
}

impl H2 {
    /// Connects and sends the preface.
    pub fn open(addr: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(addr).expect("something listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the gateway reads");
        let mut h2 = Self { stream, polite: true };
        h2.send(&[Frame::new(SETTINGS, 0, 0, [])]);
        h2
    }

    /// Sends frames; tells whether the peer took them.
    pub fn send(&mut self, frames: &[Frame]) -> bool {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.stream.write_all(&bytes).is_ok()
    }

    /// The next frame; none where the connection has ended.
    pub fn receive(&mut self) -> Option<Frame> {
        let frame = Frame::read(&mut self.stream)?;
        if self.polite && frame.flags & 1 == 0 && matches!(frame.kind, SETTINGS | PING) {
            let answer = if frame.kind == PING { frame.payload.clone() } else { Vec::new() };
            self.send(&[Frame::new(frame.kind, 1, 0, answer)]);
        }
        Some(frame)
    }

    /// The first frame of which `wanted` holds.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.receive()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// One GET on `stream`: the first bytes of its header block, of which the first tells the status.
    pub fn get(&mut self, stream: u32, path: &str) -> Option<Frame> {
        self.send(&[Frame::request(stream, "GET", path, END_STREAM)]);
        self.until(|f| f.stream == stream && f.kind == HEADERS)
    }
}
