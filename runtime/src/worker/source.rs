//! Where a request body comes from, seen the same way by everything behind the codec.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::deadline::Watch;
use super::io::Io;
use super::splice::Pipe;
use crate::clock;
use crate::http1::{BodyDecoder, Buffer, Decoded, Framing, trailers, write};
use crate::message::strip::StripSet;
use crate::message::{Fields, ResponseHead};
use crate::overload;
use crate::policy::BodyError;

/// A request body.
pub trait BodySource {
    /// Waits for data: how many bytes [`BodySource::data`] begins with, 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>>;
    /// What has arrived; its first so-many bytes are body.
    fn data(&self) -> &[u8];
    /// Uses up bytes of the body.
    fn consume(&mut self, n: usize);
    /// How the body is framed towards the upstream.
    fn framing(&self) -> Framing;
    /// Whether nothing of the body was used yet, so that a request can still go elsewhere.
    fn untouched(&self) -> bool;
    /// Waits for the client to go away while nothing is read from it.
    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
    /// Whether something came after the body.
    fn has_trailers(&self) -> bool {
        false
    }
    /// What came after the body, without what must not be passed on.
    fn trailers(&mut self) -> Option<Fields> {
        None
    }
    /// Takes an interim answer for the client, if it is one to understand it.
    fn interim(&mut self, _head: &ResponseHead) {}
    /// Sends on interim answers as far as that goes now.
    fn poll_interim(&mut self, _cx: &mut Context<'_>) {}
    /// Whether the client's connection is a plain socket.
    fn is_plain(&self) -> bool {
        false
    }
    /// Bytes of body that are all still in a plain socket, so that the kernel could move them by itself.
    fn in_socket(&self) -> u64 {
        0
    }
    /// Takes some of those into an empty pipe.
    fn poll_into(&mut self, _pipe: &mut Pipe, _cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(Err(BodyError::Broken))
    }
}

/// No body at all.
pub struct NoBody;

impl BodySource for NoBody {
    fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        Poll::Ready(Ok(0))
    }

    fn data(&self) -> &[u8] {
        &[]
    }

    fn consume(&mut self, _: usize) {}

    fn framing(&self) -> Framing {
        Framing::None
    }

    fn untouched(&self) -> bool {
        true
    }
}

/// Bytes a second below which a body is an attack, and the time before that is held against anyone.
const RATE_MIN: u64 = 1024;
const RATE_GRACE: std::time::Duration = std::time::Duration::from_secs(10);

/// Whether a body of which so much came in this time is only meant to keep the gateway busy.
pub fn is_too_slow(took: std::time::Duration, received: u64) -> bool {
    took > RATE_GRACE && received < RATE_MIN * (took - RATE_GRACE).as_secs()
}

/// A body on an HTTP/1 connection.
pub struct H1Body<'a> {
    pub io: &'a mut Io,
    pub buffer: &'a mut Buffer,
    pub watch: &'a Watch,
    pub decoder: BodyDecoder,
    pub framing: Framing,
    /// The client waits for `100 Continue`; so many bytes of it are to be sent yet.
    pub to_continue: usize,
    /// Interim answers that the client has not taken yet; `None` for one that knows no such thing (HTTP/1.0).
    pub interim: Option<Vec<u8>>,
    /// What clients must not set, in trailers no more than in headers.
    pub strip: &'a StripSet,
    pub since: std::time::Instant,
    pub timeout: std::time::Duration,
    pub limit: u64,
}

/// Bytes of interim answers that may wait for a client to take them.
const INTERIM_WAITING: usize = 16 * 1024;
/// The interim answer that makes a client send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl BodySource for H1Body<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        loop {
            match self.decoder.decode(self.buffer) {
                Ok(Decoded::Data(n)) => {
                    self.to_continue = 0;
                    if self.limit > 0 && self.decoder.received + n as u64 > self.limit {
                        return Poll::Ready(Err(BodyError::TooLarge));
                    }
                    return Poll::Ready(Ok(n));
                }
                Ok(Decoded::End) => return Poll::Ready(Ok(0)),
                Ok(Decoded::More) => {}
                Err(_) => return Poll::Ready(Err(BodyError::Broken)),
            }
            ready!(self.poll_continue(cx))?;
            match self.io.poll_read_into(cx, self.buffer.spare()) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(BodyError::Broken)),
                Poll::Ready(Ok(n)) => {
                    self.buffer.filled(n);
                    self.buffer.grow_if_full();
                    self.progress()?;
                }
                Poll::Pending if self.watch.poll_over(cx) => return Poll::Ready(Err(BodyError::Timeout)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn data(&self) -> &[u8] {
        self.buffer.data()
    }

    fn consume(&mut self, n: usize) {
        self.decoder.take(self.buffer, n);
    }

    fn framing(&self) -> Framing {
        self.framing
    }

    fn untouched(&self) -> bool {
        self.decoder.received == 0
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What has come is kept; more than that is not read, so the client cannot fill memory meanwhile.
        if !self.buffer.is_empty() {
            return Poll::Pending;
        }
        match self.io.poll_read_into(cx, self.buffer.spare()) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(n)) => {
                self.buffer.filled(n);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn has_trailers(&self) -> bool {
        !self.decoder.trailers.is_empty()
    }

    fn trailers(&mut self) -> Option<Fields> {
        if self.decoder.trailers.is_empty() {
            return None;
        }
        let mut fields = trailers::fields_of(&self.decoder.trailers);
        self.strip.strip(&mut fields);
        Some(fields).filter(|f| !f.is_empty())
    }

    fn interim(&mut self, head: &ResponseHead) {
        if let Some(bytes) = self.interim.as_mut().filter(|b| b.len() < INTERIM_WAITING) {
            write::interim(bytes, head);
        }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) {
        if self.interim.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        // A `100 Continue` that is half out goes first. What fails here fails again with the final answer.
        if self.to_continue < CONTINUE.len() && !matches!(self.poll_continue(cx), Poll::Ready(Ok(()))) {
            return;
        }
        let Some(bytes) = &mut self.interim else { return };
        while !bytes.is_empty() {
            match self.io.poll_write_from(cx, bytes) {
                Poll::Ready(Ok(n)) => drop(bytes.drain(..n)),
                Poll::Ready(Err(_)) => bytes.clear(),
                Poll::Pending => return,
            }
        }
        let _ = self.io.poll_flush_all(cx);
    }

    fn is_plain(&self) -> bool {
        matches!(self.io, Io::Tcp(_))
    }

    fn in_socket(&self) -> u64 {
        match self.io {
            Io::Tcp(_) if self.buffer.is_empty() && self.to_continue == 0 => self.decoder.run(),
            _ => 0,
        }
    }

    fn poll_into(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let most = self.in_socket();
        let Io::Tcp(io) = &mut *self.io else { return Poll::Ready(Err(BodyError::Broken)) };
        match pipe.poll_from(io, cx, most) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(BodyError::Broken)),
            Poll::Ready(Ok(n)) => {
                self.decoder.pass(n);
                if self.limit > 0 && self.decoder.received > self.limit {
                    return Poll::Ready(Err(BodyError::TooLarge));
                }
                Poll::Ready(self.progress())
            }
            Poll::Pending if self.watch.poll_over(cx) => Poll::Ready(Err(BodyError::Timeout)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl H1Body<'_> {
    /// Tells the client that it may send its body, where it waits for that.
    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while self.to_continue > 0 {
            let rest = &CONTINUE[CONTINUE.len() - self.to_continue..];
            match self.io.poll_write_from(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => self.to_continue -= n,
                Poll::Ready(_) => return Poll::Ready(Err(BodyError::Broken)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client still waits to be told that it may send its body.
    pub fn awaits_continue(&self) -> bool {
        self.to_continue == CONTINUE.len() && !self.decoder.done()
    }

    /// What of interim answers is half out or waits, and must go before the final answer.
    pub fn unsent(&mut self, out: &mut Vec<u8>) {
        if (1..CONTINUE.len()).contains(&self.to_continue) {
            out.extend_from_slice(&CONTINUE[CONTINUE.len() - self.to_continue..]);
            self.to_continue = 0;
        }
        if let Some(bytes) = &mut self.interim {
            out.append(bytes);
        }
    }

    /// Gives the client new time, unless it sends so slowly that it only means to keep the connection busy.
    fn progress(&mut self) -> Result<(), BodyError> {
        let now = clock::monotonic();
        let took = now.duration_since(self.since);
        if is_too_slow(took, self.decoder.received) {
            return Err(BodyError::Timeout);
        }
        self.watch.arm_from(now, self.timeout);
        Ok(())
    }
}

/// Reads a body's beginning of at most `room` bytes, and tells whether that is all of it.
pub async fn collect_some<B: BodySource>(body: &mut B, room: usize) -> Result<(Bytes, bool), BodyError> {
    let mut some = Vec::new();
    loop {
        let n = std::future::poll_fn(|cx| body.poll_fill(cx)).await?;
        if n == 0 {
            return Ok((some.into(), true));
        }
        if overload::is_full() {
            return Err(BodyError::NoRoom);
        }
        let n = n.min(room - some.len());
        some.extend_from_slice(&body.data()[..n]);
        body.consume(n);
        if some.len() == room {
            return Ok((some.into(), false));
        }
    }
}

/// Reads a body whole, of at most `limit` bytes.
pub async fn collect<B: BodySource>(body: &mut B, limit: usize) -> Result<Bytes, BodyError> {
    if let Framing::Length(n) = body.framing()
        && n > limit as u64
    {
        return Err(BodyError::TooLarge);
    }
    let mut all = Vec::new();
    loop {
        let n = std::future::poll_fn(|cx| body.poll_fill(cx)).await?;
        if n == 0 {
            return Ok(all.into());
        }
        if all.len() + n > limit {
            return Err(BodyError::TooLarge);
        }
        if overload::is_full() {
            return Err(BodyError::NoRoom);
        }
        all.extend_from_slice(&body.data()[..n]);
        body.consume(n);
    }
}
