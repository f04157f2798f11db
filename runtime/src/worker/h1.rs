//! An HTTP/1 client connection from its first byte to its last.

use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::bridge;
use super::context::Worker;
use super::deadline::{FRESH, Watch};
use super::io::Io;
use super::pipeline::{self, Decision};
use super::proxy::{self, Kind};
use super::relay::{relay, service_read_timeout};
use super::respond::{self, Ending};
use super::sender::Sender;
use super::source::{CONTINUE, H1Body};
use super::tunnel::{self, Opened};
use crate::clock;
use crate::exchange::{Client, Exchange};
use crate::http1::request::{self, Meta};
use crate::http1::write::{self, ClientLine};
use crate::http1::{BodyDecoder, Buffer, Decoded, Framing, Reject};
use crate::message::Version;
use crate::overload;
use crate::policy::Reply;

/// What begins an HTTP/2 connection without TLS.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// A body that nobody reads is read away up to this size, so that the connection can go on.
const DISCARD_MAX: u64 = 64 * 1024;

/// A head that has not come in time.
const SLOW_HEAD: Reject = Reject { status: 408, reason: "the request's head did not come in time" };

/// What is left when the loop ends.
pub enum End {
    Closed,
    /// The client speaks HTTP/2: the stream, and what was read of it.
    H2(Io, Buffer),
}

struct Conn {
    io: Io,
    buffer: Buffer,
    watch: Watch,
    worker: Rc<Worker>,
    client: Client,
    /// What the last request has opened.
    tunnel: Option<Box<Opened>>,
    /// When the last request was over: asking the clock again for the idle deadline would tell nothing new.
    last: Option<Instant>,
}

/// What comes after a request.
#[derive(PartialEq, Eq)]
pub enum Next {
    KeepAlive,
    /// Close; the client may still be sending, so its rest is read away first.
    Linger,
    Close,
    /// No request any more, but bytes both ways.
    Tunnel,
}

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, io: Io, client: Client) -> End {
    let watch = worker.deadlines.watch();
    let mut conn = Conn { io, buffer: Buffer::default(), watch, worker, client, tunnel: None, last: None };
    loop {
        match conn.wait().await {
            Wait::Request => {}
            Wait::H2 => return End::H2(conn.io, conn.buffer),
            Wait::End => return End::Closed,
        }
        // Boxed, so that a connection that waits for its next request holds none of it.
        match Box::pin(conn.request()).await {
            Next::KeepAlive => {}
            Next::Linger => {
                Box::pin(conn.linger()).await;
                return End::Closed;
            }
            Next::Close | Next::Tunnel => {
                let _ = std::future::poll_fn(|cx| conn.io.poll_end(cx)).await;
                return End::Closed;
            }
        }
    }
}

enum Wait {
    Request,
    H2,
    End,
}

impl Conn {
    /// Waits for the first byte of a request, holding no memory.
    async fn wait(&mut self) -> Wait {
        let first = self.client.connection_requests == 0;
        if self.buffer.is_empty() {
            self.arm_wait(first);
            let draining = self.worker.draining.get() && !first;
            let read = std::future::poll_fn(|cx| {
                let read = self.io.poll_read_into(cx, self.buffer.spare());
                if read.is_pending() {
                    self.buffer.release();
                    let over = draining || self.watch.poll_over(cx);
                    return if over { Poll::Ready(Ok(0)) } else { Poll::Pending };
                }
                read
            })
            .await;
            match read {
                Ok(0) | Err(_) => return Wait::End,
                Ok(n) => self.buffer.filled(n),
            }
        }
        let data = self.buffer.data();
        if first && data[0] == b'P' && (H2_PREFACE.starts_with(data) || data.starts_with(H2_PREFACE)) {
            if let Wait::End = self.more_of_preface().await {
                return Wait::End;
            }
            if self.buffer.data().starts_with(H2_PREFACE) {
                return Wait::H2;
            }
        }
        Wait::Request
    }

    /// Sets the deadline for the wait. The snapshot is let go of again: an idle connection must not keep an old config
    /// in memory.
    fn arm_wait(&self, first: bool) {
        let snapshot = self.worker.snapshot();
        let timeouts = &snapshot.gateway.timeouts;
        match (first, self.worker.draining.get()) {
            (true, true) => self.watch.arm(timeouts.header.min(FRESH)),
            (true, false) => self.watch.arm_fresh(timeouts.header),
            (false, _) => {
                let now = self.last.unwrap_or_else(clock::monotonic);
                self.watch.arm_idle_from(now, timeouts.keep_alive);
            }
        }
    }

    /// Reads on while what came could become the HTTP/2 preface.
    async fn more_of_preface(&mut self) -> Wait {
        while self.buffer.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(self.buffer.data()) {
            if !self.read().await {
                return Wait::End;
            }
        }
        Wait::Request
    }

    /// Reads more; false if the connection is over or the deadline is.
    async fn read(&mut self) -> bool {
        let read = std::future::poll_fn(|cx| match self.io.poll_read_into(cx, self.buffer.spare()) {
            Poll::Pending if self.watch.poll_over(cx) => Poll::Ready(Ok(0)),
            other => other,
        })
        .await;
        match read {
            Ok(n) if n > 0 => {
                self.buffer.filled(n);
                true
            }
            _ => false,
        }
    }

    /// One request and its response.
    async fn request(&mut self) -> Next {
        let worker = Rc::clone(&self.worker);
        self.client.connection_requests += 1;
        let mut x = worker.exchange(&self.client);
        let next = match self.head(&mut x).await {
            Ok(Some(meta)) => self.serve_one(&worker, &mut x, meta).await,
            Ok(None) => Next::Close,
            Err(reject) => {
                let reply = refusal(&x, reject);
                self.reply(&worker, &mut x, reply, true).await;
                Next::Linger
            }
        };
        if let (Next::Tunnel, Some(opened)) = (&next, self.tunnel.take()) {
            x.let_go_of_config();
            let ending = Box::pin(tunnel::run(&mut self.io, &mut self.buffer, &self.watch, *opened)).await;
            respond::finish(&worker, &mut x, ending);
        }
        self.last = Some(x.ended);
        worker.recycle(x);
        next
    }

    async fn head(&mut self, x: &mut Exchange) -> Result<Option<Meta>, Reject> {
        let snapshot = x.snapshot.clone();
        self.watch.arm_from(x.now.instant, snapshot.gateway.timeouts.header);
        loop {
            let parsed = request::parse(self.buffer.data(), &snapshot.gateway.limits, &mut x.request)?;
            if let Some(meta) = parsed {
                self.buffer.consume(meta.len);
                return Ok(Some(meta));
            }
            if !self.read().await {
                // A client that sends its head too slowly is told; one that has gone cannot be.
                let slow = self.watch.is_over() && !self.buffer.is_empty();
                return if slow { Err(SLOW_HEAD) } else { Ok(None) };
            }
        }
    }

    async fn serve_one(&mut self, worker: &Rc<Worker>, x: &mut Box<Exchange>, meta: Meta) -> Next {
        let snapshot = x.snapshot.clone();
        let limits = &snapshot.gateway.limits;
        let last = worker.draining.get()
            || overload::is_tight()
            || x.client.connection_requests >= limits.requests_per_connection as u64;
        let keep_alive = meta.keep_alive && !last;
        if meta.asterisk {
            self.reply(worker, x, Reply::empty(204), !keep_alive).await;
            return if keep_alive { Next::KeepAlive } else { Next::Close };
        }
        if let Framing::Length(n) = meta.framing
            && limits.body > 0
            && n > limits.body
        {
            let reply = proxy::body_reply(x, crate::policy::BodyError::TooLarge);
            self.reply(worker, x, reply, true).await;
            return Next::Linger;
        }
        if let Framing::Length(n) = meta.framing
            && !matches!(self.io, Io::Tcp(_))
        {
            self.buffer.expect(n);
        }
        let mut body = H1Body {
            io: &mut self.io,
            buffer: &mut self.buffer,
            watch: &self.watch,
            decoder: BodyDecoder::new(meta.framing),
            framing: meta.framing,
            to_continue: if meta.expect_continue { CONTINUE.len() } else { 0 },
            interim: (x.request.version == Version::H11).then(Vec::new),
            strip: &snapshot.stripped_headers,
            since: x.now.instant,
            timeout: snapshot.gateway.timeouts.body,
            limit: limits.body,
        };
        let kind = Kind { websocket: meta.websocket, te_trailers: meta.te_trailers };
        let sent = match pipeline::run(worker, x, &mut body).await {
            Decision::Reply(reply) => Err((body, reply)),
            // Boxed, so that what only some services need makes no other request larger.
            Decision::Proxy if pipeline::speaks_h2(x) => {
                match Box::pin(bridge::serve(worker, x, body, meta, keep_alive)).await {
                    Ok(next) => return next,
                    Err(instead) => Err(instead),
                }
            }
            Decision::Proxy => match proxy::send(worker, x, body, &self.watch, kind).await {
                Ok(forward) => Ok(forward),
                Err((body, error)) => {
                    worker.sink.proxy_error(x, &error);
                    Err((body, error.reply(x)))
                }
            },
        };
        match sent {
            Ok(mut forward) if forward.meta.websocket => {
                respond::proxied(x);
                let mut head = Vec::new();
                forward.body.unsent(&mut head);
                write::switching_protocols(&mut head, &x.response);
                // As under Kong, the service's read timeout is how long a WebSocket may be silent.
                let idle = service_read_timeout(x);
                self.tunnel = Some(Box::new(forward.into_tunnel(head, idle)));
                Next::Tunnel
            }
            Ok(forward) => relay(worker, x, forward, meta, keep_alive).await,
            Err((mut body, reply)) => {
                let mut before = Vec::new();
                body.unsent(&mut before);
                // A client that waits for `100 Continue` may or may not send its body now.
                let unsure = body.to_continue > 0 && !body.decoder.done();
                let decoder = body.decoder;
                let close = !keep_alive || unsure || reply.close || worker.draining.get();
                let after = self.discard(decoder, close, meta).await;
                self.reply_after(before, worker, x, reply, after != Next::KeepAlive).await;
                after
            }
        }
    }

    /// Decides what happens to a body that nobody wants; a short one that is here already is read away.
    async fn discard(&mut self, mut decoder: BodyDecoder, close: bool, meta: Meta) -> Next {
        if close {
            return if decoder.done() { Next::Close } else { Next::Linger };
        }
        if let Framing::Length(n) = meta.framing
            && n > DISCARD_MAX
        {
            return Next::Linger;
        }
        self.watch.arm(Duration::from_secs(1));
        loop {
            match decoder.decode(&mut self.buffer) {
                Ok(Decoded::End) => return Next::KeepAlive,
                Ok(Decoded::Data(n)) => decoder.take(&mut self.buffer, n),
                Ok(Decoded::More) if decoder.received <= DISCARD_MAX => {
                    if !self.read().await {
                        return Next::Linger;
                    }
                }
                _ => return Next::Linger,
            }
        }
    }

    /// Sends the gateway's own answer.
    async fn reply(&mut self, worker: &Worker, x: &mut Exchange, reply: Reply, close: bool) {
        self.reply_after(Vec::new(), worker, x, reply, close).await;
    }

    /// The same where an interim answer is half out.
    async fn reply_after(
        &mut self,
        before: Vec<u8>,
        worker: &Worker,
        x: &mut Exchange,
        reply: Reply,
        close: bool,
    ) {
        let body = respond::local(x, reply);
        let mut sender = Sender::new(false);
        sender.head().extend_from_slice(&before);
        let head_only = x.request.method == "HEAD" || matches!(x.response.status, 100..=199 | 204 | 304);
        let line = ClientLine {
            framing: match (head_only, body.len()) {
                (true, _) | (_, 0) => Framing::None,
                (false, n) => Framing::Length(n as u64),
            },
            version: x.request.version,
            keep_alive: !close,
            stated_length: (head_only && !body.is_empty()).then_some(body.len() as u64),
            head_only: x.request.method == "HEAD",
        };
        write::response(sender.head(), &x.response, &line);
        if !head_only {
            sender.add(&body);
        }
        let sent = sender.sent;
        let broken = self.flush(&mut sender, x).await.is_err();
        respond::finish(worker, x, Ending { request_bytes: 0, response_bytes: sent, broken });
    }

    async fn flush(&mut self, sender: &mut Sender, x: &Exchange) -> std::io::Result<()> {
        // Nearly always the first write takes all; only then is there something to wait for.
        let mut armed = false;
        std::future::poll_fn(|cx| match sender.poll_flush(&mut self.io, cx) {
            Poll::Pending if !armed => {
                armed = true;
                self.watch.arm(x.snapshot.gateway.timeouts.write);
                let _ = self.watch.poll_over(cx);
                Poll::Pending
            }
            Poll::Pending if self.watch.poll_over(cx) => {
                Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()))
            }
            other => other,
        })
        .await
    }

    /// Ends the writing side and reads on for a moment: closing with unread data would reset the connection, and the
    /// client might never see its answer.
    async fn linger(&mut self) {
        let _ = std::future::poll_fn(|cx| self.io.poll_end(cx)).await;
        self.watch.arm(Duration::from_secs(1));
        let mut left = 1024 * 1024_usize;
        while left > 0 {
            self.buffer.consume(self.buffer.len());
            if !self.read().await {
                break;
            }
            left = left.saturating_sub(self.buffer.len());
        }
    }
}

/// The answer to a request that could not even be read.
fn refusal(x: &Exchange, reject: Reject) -> Reply {
    let message = match reject.status {
        400 => "Bad request",
        405 => "Method not allowed",
        408 => "Request timeout",
        413 => "Request entity too large",
        414 => "URI too long",
        417 => "Expectation failed",
        431 => "Request header or cookie too large",
        501 => "Not implemented",
        505 => "HTTP version not supported",
        _ => reject.reason,
    };
    Reply::gateway_error(&x.request, x.request_id, reject.status, message).closing()
}
