//! What the client sends, frame by frame.
//!
//! `Err` ends the connection with that code; what concerns one stream ends that stream.

use super::connection::{Connection, Ending, Event};
use super::frame::{self, Code, HEAD, Head, MAX_PAYLOAD, PREFACE, flag, kind};
use super::request::Reader;
use super::stream::{Closed, Key};
use crate::http1::{Buffer, Framing};
use crate::message::Fields;

use super::hpack::Kind;

/// Frames that a block of fields may come in.
const BLOCK_FRAMES: u32 = 32;

/// A block of fields of which more is to come.
pub struct Block {
    stream: u32,
    end: bool,
    frames: u32,
    bytes: Vec<u8>,
    /// The stream depends on itself.
    circular: bool,
}

/// The rest of a DATA frame.
#[derive(Clone, Copy)]
pub struct Payload {
    /// None where nobody wants it.
    key: Option<Key>,
    data: usize,
    padding: usize,
    end: bool,
}

type Received = Result<Option<Event>, Code>;

impl Connection {
    /// Takes bytes out of `input` until something has come of them; `None` where more bytes are needed.
    ///
    /// # Errors
    /// The client has broken the protocol, or does too much of something: [`Connection::fail`] is to say so.
    pub fn next(&mut self, input: &mut Buffer) -> Received {
        if !self.prefaced && !self.preface(input)? {
            return Ok(None);
        }
        loop {
            if self.skip > 0 {
                let n = self.skip.min(input.len());
                input.consume(n);
                self.skip -= n;
            }
            if self.payload.is_some() && !input.is_empty() {
                if let Some(event) = self.more_data(input)? {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(head) = Head::read(input.data()) else { return Ok(None) };
            self.may_come(head)?;
            if head.kind == kind::DATA {
                let Some(event) = self.data_head(head, input)? else { return Ok(None) };
                match event {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            if head.kind > kind::CONTINUATION {
                input.consume(HEAD);
                self.skip = head.len;
                self.flood.control()?;
                continue;
            }
            if input.len() < HEAD + head.len {
                return Ok(None);
            }
            let event = self.whole(head, &input.data()[HEAD..HEAD + head.len]);
            input.consume(HEAD + head.len);
            if let Some(event) = event? {
                return Ok(Some(event));
            }
        }
    }

    fn preface(&mut self, input: &mut Buffer) -> Result<bool, Code> {
        let n = input.len().min(PREFACE.len());
        if input.data()[..n] != PREFACE[..n] {
            return Err(Code::PROTOCOL_ERROR);
        }
        if n == PREFACE.len() {
            input.consume(n);
            self.prefaced = true;
        }
        Ok(self.prefaced)
    }

    /// Whether a frame may come now at all.
    fn may_come(&self, head: Head) -> Result<(), Code> {
        if !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Code::PROTOCOL_ERROR);
        }
        if head.len > MAX_PAYLOAD {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        match &self.block {
            Some(block) if head.kind != kind::CONTINUATION || head.stream != block.stream => {
                Err(Code::PROTOCOL_ERROR)
            }
            _ => Ok(()),
        }
    }

    fn whole(&mut self, head: Head, payload: &[u8]) -> Received {
        match head.kind {
            kind::HEADERS => self.headers(head, payload),
            kind::PRIORITY => self.priority(head, payload),
            kind::RST_STREAM => self.reset_by_peer(head, payload),
            kind::SETTINGS => self.settings(head, payload).map(|()| None),
            kind::PING => self.pinged(head, payload).map(|()| None),
            kind::GOAWAY if head.stream != 0 => Err(Code::PROTOCOL_ERROR),
            kind::GOAWAY if head.len < 8 => Err(Code::FRAME_SIZE_ERROR),
            // The client opens no more streams, and is not sent any.
            kind::GOAWAY => self.flood.control().map(|()| None),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            // Clients push nothing.
            _ => Err(Code::PROTOCOL_ERROR),
        }
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Received {
        if head.stream.is_multiple_of(2) {
            return Err(Code::PROTOCOL_ERROR);
        }
        let mut fragment = frame::unpadded(head, payload)?;
        let mut circular = false;
        if head.has(flag::PRIORITY) {
            let depends = frame::number(fragment).filter(|_| fragment.len() >= 5);
            circular = depends.ok_or(Code::FRAME_SIZE_ERROR)? == head.stream;
            fragment = &fragment[5..];
        }
        let end = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.fields(head.stream, end, circular, fragment);
        }
        let bytes = fragment.to_vec();
        self.block = Some(Block { stream: head.stream, end, frames: 1, bytes, circular });
        Ok(None)
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Received {
        let Some(mut block) = self.block.take() else { return Err(Code::PROTOCOL_ERROR) };
        block.frames += 1;
        // A block that is decoded may be larger, but not much larger than what is kept of it.
        let most = 2 * self.config.header_bytes.max(MAX_PAYLOAD);
        if block.frames > BLOCK_FRAMES || block.bytes.len() + payload.len() > most {
            return Err(Code::ENHANCE_YOUR_CALM);
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS) {
            return self.fields(block.stream, block.end, block.circular, &block.bytes);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// A block of fields that is whole. It is decoded whatever becomes of it, since the table goes on.
    fn fields(&mut self, id: u32, end: bool, circular: bool, block: &[u8]) -> Received {
        if id > self.last_id {
            return self.request(id, end, circular, block);
        }
        let Some(key) = self.key(id) else {
            self.decoder.decode(block, |_| {}).map_err(|_| Code::COMPRESSION_ERROR)?;
            return match self.graves.how(id) {
                // Never opened: its number was passed over.
                None => Err(Code::PROTOCOL_ERROR),
                Some(_) => self.late(id),
            };
        };
        let (mut fields, mut fits, mut size) = (Fields::default(), !circular, 0);
        let most = self.config.header_bytes;
        let decoded = self.decoder.decode(block, |f| {
            size += f.name.len() + f.value.len() + 32;
            match f.kind {
                Kind::Field if size <= most => fields.push_tagged(f.tag, f.name, f.value),
                Kind::Field => {}
                _ => fits = false,
            }
        });
        decoded.map_err(|_| Code::COMPRESSION_ERROR)?;
        let Some(stream) = self.stream(key) else { return Ok(None) };
        if stream.remote_closed {
            return self.stream_error(id, Code::STREAM_CLOSED);
        }
        if !fits || !end || size > most {
            return self.stream_error(id, Code::PROTOCOL_ERROR);
        }
        stream.trailers = fields;
        self.end_of_body(key)
    }

    fn request(&mut self, id: u32, end: bool, circular: bool, block: &[u8]) -> Received {
        self.flood.opened();
        let not_served = self.ending() == Ending::Last;
        let mut reader = Reader::new(&mut self.head, &self.config);
        let decoded = self.decoder.decode(block, |field| reader.field(field));
        decoded.map_err(|_| Code::COMPRESSION_ERROR)?;
        if not_served {
            // The client was told, or will read so.
            return Ok(None);
        }
        let read = reader.finish(end);
        self.last_id = id;
        if self.by_id.len() >= self.config.streams as usize {
            frame::reset(&mut self.out, id, Code::REFUSED_STREAM);
            self.graves.add(id, Closed::ByUs);
            return self.flood.refused().map(|()| None);
        }
        match read {
            Ok(_) if circular => self.stream_error(id, Code::PROTOCOL_ERROR),
            Ok(meta) => {
                let length = match meta.framing {
                    Framing::Length(n) => Some(n),
                    _ => None,
                };
                let key = self.open_stream(id, length, end);
                Ok(Some(Event::Request { key, meta }))
            }
            Err(code) => self.stream_error(id, code),
        }
    }

    /// The head of a DATA frame; `None` where more bytes are needed.
    fn data_head(&mut self, head: Head, input: &mut Buffer) -> Result<Option<Option<Event>>, Code> {
        let id = head.stream;
        if id.is_multiple_of(2) || id > self.last_id && self.ending() != Ending::Last {
            return Err(Code::PROTOCOL_ERROR);
        }
        let padding = match (head.has(flag::PADDED), input.data().get(HEAD)) {
            (false, _) => None,
            (true, Some(n)) => Some(usize::from(*n)),
            (true, None) if head.len == 0 => return Err(Code::FRAME_SIZE_ERROR),
            (true, None) => return Ok(None),
        };
        let of_padding = padding.map_or(0, |n| n + 1);
        let data = head.len.checked_sub(of_padding).ok_or(Code::PROTOCOL_ERROR)?;
        input.consume(HEAD + padding.map_or(0, |_| 1));
        self.receive.received(head.len)?;
        self.use_connection_window(padding.map_or(0, |_| 1));
        let end = head.has(flag::END_STREAM);
        if data == 0 && !end {
            self.flood.control()?;
        }
        let mut payload = Payload { key: self.key(id), data, padding: padding.unwrap_or(0), end };
        let event = match payload.key {
            None if id > self.last_id => Ok(None),
            None => self.late(id),
            Some(key) => self.data_allowed(key, head.len, data),
        }?;
        if event.is_some() {
            payload.key = None;
        }
        if let Some(key) = payload.key
            && let Some(stream) = self.stream(key)
            && let Some(more) = stream.receive.used(of_padding)
        {
            frame::window_update(&mut self.out, id, more);
        }
        // One without a payload is over with its head.
        if head.len == of_padding && payload.padding == 0 {
            let ended = match payload.key {
                Some(key) if end => self.end_of_body(key)?,
                _ => None,
            };
            return Ok(Some(event.or(ended)));
        }
        self.payload = Some(payload);
        Ok(Some(event))
    }

    fn data_allowed(&mut self, key: Key, len: usize, data: usize) -> Received {
        let Some(stream) = self.stream(key) else { return Ok(None) };
        if stream.remote_closed {
            return self.stream_error(key.id, Code::STREAM_CLOSED);
        }
        if stream.receive.received(len).is_err() {
            return self.stream_error(key.id, Code::FLOW_CONTROL_ERROR);
        }
        if let Some(left) = &mut stream.length {
            match left.checked_sub(data as u64) {
                Some(n) => *left = n,
                None => return self.stream_error(key.id, Code::PROTOCOL_ERROR),
            }
        }
        Ok(None)
    }

    /// More of a DATA frame's payload.
    fn more_data(&mut self, input: &mut Buffer) -> Received {
        let Some(mut payload) = self.payload.take() else { return Ok(None) };
        let n = payload.data.min(input.len());
        let wanted = match payload.key {
            // A tunnel that was taken back has no reader.
            Some(key) => self.stream(key).filter(|s| !s.reset),
            None => None,
        };
        match wanted {
            Some(stream) if n > 0 => {
                stream.body.extend_from_slice(&input.data()[..n]);
                stream.wake_reader();
            }
            Some(_) => {}
            None => self.use_connection_window(n),
        }
        input.consume(n);
        payload.data -= n;
        if payload.data == 0 {
            let n = payload.padding.min(input.len());
            input.consume(n);
            payload.padding -= n;
            self.use_connection_window(n);
        }
        if payload.data + payload.padding > 0 {
            self.payload = Some(payload);
            return Ok(None);
        }
        match payload.key {
            Some(key) if payload.end => self.end_of_body(key),
            _ => Ok(None),
        }
    }

    fn end_of_body(&mut self, key: Key) -> Received {
        let Some(stream) = self.stream(key) else { return Ok(None) };
        if stream.length.is_some_and(|left| left > 0) {
            return self.stream_error(key.id, Code::PROTOCOL_ERROR);
        }
        stream.remote_closed = true;
        stream.wake_reader();
        Ok(None)
    }

    /// DATA or HEADERS on a stream that is closed.
    fn late(&mut self, id: u32) -> Received {
        match self.graves.how(id) {
            Some(Closed::ByUs) => Ok(None),
            Some(Closed::ByPeer) => self.stream_error(id, Code::STREAM_CLOSED),
            Some(Closed::Done) | None => Err(Code::STREAM_CLOSED),
        }
    }

    fn priority(&mut self, head: Head, payload: &[u8]) -> Received {
        if head.stream == 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        self.flood.control()?;
        // What is said of priorities is not heeded (RFC 9113 5.3.2).
        let known = self.key(head.stream).is_some();
        match frame::number(payload) {
            _ if payload.len() != 5 && known => self.stream_error(head.stream, Code::FRAME_SIZE_ERROR),
            _ if payload.len() != 5 => Err(Code::FRAME_SIZE_ERROR),
            Some(depends) if depends == head.stream && known => {
                self.stream_error(head.stream, Code::PROTOCOL_ERROR)
            }
            _ => Ok(None),
        }
    }

    fn reset_by_peer(&mut self, head: Head, payload: &[u8]) -> Received {
        if payload.len() != 4 {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        let id = head.stream;
        if id.is_multiple_of(2) || id > self.last_id && self.ending() != Ending::Last {
            return Err(Code::PROTOCOL_ERROR);
        }
        self.flood.reset()?;
        let Some(key) = self.key(id) else { return Ok(None) };
        let Some(stream) = self.stream(key) else { return Ok(None) };
        if stream.tunnel {
            stream.reset = true;
            stream.wake_reader();
            stream.wake_writer();
            return Ok(None);
        }
        self.close_stream(key, Closed::ByPeer);
        Ok(Some(Event::Gone { slot: key.slot }))
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        if head.stream != 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        if head.has(flag::ACK) {
            self.settings_acknowledged();
            return if payload.is_empty() { self.flood.control() } else { Err(Code::FRAME_SIZE_ERROR) };
        }
        self.flood.control()?;
        let before = self.peer;
        self.peer.apply(payload)?;
        self.encoder.resize(self.peer.table);
        let by = i64::from(self.peer.window) - i64::from(before.window);
        if by != 0 {
            for stream in self.streams.iter_mut().filter(|s| s.id != 0) {
                stream.send.grow(by)?;
                stream.wake_writer();
            }
        }
        self.settled = true;
        self.acknowledge(kind::SETTINGS, &[]);
        Ok(())
    }

    fn pinged(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        if head.stream != 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        if payload.len() != 8 {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        self.flood.control()?;
        match head.has(flag::ACK) {
            true => self.ping_answered(payload),
            false => self.acknowledge(kind::PING, payload),
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Received {
        if payload.len() != 4 {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        let by = frame::number(payload).unwrap_or(0);
        if head.stream == 0 {
            if by == 0 {
                return Err(Code::PROTOCOL_ERROR);
            }
            self.send.grow(i64::from(by))?;
            self.share();
            return Ok(None);
        }
        if head.stream > self.last_id && self.ending() != Ending::Last {
            return Err(Code::PROTOCOL_ERROR);
        }
        let Some(key) = self.key(head.stream) else { return Ok(None) };
        let Some(stream) = self.stream(key) else { return Ok(None) };
        if by == 0 {
            return self.stream_error(key.id, Code::PROTOCOL_ERROR);
        }
        if let Err(code) = stream.send.grow(i64::from(by)) {
            return self.stream_error(key.id, code);
        }
        stream.wake_writer();
        Ok(None)
    }

    /// Takes a stream back for the client's fault.
    fn stream_error(&mut self, id: u32, code: Code) -> Received {
        frame::reset(&mut self.out, id, code);
        let key = self.key(id);
        match key {
            Some(key) => self.close_stream(key, Closed::ByUs),
            None => self.graves.add(id, Closed::ByUs),
        }
        self.flood.local_reset()?;
        Ok(key.map(|key| Event::Gone { slot: key.slot }))
    }
}
