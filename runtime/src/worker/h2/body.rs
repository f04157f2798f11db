//! A request's body on a stream.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Handle;
use crate::exchange::SnapshotRef;
use crate::http1::Framing;
use crate::http1::trailers::may_trail;
use crate::http2::request::Meta;
use crate::http2::send::Body;
use crate::message::{Fields, ResponseHead};
use crate::policy::BodyError;
use crate::worker::deadline::Watch;
use crate::worker::source::{BodySource, is_too_slow};

/// How much is handed on at once where an HTTP/2 upstream takes it: whether it does is seen between two pieces.
const PIECE: usize = 16 * 1024;

/// See the module.
pub struct H2Body {
    handle: Handle,
    watch: Rc<Watch>,
    /// What was taken of what came, and how much of it is used.
    piece: Vec<u8>,
    used: usize,
    framing: Framing,
    received: u64,
    limit: u64,
    done: bool,
    /// The client waits to be told that it may send.
    to_continue: bool,
    since: Instant,
    timeout: Duration,
    trailers: Option<Fields>,
    /// What clients must not set, in trailers no more than in headers.
    snapshot: SnapshotRef,
}

impl H2Body {
    /// The body of a request that came at `since`.
    pub fn new(handle: Handle, meta: &Meta, watch: Rc<Watch>, since: Instant, snapshot: SnapshotRef) -> Self {
        // What comes behind a CONNECT is no body.
        let framing = if meta.connect.is_some() { Framing::None } else { meta.framing };
        Self {
            handle,
            watch,
            piece: Vec::new(),
            used: 0,
            framing,
            received: 0,
            limit: snapshot.gateway.limits.body,
            done: framing == Framing::None,
            to_continue: meta.expect_continue,
            since,
            timeout: snapshot.gateway.timeouts.body,
            trailers: None,
            snapshot,
        }
    }

    /// Whether nothing more comes, and nothing is left.
    pub fn is_over(&self) -> bool {
        self.used == self.piece.len() && (self.done || self.handle.is_body_over())
    }

    /// The length that the client has stated.
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(n) => Some(n),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    /// Waits for more of the body and takes some of it; `None` at the end. How long that may take is the caller's to
    /// bound.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let n = std::task::ready!(self.fill(cx, false))?;
        if n == 0 {
            return Poll::Ready(Ok(None));
        }
        let piece = if n > PIECE {
            Bytes::copy_from_slice(&self.piece[self.used..self.used + PIECE])
        } else {
            let mut piece = Bytes::from(std::mem::take(&mut self.piece));
            piece.split_off(std::mem::take(&mut self.used))
        };
        if n > PIECE {
            self.used += PIECE;
        }
        self.received += piece.len() as u64;
        self.handle.used(piece.len());
        Poll::Ready(Ok(Some(piece)))
    }

    fn fill(&mut self, cx: &mut Context<'_>, timed: bool) -> Poll<Result<usize, BodyError>> {
        while self.used == self.piece.len() && !self.done {
            match self.handle.poll_body(&mut self.piece, cx) {
                Poll::Ready(Body::Data) => {
                    (self.used, self.to_continue) = (0, false);
                    if timed {
                        self.progress()?;
                    }
                }
                Poll::Ready(Body::End) => self.end(),
                Poll::Ready(Body::Broken) => return Poll::Ready(Err(BodyError::Broken)),
                Poll::Pending => {
                    if std::mem::take(&mut self.to_continue) {
                        self.handle.interim(&ResponseHead { status: 100, fields: Fields::default() });
                    }
                    return match timed && self.watch.poll_over(cx) {
                        true => Poll::Ready(Err(BodyError::Timeout)),
                        false => Poll::Pending,
                    };
                }
            }
        }
        let here = self.piece.len() - self.used;
        if self.limit > 0 && self.received + here as u64 > self.limit {
            return Poll::Ready(Err(BodyError::TooLarge));
        }
        Poll::Ready(Ok(here))
    }

    fn end(&mut self) {
        self.done = true;
        let mut trailers = self.handle.take_trailers();
        trailers.retain(|tag, name, _| may_trail(tag, name));
        self.snapshot.stripped_headers.strip(&mut trailers);
        self.trailers = Some(trailers).filter(|t| !t.is_empty());
    }

    /// Gives the client new time, unless it sends so slowly that it only means to keep the stream busy.
    fn progress(&self) -> Result<(), BodyError> {
        let now = crate::clock::monotonic();
        if is_too_slow(now.duration_since(self.since), self.received) {
            return Err(BodyError::Timeout);
        }
        self.watch.arm_from(now, self.timeout);
        Ok(())
    }
}

impl BodySource for H2Body {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        self.fill(cx, true)
    }

    fn data(&self) -> &[u8] {
        &self.piece[self.used..]
    }

    fn consume(&mut self, n: usize) {
        self.received += n as u64;
        self.used += n;
        self.handle.used(n);
    }

    fn framing(&self) -> Framing {
        self.framing
    }

    fn untouched(&self) -> bool {
        self.received == 0
    }

    fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.trailers.clone()
    }

    fn interim(&mut self, head: &ResponseHead) {
        self.handle.interim(head);
    }
}

impl Drop for H2Body {
    fn drop(&mut self) {
        // What was taken and is not wanted must not count against the client's other streams.
        self.handle.used(self.piece.len() - self.used);
    }
}
