//! Writing a message out: its head and small pieces gathered, large ones straight from where they were read.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::io::Io;
use super::splice::Pipe;
use crate::http1::write::{LAST_CHUNK, chunk_size, last_chunk};
use crate::message::Fields;

/// Pieces up to this size are copied together; larger ones are written from their own place.
pub const SMALL: usize = 16 * 1024;

thread_local! {
    /// Buffers of messages that are out, for the next ones.
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Most buffers kept, and the largest worth keeping.
const KEEP: usize = 64;
const KEEP_BYTES: usize = 4 * SMALL;

/// The state of one message on its way out.
pub struct Sender {
    out: Vec<u8>,
    pos: usize,
    pub chunked: bool,
    /// Of a large piece's chunk, so much is to be written yet.
    chunk_left: usize,
    /// A stream that encrypts may still hold what it has taken.
    held: bool,
    /// Bytes of body sent or queued.
    pub sent: u64,
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        if out.capacity() == 0 || out.capacity() > KEEP_BYTES {
            return;
        }
        out.clear();
        // The thread's store may be gone already while the thread ends.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEEP {
                free.push(out);
            }
        });
    }
}

impl Sender {
    /// For a body that is framed in chunks, or not.
    pub fn new(chunked: bool) -> Self {
        let out = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(4096));
        Self { out, pos: 0, chunked, chunk_left: 0, held: false, sent: 0 }
    }

    /// The gathered bytes, to add a head to.
    pub fn head(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether everything is written, and nothing is left in the stream.
    pub fn is_flushed(&self) -> bool {
        self.pos == self.out.len() && !self.held
    }

    /// Whether a small piece may be added now.
    pub fn has_room(&self) -> bool {
        self.chunk_left == 0 && self.out.len() - self.pos < SMALL
    }

    /// Whether a large piece is under way.
    pub fn in_large(&self) -> bool {
        self.chunk_left > 0
    }

    /// Writes some of what a pipe holds; everything gathered must have been written.
    pub fn poll_pipe(&mut self, io: &Io, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_flushed() && !self.chunked);
        let Io::Tcp(io) = io else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        let n = ready!(pipe.poll_to(io, cx))?;
        self.sent += n as u64;
        Poll::Ready(Ok(n))
    }

    /// Adds a small piece of the body.
    pub fn add(&mut self, data: &[u8]) {
        if self.chunked {
            chunk_size(&mut self.out, data.len());
        }
        self.out.extend_from_slice(data);
        if self.chunked {
            self.out.extend_from_slice(b"\r\n");
        }
        self.sent += data.len() as u64;
    }

    /// Adds the end of the body.
    pub fn end(&mut self) {
        if self.chunked {
            self.out.extend_from_slice(LAST_CHUNK);
        }
    }

    /// Adds the end of the body, and what comes after it where that can be said.
    pub fn end_with(&mut self, trailers: Option<Fields>) {
        match trailers {
            Some(trailers) if self.chunked => last_chunk(&mut self.out, &trailers),
            _ => self.end(),
        }
    }

    /// Writes what is gathered.
    pub fn poll_flush(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pos < self.out.len() {
            match io.poll_write_from(cx, &self.out[self.pos..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.pos += n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.out.clear();
        self.pos = 0;
        ready!(io.poll_flush_all(cx))?;
        self.held = false;
        Poll::Ready(Ok(()))
    }

    /// Writes gathered bytes and some of `data` in one call; says how much of `data` went.
    pub fn poll_large(&mut self, io: &mut Io, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.chunk_left == 0 {
            if self.chunked {
                chunk_size(&mut self.out, data.len());
            }
            self.chunk_left = data.len();
        }
        let data = &data[..data.len().min(self.chunk_left)];
        loop {
            let gathered = &self.out[self.pos..];
            let wrote = match gathered.is_empty() {
                true => io.poll_write_from(cx, data),
                false => io.poll_write_pieces(cx, &[IoSlice::new(gathered), IoSlice::new(data)]),
            };
            let mut wrote = match wrote {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            };
            self.held = true;
            let of_gathered = wrote.min(self.out.len() - self.pos);
            self.pos += of_gathered;
            wrote -= of_gathered;
            if self.pos == self.out.len() {
                self.out.clear();
                self.pos = 0;
            }
            if wrote > 0 {
                self.chunk_left -= wrote;
                self.sent += wrote as u64;
                if self.chunk_left == 0 && self.chunked {
                    self.out.extend_from_slice(b"\r\n");
                }
                return Poll::Ready(Ok(wrote));
            }
        }
    }
}
