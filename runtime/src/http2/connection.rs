//! A connection of a client: its streams, its windows, and the bytes that are to go out.
//!
//! [`Connection::next`] takes bytes and tells what came of them (module `receive`); the methods of module `send` write
//! answers.

use std::collections::VecDeque;
use std::time::Instant;

use ahash::AHashMap;

use super::flood::Flood;
use super::flow::{self, ReceiveWindow, SendWindow};
use super::frame::{self, Code, flag, kind};
use super::hpack::{Decoder, Encoder};
use super::receive::{Block, Payload};
use super::request;
use super::settings::{self, Settings};
use super::stream::{Closed, Graves, Key, Stream, WINDOW};
use crate::message::RequestHead;

/// What a client may send on all streams together before the gateway has used any of it.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of bodies that wait to be written, before streams wait themselves.
pub(super) const OUT_MAX: usize = 64 * 1024;
/// A number that a client cannot have opened.
const ALL_STREAMS: u32 = 0x7fff_ffff;

/// What PINGs of the gateway say, so that their answers are told apart.
const ALIVE: [u8; 8] = *b"gw alive";
const DRAINING: [u8; 8] = *b"gw drain";

/// What a connection holds its client to.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of all fields, each with 32 more; and how many fields.
    pub header_bytes: usize,
    pub header_count: usize,
    /// Bytes of a request's target.
    pub uri: usize,
    /// Streams at once.
    pub streams: u32,
    /// Whether CONNECT with `:protocol` is understood (RFC 8441).
    pub connect_protocol: bool,
}

/// What came of the client's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A request, whose head is in [`Connection::head`].
    Request { key: Key, meta: request::Meta },
    /// The stream in this place is closed before its time: nobody waits for its answer.
    Gone { slot: u32 },
}

/// How far the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Ending {
    Open,
    /// The client was told, and may have sent more before it read that.
    Announced,
    /// What is opened from now on is not served.
    Last,
}

/// See the module.
pub struct Connection {
    pub(super) config: Config,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) peer: Settings,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    pub(super) streams: Vec<Stream>,
    pub(super) free: Vec<u32>,
    pub(super) by_id: AHashMap<u32, u32>,
    pub(super) graves: Graves,
    /// Places of streams that wait for room which all share.
    pub(super) queue: VecDeque<u32>,
    /// How many of them may take some of it now.
    pub(super) granted: u32,
    pub(super) last_id: u32,
    pub(super) flood: Flood,
    /// The preface came; the client's SETTINGS came; ours were acknowledged.
    pub(super) prefaced: bool,
    pub(super) settled: bool,
    acknowledged: bool,
    /// A block of fields of which more is to come.
    pub(super) block: Option<Block>,
    /// The payload of a DATA frame of which more is to come.
    pub(super) payload: Option<Payload>,
    /// Bytes to pass over.
    pub(super) skip: usize,
    ending: Ending,
    /// A PING of ours is not answered yet.
    pinging: bool,
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    /// The head of the last request. To be swapped against one that may be overwritten.
    pub head: RequestHead,
}

impl Connection {
    /// A connection on which nothing was said; what the gateway says first is to go out.
    pub fn new(config: Config) -> Self {
        let mut out = Vec::new();
        let payload = settings::ours(
            config.streams,
            WINDOW,
            u32::try_from(config.header_bytes).unwrap_or(u32::MAX),
            config.connect_protocol,
        );
        frame::write(&mut out, kind::SETTINGS, 0, 0, &payload);
        frame::window_update(&mut out, 0, CONNECTION_WINDOW - flow::DEFAULT);
        Self {
            config,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            peer: Settings::default(),
            send: SendWindow::new(flow::DEFAULT),
            receive: ReceiveWindow::new(CONNECTION_WINDOW),
            streams: Vec::new(),
            free: Vec::new(),
            by_id: AHashMap::new(),
            graves: Graves::default(),
            queue: VecDeque::new(),
            granted: 0,
            last_id: 0,
            flood: Flood::default(),
            prefaced: false,
            settled: false,
            acknowledged: false,
            block: None,
            payload: None,
            skip: 0,
            ending: Ending::Open,
            pinging: false,
            out,
            written: 0,
            head: RequestHead::default(),
        }
    }

    /// Bytes that are to go out.
    pub fn pending(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So many of them went.
    pub fn wrote(&mut self, n: usize) {
        self.written += n;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
    }

    /// Whether so much waits to go out that nothing more is to be read: answers to that would wait, too.
    pub fn is_full(&self) -> bool {
        self.out.len() - self.written >= 2 * OUT_MAX
    }

    /// Gives back what memory an idle connection does not need. `out` is handed to whoever can use it.
    pub fn rest(&mut self) -> Vec<u8> {
        self.decoder.rest();
        self.head = RequestHead::default();
        if self.by_id.is_empty() {
            (self.streams, self.free, self.by_id) = Default::default();
        }
        std::mem::take(&mut self.out)
    }

    /// Takes an empty buffer for what is to go out next.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        if self.out.capacity() == 0 {
            self.out = buffer;
        }
    }

    /// Whether the buffer for what goes out was given back.
    pub fn lacks_buffer(&self) -> bool {
        self.out.capacity() == 0
    }

    /// How many streams are open.
    pub fn open(&self) -> usize {
        self.by_id.len()
    }

    /// Whether preface and SETTINGS of the client came.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the client has acknowledged the gateway's SETTINGS.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// Whether the client has begun a frame or a block of fields, without a body's data, and is to finish it.
    pub fn is_amid(&self) -> bool {
        self.block.is_some()
    }

    /// Whether a PING of the gateway waits for its answer.
    pub fn is_pinging(&self) -> bool {
        self.pinging
    }

    /// How far the connection's end is.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Whether nothing is left to be done.
    pub fn is_over(&self) -> bool {
        self.ending == Ending::Last && self.by_id.is_empty() && self.pending().is_empty()
    }

    /// Tells the time, now and then: what a client does too much of is too much within a span of it.
    pub fn tick(&mut self, now: Instant) {
        self.flood.renew(now);
    }

    /// Asks whether the client is still there.
    pub fn ping(&mut self) {
        if !self.pinging {
            self.pinging = true;
            frame::write(&mut self.out, kind::PING, 0, 0, &ALIVE);
        }
    }

    pub(super) fn ping_answered(&mut self, payload: &[u8]) {
        if payload == DRAINING {
            self.end_last();
        }
        self.pinging &= payload != ALIVE;
    }

    pub(super) fn settings_acknowledged(&mut self) {
        self.acknowledged = true;
    }

    /// Tells the client that the connection will end, and asks for a sign that it has read that (RFC 9113 6.8).
    pub fn announce_end(&mut self) {
        if self.ending == Ending::Open {
            self.ending = Ending::Announced;
            frame::goaway(&mut self.out, ALL_STREAMS, Code::NO_ERROR);
            frame::write(&mut self.out, kind::PING, 0, 0, &DRAINING);
        }
    }

    /// Serves no streams but those that are open.
    pub fn end_last(&mut self) {
        if self.ending < Ending::Last {
            self.ending = Ending::Last;
            frame::goaway(&mut self.out, self.last_id, Code::NO_ERROR);
        }
    }

    /// Ends the connection for an error.
    pub fn fail(&mut self, code: Code) {
        self.ending = Ending::Last;
        frame::goaway(&mut self.out, self.last_id, code);
    }

    pub(super) fn stream(&mut self, key: Key) -> Option<&mut Stream> {
        self.streams.get_mut(key.slot as usize).filter(|s| s.id == key.id)
    }

    pub(super) fn key(&self, id: u32) -> Option<Key> {
        self.by_id.get(&id).map(|slot| Key { slot: *slot, id })
    }

    pub(super) fn open_stream(&mut self, id: u32, length: Option<u64>, ended: bool) -> Key {
        let window = self.peer.window;
        let slot = match self.free.pop() {
            Some(slot) => {
                let place = &mut self.streams[slot as usize];
                let body = std::mem::take(&mut place.body);
                *place = Stream::open(id, window, length, ended, body);
                slot
            }
            None => {
                self.streams.push(Stream::open(id, window, length, ended, Vec::new()));
                self.streams.len() as u32 - 1
            }
        };
        self.by_id.insert(id, slot);
        Key { slot, id }
    }

    /// Forgets a stream. Memory for a body that was never large is kept for the place's next one.
    pub(super) fn close_stream(&mut self, key: Key, how: Closed) {
        let Some(stream) = self.stream(key) else { return };
        stream.id = 0;
        let granted = std::mem::take(&mut stream.granted);
        stream.wake_reader();
        stream.wake_writer();
        let unread = stream.body.len();
        stream.body.clear();
        if stream.body.capacity() > 4096 {
            stream.body = Vec::new();
        }
        self.granted -= u32::from(granted);
        self.by_id.remove(&key.id);
        self.free.push(key.slot);
        self.graves.add(key.id, how);
        self.use_connection_window(unread);
    }

    pub(super) fn use_connection_window(&mut self, n: usize) {
        if let Some(more) = self.receive.used(n) {
            frame::window_update(&mut self.out, 0, more);
        }
    }

    pub(super) fn acknowledge(&mut self, kind: u8, payload: &[u8]) {
        frame::write(&mut self.out, kind, flag::ACK, 0, payload);
    }
}
