//! Requests of HTTP/1 clients for services that speak HTTP/2.

use std::future::Future as _;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::context::Worker;
use super::deadline::Watch;
use super::filtering::{Filtering, Pieces, collect};
use super::forward::Failure;
use super::h1::Next;
use super::h2::without_digests;
use super::pipeline;
use super::proxy::{Kind, ProxyError};
use super::relay::known_length;
use super::request_body::{Origin, Source, trailers_of};
use super::respond::{self, Ending};
use super::sender::{SMALL, Sender};
use super::source::{BodySource as _, H1Body};
use super::upstream_h2::{self, Answer, patience};
use crate::exchange::Exchange;
use crate::http1::Framing;
use crate::http1::request::Meta;
use crate::http1::write::{self, ClientLine};
use crate::message::{Fields, Version};
use crate::policy::{BodyError, Reply};

/// Most of a request's body that is handed on at once.
const PIECE: usize = 64 * 1024;

/// Sends the request and its answer on.
///
/// # Errors
/// The answer that the client gets instead of one of the service.
pub async fn serve<'a>(
    worker: &Worker,
    x: &mut Box<Exchange>,
    mut body: H1Body<'a>,
    meta: Meta,
    keep_alive: bool,
) -> Result<Next, (H1Body<'a>, Reply)> {
    if meta.websocket {
        let reply = Reply::gateway_error(&x.request, x.request_id, 501, "Not implemented");
        return Err((body, reply));
    }
    let watch = Rc::new(worker.deadlines.watch());
    let origin = match (&x.body, body.framing()) {
        (Some(whole), _) if !x.body_goes_on => Origin::Whole(whole.clone()),
        (_, Framing::None) => Origin::Whole(Bytes::new()),
        (_, Framing::Length(n)) => Origin::Pushed(Some(n)),
        _ => Origin::Pushed(None),
    };
    // The client's own limit is kept where its body is read.
    let source = Source::new(origin, 0, Rc::clone(&watch), patience(x));
    let kind = Kind { websocket: false, te_trailers: meta.te_trailers };
    body.watch.arm(x.snapshot.gateway.timeouts.body);
    let gives_up = x.gives_up;
    let sent = {
        let mut sent = Box::pin(upstream_h2::send(worker, x, &source, &watch, kind));
        std::future::poll_fn(|cx| {
            pump(&mut body, &source, cx);
            if gives_up && body.decoder.done() && body.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(ProxyError::Exchange(Failure::Body(BodyError::Broken))));
            }
            sent.as_mut().poll(cx)
        })
        .await
    };
    match sent {
        Ok(answer) => Ok(relay(worker, x, Bridged { body, source, answer }, watch, meta, keep_alive).await),
        Err(error) => {
            source.end();
            worker.sink.proxy_error(x, &error);
            let reply = error.reply(x);
            Err((body, reply))
        }
    }
}

/// Hands on what has come of the request's body, as far as the upstream takes it.
fn pump(body: &mut H1Body<'_>, source: &Source, cx: &mut Context<'_>) {
    while source.wants(cx) {
        match body.poll_fill(cx) {
            Poll::Ready(Ok(0)) => source.finish(body.trailers().map(|t| trailers_of(&t))),
            Poll::Ready(Ok(n)) => {
                let n = n.min(PIECE);
                source.push(Bytes::copy_from_slice(&body.data()[..n]));
                body.consume(n);
            }
            Poll::Ready(Err(fault)) => source.break_off(fault),
            Poll::Pending => return,
        }
    }
}

/// An answer, while the request may still be on its way.
struct Bridged<'a> {
    body: H1Body<'a>,
    source: Rc<Source>,
    answer: Answer,
}

impl Pieces for Bridged<'_> {
    fn poll_data(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Result<usize, Failure>> {
        pump(&mut self.body, &self.source, cx);
        self.answer.poll_data(cx, watch)
    }

    fn data(&self) -> &[u8] {
        self.answer.data()
    }

    fn consume_data(&mut self, n: usize) {
        self.answer.consume_data(n);
    }
}

impl Bridged<'_> {
    /// What came after the body, for a client that has asked for such; `changed` bodies have other digests.
    fn trailers(&mut self, asked: bool, changed: bool) -> Option<Fields> {
        let trailers = self.answer.take_trailers().filter(|_| asked)?;
        let trailers = if changed { without_digests(trailers) } else { trailers };
        Some(trailers).filter(|t| !t.is_empty())
    }
}

/// Sends the answer on to the client.
async fn relay(
    worker: &Worker,
    x: &mut Box<Exchange>,
    mut from: Bridged<'_>,
    watch: Rc<Watch>,
    meta: Meta,
    keep_alive: bool,
) -> Next {
    respond::proxied_via(x, "2 gw");
    let bodiless = from.answer.is_over();
    let mut whole = None;
    if !bodiless && pipeline::wants_body(x) {
        let limit = x.snapshot.gateway.limits.buffered_body;
        whole = Some(match Box::pin(collect(&mut from, &watch, limit)).await {
            Ok(body) => respond::changed(x, body),
            Err(failure) => {
                let error = ProxyError::Exchange(failure);
                worker.sink.proxy_error(x, &error);
                let reply = error.reply(x);
                respond::instead(x, reply)
            }
        });
    }
    let framing = match (bodiless, from.answer.length()) {
        (true, _) => Framing::None,
        (false, Some(n)) => Framing::Length(n),
        (false, None) => Framing::Chunked,
    };
    let stated = known_length(x, framing);
    let filter = if whole.is_some() { None } else { pipeline::filter(x, stated) };
    let filter = filter.filter(|_| !bodiless).map(Filtering::new);
    let http10 = x.request.version == Version::H10;
    let asked = meta.te_trailers && !http10 && !x.local_response;
    let trailers = if whole.is_some() { from.trailers(asked, true) } else { None };
    let framing = match &whole {
        Some(_) if trailers.is_some() => Framing::Chunked,
        Some(body) if body.is_empty() => Framing::None,
        Some(body) => Framing::Length(body.len() as u64),
        None if bodiless => Framing::None,
        None if http10 && (filter.is_some() || framing == Framing::Chunked) => Framing::UntilClose,
        None if filter.is_some() => Framing::Chunked,
        None => framing,
    };
    let keep_alive = keep_alive
        && framing != Framing::UntilClose
        && !worker.draining.get()
        && !from.body.awaits_continue();
    let line = ClientLine {
        framing,
        version: x.request.version,
        keep_alive,
        stated_length: if bodiless { super::relay::stated_length(x) } else { None },
        head_only: x.request.method == "HEAD",
    };
    let mut sender = Sender::new(framing == Framing::Chunked);
    from.body.unsent(sender.head());
    write::response(sender.head(), &x.response, &line);
    let write = x.snapshot.gateway.timeouts.write;
    let sent = match whole {
        Some(body) => {
            if !body.is_empty() {
                sender.add(&body);
            }
            sender.end_with(trailers);
            Ok(())
        }
        None if bodiless => Ok(()),
        None => {
            let mut sending = Sending { from: &mut from, filter, watch: &watch, asked, over: false };
            std::future::poll_fn(|cx| sending.poll(&mut sender, write, cx)).await
        }
    };
    // What the upstream said before it broke off is the client's to see, status above all.
    let flushed = flush(&mut sender, &mut from.body, write).await;
    let broken = sent.is_err() || flushed.is_err();
    if let Err(failure) = sent {
        x.keep(crate::telemetry::Why(ProxyError::Exchange(failure).reason()));
    }
    let request_bytes = from.answer.request_bytes();
    from.answer.end();
    respond::finish(worker, x, Ending { request_bytes, response_bytes: sender.sent, broken });
    match (broken, keep_alive, !from.body.decoder.done()) {
        (true, ..) => Next::Close,
        (_, _, true) if meta.framing != Framing::None => Next::Linger,
        (_, true, _) => Next::KeepAlive,
        (_, false, _) => Next::Close,
    }
}

/// A body on its way to the client.
struct Sending<'a, 'b> {
    from: &'a mut Bridged<'b>,
    filter: Option<Filtering>,
    /// The upstream's time.
    watch: &'a Watch,
    /// The client takes trailers.
    asked: bool,
    over: bool,
}

impl Sending<'_, '_> {
    /// Gathers what is there, and never waits for more with something in hand.
    fn poll(
        &mut self,
        sender: &mut Sender,
        write: std::time::Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let mut waiting = false;
            if sender.has_room() && !self.over {
                match self.poll_piece(sender, cx) {
                    Poll::Ready(done) => {
                        done?;
                        continue;
                    }
                    Poll::Pending => waiting = true,
                }
            }
            if self.over {
                return Poll::Ready(Ok(()));
            }
            match sender.poll_flush(self.from.body.io, cx) {
                Poll::Ready(Ok(())) => self.from.body.watch.arm(write),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Failure::Reset(e))),
                Poll::Pending if self.from.body.watch.poll_over(cx) => {
                    return Poll::Ready(Err(Failure::Timeout));
                }
                Poll::Pending => return Poll::Pending,
            }
            if waiting {
                return Poll::Pending;
            }
        }
    }

    /// Adds one more piece, or the end.
    fn poll_piece(&mut self, sender: &mut Sender, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let some = match &mut self.filter {
            Some(filter) if filter.is_over() => false,
            Some(filter) => {
                let some = ready!(filter.poll(self.from, cx, self.watch))?;
                if some {
                    sender.add(filter.out());
                }
                some
            }
            None => {
                let n = ready!(self.from.poll_data(cx, self.watch))?.min(SMALL);
                if n > 0 {
                    sender.add(&self.from.data()[..n]);
                    self.from.consume_data(n);
                }
                n > 0
            }
        };
        if !some {
            sender.end_with(self.from.trailers(self.asked, self.filter.is_some()));
            self.over = true;
        }
        Poll::Ready(Ok(()))
    }
}

async fn flush(
    sender: &mut Sender,
    body: &mut H1Body<'_>,
    write: std::time::Duration,
) -> std::io::Result<()> {
    body.watch.arm(write);
    std::future::poll_fn(|cx| match sender.poll_flush(body.io, cx) {
        Poll::Pending if body.watch.poll_over(cx) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
        other => other,
    })
    .await
}
