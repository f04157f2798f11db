//! One request and its response on one upstream connection, both directions at once, streaming.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use super::deadline::Watch;
use super::io::Io;
use super::sender::{SMALL, Sender};
use super::source::BodySource;
use super::splice::{Pipe, WORTH};
use super::tunnel::Opened;
use crate::exchange::Exchange;
use crate::http1::{BodyDecoder, Decoded, Framing, Reject, response, trailers};
use crate::message::{Fields, ResponseHead};
use crate::policy::BodyError;
use crate::upstream::balance::InFlight;
use crate::upstream::pool::UpstreamConn;

/// Most interim (1xx) answers before the final one.
const INTERIM_MAX: u32 = 16;

/// What broke an exchange with an upstream.
#[derive(Debug)]
pub enum Failure {
    /// The client's side broke.
    Body(BodyError),
    /// The upstream closed the connection early.
    Closed,
    Reset(io::Error),
    Timeout,
    Malformed(Reject),
}

/// How long either side may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The upstream, before and within its answer.
    pub upstream: Duration,
    /// The upstream, while it takes nothing of the request.
    pub write: Duration,
    /// The client, within its body.
    pub body: Duration,
}

/// So much of a body is worth a write of its own.
const ENOUGH: usize = 128 * 1024;

/// See the module.
pub struct Forward<B> {
    pub body: B,
    pub up: UpstreamConn,
    /// Sent instead of `body`, or before it, where a policy has read or made the whole body or its beginning was waited
    /// for.
    held: Option<HeldBody>,
    tx: Sender,
    tx_done: bool,
    /// The upstream takes no more; its answer may still come.
    tx_failed: bool,
    rx: BodyDecoder,
    pub meta: response::Meta,
    interim: u32,
    /// Any byte of the response was seen.
    pub answered: bool,
    /// The request asked for a WebSocket.
    pub websocket: bool,
    patience: Patience,
    /// Large bodies on their way from socket to socket: the request's, and the response's.
    tx_pipe: Option<Pipe>,
    pub rx_pipe: Option<Pipe>,
    /// There was no pipe for the request's body.
    copies: bool,
    /// The client's socket can take the response's body from a pipe.
    pub splices: bool,
    /// The request went out whole, and the upstream's time has begun.
    sent: bool,
    /// What is missing is the client's body, so that it is the client's time that runs.
    awaits_client: bool,
    /// See [`crate::exchange::Exchange::gives_up`].
    pub gives_up: bool,
    /// Counts the request at its target until the response is over, however that comes about.
    pub in_flight: Option<InFlight>,
}

/// Bytes of a request's body that are here already.
pub struct HeldBody {
    bytes: Bytes,
    used: usize,
    /// The rest comes from the client.
    goes_on: bool,
}

impl HeldBody {
    /// What the exchange holds.
    pub fn of(x: &Exchange) -> Option<Self> {
        x.body.clone().map(|bytes| Self { bytes, used: 0, goes_on: x.body_goes_on })
    }

    /// What is not sent yet; `None` where the client's body is next.
    fn rest(&self) -> Option<&[u8]> {
        let rest = &self.bytes[self.used..];
        (!rest.is_empty() || !self.goes_on).then_some(rest)
    }
}

impl<B: BodySource> Forward<B> {
    /// An exchange on `up`; [`Forward::request_head`] must be given the head next.
    pub fn new(
        up: UpstreamConn,
        body: B,
        held: Option<HeldBody>,
        websocket: bool,
        patience: Patience,
    ) -> Box<Self> {
        let tx = Sender::new(false);
        let meta = response::Meta::default();
        let rx = BodyDecoder::new(Framing::None);
        // Boxed, because it is handed from hand to hand.
        Box::new(Self {
            body,
            up,
            held,
            tx,
            tx_done: false,
            tx_failed: false,
            rx,
            meta,
            interim: 0,
            answered: false,
            websocket,
            patience,
            tx_pipe: None,
            rx_pipe: None,
            copies: false,
            splices: false,
            sent: false,
            // The first deadline is the client's.
            awaits_client: true,
            gives_up: false,
            in_flight: None,
        })
    }

    /// Whether the client has gone, of a request that is then given up; asked when there is nothing else to do.
    pub fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self.gives_up && self.sent && self.body.poll_gone(cx).is_ready() {
            true => Err(Failure::Body(BodyError::Broken)),
            false => Ok(()),
        }
    }

    /// How the request's body will be framed.
    pub fn framing(&self) -> Framing {
        match &self.held {
            // What came after it can only be passed on behind chunks.
            Some(held) if !held.goes_on && self.body.has_trailers() => Framing::Chunked,
            Some(held) if !held.goes_on && held.bytes.is_empty() => Framing::None,
            Some(held) if !held.goes_on => Framing::Length(held.bytes.len() as u64),
            _ => self.body.framing(),
        }
    }

    /// Where the request's head is to be written.
    pub fn request_head(&mut self) -> &mut Vec<u8> {
        let framing = self.framing();
        self.tx.chunked = framing == Framing::Chunked;
        self.tx_done = framing == Framing::None;
        self.tx.head()
    }

    /// Whether the whole request was sent.
    pub fn request_sent(&self) -> bool {
        self.tx_done && self.tx.is_flushed() && !self.tx_failed
    }

    /// Bytes of request body sent on.
    pub fn request_bytes(&self) -> u64 {
        self.tx.sent
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        match self.held.as_ref().and_then(HeldBody::rest) {
            Some(rest) => Poll::Ready(Ok(rest.len())),
            None => self.body.poll_fill(cx),
        }
    }

    fn consume(&mut self, n: usize) {
        match &mut self.held {
            Some(held) if held.used < held.bytes.len() => held.used += n,
            _ => self.body.consume(n),
        }
    }

    /// Moves the request on as far as it goes now, and minds whose time runs.
    fn pump(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Result<(), BodyError> {
        if self.sent {
            return Ok(());
        }
        let (before, awaited_client) = (self.tx.sent, self.awaits_client);
        self.awaits_client = false;
        self.push(cx)?;
        if self.tx_failed || (self.tx_done && self.tx.is_flushed()) {
            self.sent = true;
            // Without a body the time has begun with the request.
            if self.tx.sent > 0 || self.tx.chunked {
                watch.arm(self.patience.upstream);
            }
        } else if self.tx.sent > before || self.awaits_client != awaited_client {
            watch.arm(if self.awaits_client { self.patience.body } else { self.patience.write });
        }
        Ok(())
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        loop {
            if self.tx_failed || (self.tx_done && self.tx.is_flushed()) {
                return Ok(());
            }
            let mut waiting = false;
            if self.tx_pipe.is_some() || self.may_splice() {
                match self.poll_pipe(cx)? {
                    Poll::Ready(()) => continue,
                    Poll::Pending => return Ok(()),
                }
            }
            if !self.tx_done && (self.tx.has_room() || self.tx.in_large()) {
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => {
                        let trailers = if self.tx.chunked { self.body.trailers() } else { None };
                        self.tx.end_with(trailers);
                        self.tx_done = true;
                        continue;
                    }
                    Poll::Ready(Ok(n)) => {
                        let data = match self.held.as_ref().and_then(HeldBody::rest) {
                            Some(rest) => rest,
                            None => &self.body.data()[..n],
                        };
                        if n <= SMALL && !self.tx.in_large() {
                            self.tx.add(data);
                            self.consume(n);
                            continue;
                        }
                        match self.tx.poll_large(&mut self.up.io, cx, data) {
                            Poll::Ready(Ok(wrote)) => self.consume(wrote),
                            Poll::Ready(Err(_)) => self.tx_failed = true,
                            Poll::Pending => return Ok(()),
                        }
                        continue;
                    }
                    Poll::Ready(Err(e)) => return Err(e),
                    Poll::Pending => waiting = true,
                }
            }
            match self.tx.poll_flush(&mut self.up.io, cx) {
                Poll::Ready(Ok(())) if waiting => {
                    self.awaits_client = true;
                    return Ok(());
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.tx_failed = true,
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Whether the kernel can move the request's body from here on.
    fn may_splice(&self) -> bool {
        !self.tx_done
            && !self.copies
            && !self.tx.chunked
            && self.held.as_ref().is_none_or(|h| h.rest().is_none())
            && matches!(self.up.io, Io::Tcp(_))
            && self.body.in_socket() >= WORTH
    }

    /// Moves the request's body from socket to socket. Ready when something was moved or the pipe is done with.
    fn poll_pipe(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, BodyError> {
        if self.tx_pipe.is_none() {
            // The head first: nothing may overtake it.
            match self.tx.poll_flush(&mut self.up.io, cx) {
                Poll::Ready(Ok(())) => {
                    self.tx_pipe = Pipe::take();
                    // Without one, the body is copied after all.
                    self.copies |= self.tx_pipe.is_none();
                }
                Poll::Ready(Err(_)) => self.tx_failed = true,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        let Some(pipe) = &mut self.tx_pipe else { return Ok(Poll::Ready(())) };
        if pipe.is_empty() {
            match self.body.poll_into(pipe, cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    self.awaits_client = true;
                    return Ok(Poll::Pending);
                }
            }
        }
        match self.tx.poll_pipe(&self.up.io, cx, pipe) {
            Poll::Ready(Ok(_)) if pipe.is_empty() && self.body.in_socket() == 0 => self.tx_pipe = None,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => (self.tx_failed, self.tx_pipe) = (true, None),
            Poll::Pending => return Ok(Poll::Pending),
        }
        Ok(Poll::Ready(()))
    }

    /// Whether the kernel can move the response's body from here on.
    pub fn may_splice_response(&self) -> bool {
        self.splices
            && self.up.buffer.is_empty()
            && matches!(self.up.io, Io::Tcp(_))
            && self.rx.run() >= WORTH
    }

    /// Whether all of the response's body is read.
    pub fn response_read(&self) -> bool {
        self.rx.run() == 0
    }

    /// Takes some of the response's body into an empty pipe.
    pub fn poll_response_pipe(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Result<(), Failure>> {
        let (Io::Tcp(io), Some(pipe)) = (&self.up.io, &mut self.rx_pipe) else {
            return Poll::Ready(Err(Failure::Closed));
        };
        match pipe.poll_from(io, cx, self.rx.run()) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(Failure::Closed)),
            Poll::Ready(Ok(n)) => {
                self.rx.pass(n);
                watch.arm(self.patience.upstream);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(Failure::Reset(e))),
            Poll::Pending if watch.poll_over(cx) => Poll::Ready(Err(Failure::Timeout)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Result<usize, Failure>> {
        match self.up.io.poll_read_into(cx, self.up.buffer.spare()) {
            Poll::Ready(Ok(n)) => {
                self.up.buffer.filled(n);
                self.answered |= n > 0;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(Failure::Reset(e))),
            Poll::Pending if watch.poll_over(cx) => Poll::Ready(Err(match self.awaits_client {
                true => Failure::Body(BodyError::Timeout),
                false => Failure::Timeout,
            })),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits for the response's head, sending the request meanwhile.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        watch: &Watch,
        method: &str,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), Failure>> {
        self.body.poll_interim(cx);
        loop {
            if let Err(e) = self.pump(cx, watch) {
                return Poll::Ready(Err(Failure::Body(e)));
            }
            if !self.up.buffer.is_empty() {
                match response::parse(self.up.buffer.data(), method, head) {
                    Ok(Some(meta)) => {
                        self.up.buffer.consume(meta.len);
                        match head.status {
                            101 if self.websocket && meta.websocket => {}
                            101 => {
                                return Poll::Ready(Err(Failure::Malformed(Reject::bad(
                                    "an upgrade nobody asked for",
                                ))));
                            }
                            100..=199 => {
                                self.interim += 1;
                                if self.interim > INTERIM_MAX {
                                    let reject = Reject::bad("too many interim answers");
                                    return Poll::Ready(Err(Failure::Malformed(reject)));
                                }
                                // Whether the client may send its body is the gateway's to say.
                                if head.status != 100 {
                                    self.body.interim(head);
                                    self.body.poll_interim(cx);
                                }
                                continue;
                            }
                            _ => {}
                        }
                        self.rx = BodyDecoder::new(meta.framing);
                        // What the kernel may move needs no room here.
                        if let Framing::Length(n) = meta.framing
                            && !(self.body.is_plain() && matches!(self.up.io, Io::Tcp(_)))
                        {
                            self.up.buffer.expect(n);
                        }
                        self.meta = meta;
                        return Poll::Ready(Ok(()));
                    }
                    Ok(None) => {}
                    Err(reject) => return Poll::Ready(Err(Failure::Malformed(reject))),
                }
            }
            let read = self.poll_read(cx, watch);
            if read.is_pending() {
                self.poll_given_up(cx)?;
            }
            if ready!(read)? == 0 {
                return Poll::Ready(Err(Failure::Closed));
            }
        }
    }

    /// Sends what is left of the request while the response comes.
    pub fn pump_on(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Result<(), Failure> {
        match self.pump(cx, watch) {
            Ok(()) => Ok(()),
            Err(e) => {
                // A response that has begun goes on; the request's rest does not matter to the client any more.
                self.tx_failed = true;
                match e {
                    BodyError::Broken => Ok(()),
                    e => Err(Failure::Body(e)),
                }
            }
        }
    }

    /// Waits for response data: how much [`Forward::data`] begins with; 0 at the end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Result<usize, Failure>> {
        self.pump_on(cx, watch)?;
        loop {
            match self.rx.decode(&mut self.up.buffer) {
                // What else has arrived goes out with it: one large write is cheaper than two.
                Ok(Decoded::Data(n))
                    if n >= ENOUGH
                        || n < self.up.buffer.len()
                        || !self.rx.wants_more(n)
                        || (self.splices && self.rx.run() - n as u64 >= WORTH) =>
                {
                    return Poll::Ready(Ok(n));
                }
                Ok(Decoded::Data(n)) => match self.poll_read(cx, watch) {
                    Poll::Ready(Ok(more)) if more > 0 => {
                        watch.arm(self.patience.upstream);
                        continue;
                    }
                    _ => return Poll::Ready(Ok(n)),
                },
                Ok(Decoded::End) => return Poll::Ready(Ok(0)),
                Ok(Decoded::More) => {}
                Err(reject) => return Poll::Ready(Err(Failure::Malformed(reject))),
            }
            if ready!(self.poll_read(cx, watch))? == 0 {
                let ok = self.rx.may_end_at_close();
                return Poll::Ready(if ok { Ok(0) } else { Err(Failure::Closed) });
            }
            watch.arm(self.patience.upstream);
            self.up.buffer.grow_if_full();
        }
    }

    /// The response data that arrived.
    pub fn data(&self) -> &[u8] {
        self.up.buffer.data()
    }

    /// Uses up response data.
    pub fn consume_data(&mut self, n: usize) {
        self.rx.take(&mut self.up.buffer, n);
    }

    /// Whether `n` bytes of data, which are here, are all that is left of the response.
    pub fn ends_with(&self, n: usize) -> bool {
        n > 0 && self.rx.run() == n as u64
    }

    /// What came after the response's body, if anything that may be passed on did.
    pub fn trailers(&self) -> Option<Fields> {
        if self.rx.trailers.is_empty() {
            return None;
        }
        Some(trailers::fields_of(&self.rx.trailers)).filter(|t| !t.is_empty())
    }

    /// Whether all response data was used.
    pub fn response_done(&self) -> bool {
        self.rx.done()
    }

    /// What a tunnel goes on with.
    #[expect(clippy::boxed_local, reason = "a forward is boxed all its life")]
    pub fn into_tunnel(self: Box<Self>, head: Vec<u8>, idle: Duration) -> Opened {
        Opened { upstream: self.up, head, idle, in_flight: self.in_flight }
    }

    /// The body, and the connection if it can be used again.
    #[expect(clippy::boxed_local, reason = "a forward is boxed all its life")]
    pub fn finish(self: Box<Self>) -> (B, Option<UpstreamConn>) {
        let clean =
            self.request_sent() && self.rx.done() && self.meta.keep_alive && self.up.buffer.is_empty();
        (self.body, clean.then_some(self.up))
    }
}
