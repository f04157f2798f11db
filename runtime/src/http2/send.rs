//! What the gateway sends: heads, bodies and trailers, each straight into the bytes that go out next.
//!
//! Bodies wait where they come from until there is room: in the client's windows, and among the bytes that go out. Where
//! many wait for room that they share, they get it one after the other, a frame each.

use std::task::{Context, Poll};

use super::connection::{Connection, OUT_MAX};
use super::frame::{self, Code, HEAD, Head, MAX_PAYLOAD, flag, kind};
use super::stream::{Closed, Key, remember};
use crate::http1::trailers::may_trail;
use crate::http1::write::hop_by_hop;
use crate::message::{Fields, names};

/// The stream is closed: nobody wants what is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// What [`Connection::poll_body`] has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// Some of the body.
    Data,
    End,
    /// The stream was taken back.
    Broken,
}

impl Connection {
    /// Sends a head: an interim one, or the last, of which `length` is what it says of the body, and `end` whether there
    /// is none.
    ///
    /// # Errors
    /// See [`Gone`].
    pub fn head(
        &mut self,
        key: Key,
        status: u16,
        fields: &Fields,
        length: Option<u64>,
        end: bool,
    ) -> Result<(), Gone> {
        self.may_send(key)?;
        let start = self.begin_block();
        self.encoder.status(&mut self.out, status);
        for (tag, name, value) in fields.iter_tagged().filter(|(tag, ..)| !hop_by_hop(*tag)) {
            self.encoder.field(&mut self.out, tag, name, value);
        }
        if let Some(n) = length {
            let (name, mut digits) = (&names::CONTENT_LENGTH, itoa::Buffer::new());
            self.encoder.field(
                &mut self.out,
                name.tag(),
                name.as_str().as_bytes(),
                digits.format(n).as_bytes(),
            );
        }
        self.end_block(start, key, end);
        Ok(())
    }

    /// Sends what comes after a body, and so the end.
    ///
    /// # Errors
    /// See [`Gone`].
    pub fn trailers(&mut self, key: Key, fields: &Fields) -> Result<(), Gone> {
        self.may_send(key)?;
        let start = self.begin_block();
        let before = self.out.len();
        for (tag, name, value) in fields.iter_tagged().filter(|(tag, name, _)| may_trail(*tag, name)) {
            self.encoder.field(&mut self.out, tag, name, value);
        }
        if self.out.len() == before {
            self.out.truncate(start);
            frame::write(&mut self.out, kind::DATA, flag::END_STREAM, key.id, &[]);
            self.close_local(key);
            return Ok(());
        }
        self.end_block(start, key, true);
        Ok(())
    }

    fn may_send(&mut self, key: Key) -> Result<(), Gone> {
        match self.stream(key) {
            Some(stream) if !stream.reset && !stream.local_closed => Ok(()),
            _ => Err(Gone),
        }
    }

    fn begin_block(&mut self) -> usize {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEAD]);
        self.encoder.begin(&mut self.out);
        start
    }

    /// Puts the frame's head before a block, and further heads into one that is too large for a frame.
    fn end_block(&mut self, start: usize, key: Key, end: bool) {
        let len = self.out.len() - start - HEAD;
        self.flood.answered(len);
        let mut flags = if end { flag::END_STREAM } else { 0 };
        if len <= MAX_PAYLOAD {
            flags |= flag::END_HEADERS;
            let head = Head { len, kind: kind::HEADERS, flags, stream: key.id };
            self.out[start..start + HEAD].copy_from_slice(&head.bytes());
        } else {
            let block = self.out.split_off(start + HEAD);
            self.out.truncate(start);
            let last = block.len().div_ceil(MAX_PAYLOAD) - 1;
            for (i, piece) in block.chunks(MAX_PAYLOAD).enumerate() {
                let (kind, first) = if i == 0 { (kind::HEADERS, flags) } else { (kind::CONTINUATION, 0) };
                let flags = if i == last { first | flag::END_HEADERS } else { first };
                frame::write(&mut self.out, kind, flags, key.id, piece);
            }
        }
        if end {
            self.close_local(key);
        }
    }

    fn close_local(&mut self, key: Key) {
        if let Some(stream) = self.stream(key) {
            stream.local_closed = true;
        }
    }

    /// Room that all streams share.
    fn shared_room(&self) -> usize {
        let waiting = self.out.len() - self.written;
        self.send.room().min(OUT_MAX.saturating_sub(waiting))
    }

    /// Waits until some of a body can be sent, and says how much.
    ///
    /// # Errors
    /// See [`Gone`].
    pub fn poll_room(&mut self, key: Key, cx: &Context<'_>) -> Poll<Result<usize, Gone>> {
        let shared = self.shared_room();
        let waited_for = self.is_contended();
        let Some(stream) = self.stream(key).filter(|s| !s.reset && !s.local_closed) else {
            return Poll::Ready(Err(Gone));
        };
        let own = stream.send.room();
        if own == 0 {
            remember(&mut stream.writer, cx.waker());
            return Poll::Pending;
        }
        if shared == 0 || waited_for && !stream.granted {
            remember(&mut stream.writer, cx.waker());
            if !std::mem::replace(&mut stream.queued, true) {
                self.queue.push_back(key.slot);
            }
            return Poll::Pending;
        }
        let most = if waited_for { MAX_PAYLOAD } else { usize::MAX };
        Poll::Ready(Ok(own.min(shared).min(most)))
    }

    /// Lets those who wait for shared room take some, those first who wait longest.
    pub fn share(&mut self) {
        let mut room = self.shared_room();
        while room > 0 {
            let Some(slot) = self.queue.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(slot as usize) else { continue };
            // The place may have got another stream meanwhile.
            if std::mem::take(&mut stream.queued) {
                self.granted += u32::from(!std::mem::replace(&mut stream.granted, true));
                stream.wake_writer();
                room = room.saturating_sub(MAX_PAYLOAD);
            }
        }
    }

    /// Whether streams wait for room that they share, or may take what they have waited for.
    pub fn is_contended(&self) -> bool {
        !self.queue.is_empty() || self.granted > 0
    }

    /// Sends some of a body, at most as much as [`Connection::poll_room`] has said.
    ///
    /// # Errors
    /// See [`Gone`].
    pub fn data(&mut self, key: Key, mut bytes: &[u8], end: bool) -> Result<(), Gone> {
        self.may_send(key)?;
        let most = self.peer.frame;
        if let Some(stream) = self.stream(key) {
            debug_assert!(bytes.len() <= stream.send.room());
            stream.send.sent(bytes.len());
            stream.local_closed = end;
            let granted = std::mem::take(&mut stream.granted);
            self.granted -= u32::from(granted);
        }
        self.send.sent(bytes.len());
        self.flood.answered(bytes.len());
        while bytes.len() > most {
            let (piece, rest) = bytes.split_at(most);
            frame::write(&mut self.out, kind::DATA, 0, key.id, piece);
            bytes = rest;
        }
        let flags = if end { flag::END_STREAM } else { 0 };
        frame::write(&mut self.out, kind::DATA, flags, key.id, bytes);
        Ok(())
    }

    /// Whether a body of `n` bytes can be sent at once and whole.
    pub fn has_room(&mut self, key: Key, n: usize) -> bool {
        let shared = self.shared_room();
        let contended = self.is_contended();
        self.stream(key).is_some_and(|s| !contended && n <= s.send.room().min(shared))
    }

    /// Waits for more of a request's body, which then replaces what is in `into`.
    pub fn poll_body(&mut self, key: Key, into: &mut Vec<u8>, cx: &Context<'_>) -> Poll<Body> {
        let Some(stream) = self.stream(key).filter(|s| !s.reset) else { return Poll::Ready(Body::Broken) };
        if !stream.body.is_empty() {
            into.clear();
            std::mem::swap(into, &mut stream.body);
            return Poll::Ready(Body::Data);
        }
        if stream.remote_closed {
            return Poll::Ready(Body::End);
        }
        remember(&mut stream.reader, cx.waker());
        Poll::Pending
    }

    /// What came after a request's body.
    pub fn take_trailers(&mut self, key: Key) -> Fields {
        self.stream(key).map(|s| std::mem::take(&mut s.trailers)).unwrap_or_default()
    }

    /// Whether all of a request's body has come, and was taken, and so was what came after it.
    pub fn is_body_over(&mut self, key: Key) -> bool {
        self.stream(key).is_none_or(|s| s.remote_closed && s.body.is_empty() && s.trailers.is_empty())
    }

    /// `n` bytes of a request's body were used, so that the client may send as many.
    pub fn used(&mut self, key: Key, n: usize) {
        if let Some(stream) = self.stream(key)
            && !stream.remote_closed
            && let Some(more) = stream.receive.used(n)
        {
            frame::window_update(&mut self.out, key.id, more);
        }
        self.use_connection_window(n);
    }

    /// The stream carries bytes both ways from now on.
    pub fn make_tunnel(&mut self, key: Key) {
        if let Some(stream) = self.stream(key) {
            stream.tunnel = true;
        }
    }

    /// Takes a stream back.
    pub fn reset(&mut self, key: Key, code: Code) {
        if self.stream(key).is_some_and(|s| !s.reset) {
            frame::reset(&mut self.out, key.id, code);
            self.close_stream(key, Closed::ByUs);
        }
    }

    /// Takes back the stream in a place, if there is one.
    pub fn reset_slot(&mut self, slot: u32, code: Code) {
        if let Some(id) = self.streams.get(slot as usize).map(|s| s.id).filter(|id| *id != 0) {
            self.reset(Key { slot, id }, code);
        }
    }

    /// Nobody is there any more, or is not to be: whoever serves a stream is told.
    pub fn abandon(&mut self) {
        for stream in self.streams.iter_mut().filter(|s| s.id != 0) {
            stream.reset = true;
            if stream.tunnel {
                stream.wake_reader();
                stream.wake_writer();
            }
        }
    }

    /// Whoever served the stream is done with it.
    pub fn finish(&mut self, key: Key) {
        let Some(stream) = self.stream(key) else { return };
        match (stream.reset, stream.local_closed, stream.remote_closed) {
            (true, ..) => self.close_stream(key, Closed::ByPeer),
            (_, false, _) => self.reset(key, Code::INTERNAL_ERROR),
            // The answer does not depend on the rest of the request (RFC 9113 8.1).
            (_, true, false) => self.reset(key, Code::NO_ERROR),
            (_, true, true) => self.close_stream(key, Closed::Done),
        }
    }
}
