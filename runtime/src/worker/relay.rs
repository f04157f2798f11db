//! An upstream's answer on its way to an HTTP/1 client: as it comes, held for a policy, filtered, or moved by the kernel.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::context::Worker;
use super::filtering::{Filtering, collect};
use super::forward::{Failure, Forward};
use super::h1::Next;
use super::pipeline;
use super::proxy;
use super::respond::{self, Ending};
use super::sender::{SMALL, Sender};
use super::source::{BodySource as _, H1Body};
use super::splice::Pipe;
use crate::exchange::Exchange;
use crate::http1::Framing;
use crate::http1::request::Meta;
use crate::http1::write::{self, ClientLine};
use crate::message::{Fields, Version};
use crate::policy::BodyFilter;
use crate::policy::representation::is_of_bytes;

/// Sends an upstream's answer on to the client.
pub async fn relay(
    worker: &Worker,
    x: &mut Box<Exchange>,
    mut forward: Box<Forward<H1Body<'_>>>,
    meta: Meta,
    keep_alive: bool,
) -> Next {
    respond::proxied(x);
    let mut whole = None;
    let watch = forward.body.watch;
    if pipeline::wants_body(x) && forward.meta.framing != Framing::None {
        match Box::pin(collect(&mut *forward, watch, x.snapshot.gateway.limits.buffered_body)).await {
            Ok(body) => whole = Some(respond::changed(x, body)),
            Err(failure) => {
                let error = proxy::ProxyError::Exchange(failure);
                worker.sink.proxy_error(x, &error);
                let reply = error.reply(x);
                whole = Some(respond::instead(x, reply));
            }
        }
    }
    let filter = match &whole {
        Some(_) => None,
        None => pipeline::filter(x, known_length(x, forward.meta.framing)),
    };
    let filter = filter.filter(|_| forward.meta.framing != Framing::None);
    let http10 = x.request.version == Version::H10;
    // Those of a body that is here whole are here, too.
    let trailers = match &whole {
        Some(_) if meta.te_trailers && !http10 && !x.local_response => after_changed(&forward),
        _ => None,
    };
    let framing = match (&whole, forward.meta.framing) {
        (Some(_), _) if trailers.is_some() => Framing::Chunked,
        (Some(b), _) if b.is_empty() => Framing::None,
        (Some(b), _) => Framing::Length(b.len() as u64),
        (None, Framing::Length(_)) if filter.is_some() && !http10 => Framing::Chunked,
        (None, Framing::Length(_)) if filter.is_some() => Framing::UntilClose,
        (None, Framing::Chunked | Framing::UntilClose) if http10 => Framing::UntilClose,
        (None, Framing::UntilClose) => Framing::Chunked,
        (None, f) => f,
    };
    // A request body that is still coming makes the connection useless for a next request.
    let keep_alive = keep_alive
        && framing != Framing::UntilClose
        && !worker.draining.get()
        && !forward.body.awaits_continue();
    let stated = match framing {
        Framing::None => stated_length(x),
        _ => None,
    };
    let head_only = x.request.method == "HEAD";
    let line =
        ClientLine { framing, version: x.request.version, keep_alive, stated_length: stated, head_only };
    let mut sender = Sender::new(framing == Framing::Chunked);
    forward.body.unsent(sender.head());
    write::response(sender.head(), &x.response, &line);
    forward.splices = forward.body.is_plain() && whole.is_none() && filter.is_none();
    let broken = match (whole, filter) {
        (Some(body), _) => {
            if !body.is_empty() {
                sender.add(&body);
            }
            sender.end_with(trailers);
            flush_to(&mut sender, &mut forward, x).await.is_err()
        }
        (None, filter) => match match filter {
            None => stream(&mut sender, &mut forward, x, meta.te_trailers).await,
            Some(filter) => {
                Box::pin(stream_filtered(&mut sender, &mut forward, filter, meta.te_trailers)).await
            }
        } {
            Ok(()) => false,
            // While something was waited for, what was there has been sent already.
            Err(Failure::Timeout) => true,
            // What the upstream said before it broke off is the client's to see, status above all.
            Err(_) => {
                let _ = flush_to(&mut sender, &mut forward, x).await;
                true
            }
        },
    };
    let ending = Ending { request_bytes: forward.request_bytes(), response_bytes: sender.sent, broken };
    respond::finish(worker, x, ending);
    let unread = !forward.body.decoder.done();
    let (_, idle) = forward.finish();
    if let Some(conn) = idle {
        worker.pool.put(conn);
    }
    match (broken, keep_alive, unread) {
        (true, ..) => Next::Close,
        (_, _, true) if meta.framing != Framing::None => Next::Linger,
        (_, true, _) => Next::KeepAlive,
        (_, false, _) => Next::Close,
    }
}

/// The trailers of a body that was changed, without what they say of the bytes that it had.
fn after_changed(forward: &Forward<H1Body<'_>>) -> Option<Fields> {
    let mut trailers = forward.trailers()?;
    trailers.retain(|_, name, _| !is_of_bytes(name));
    Some(trailers).filter(|t| !t.is_empty())
}

/// The `Content-Length` of an answer that has no body but may say how long it would be.
pub fn stated_length(x: &Exchange) -> Option<u64> {
    // With 204 it must not be said (RFC 9110 8.6), whatever the upstream does.
    if (x.request.method != "HEAD" && x.response.status != 304) || x.response.status == 204 {
        return None;
    }
    x.response.fields.text(&crate::message::names::CONTENT_LENGTH)?.parse().ok()
}

/// How long the body of an upstream's answer is, if that is known; where there is none, how long it would be.
pub fn known_length(x: &Exchange, framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(n) => Some(n),
        Framing::None => Some(stated_length(x).unwrap_or(0)),
        Framing::Chunked | Framing::UntilClose => None,
    }
}

async fn flush_to(
    sender: &mut Sender,
    forward: &mut Forward<H1Body<'_>>,
    x: &Exchange,
) -> std::io::Result<()> {
    forward.body.watch.arm(x.snapshot.gateway.timeouts.write);
    std::future::poll_fn(|cx| match sender.poll_flush(forward.body.io, cx) {
        Poll::Pending if forward.body.watch.poll_over(cx) => {
            Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()))
        }
        other => other,
    })
    .await
}

/// [`Forward::poll_data`] with the connection's deadline.
fn poll_data(forward: &mut Forward<H1Body<'_>>, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
    let watch = forward.body.watch;
    forward.poll_data(cx, watch)
}

/// Streams head and body: gathers what is there, never waits for more with something in hand.
async fn stream(
    sender: &mut Sender,
    forward: &mut Forward<H1Body<'_>>,
    x: &Exchange,
    trailers: bool,
) -> Result<(), Failure> {
    let read_timeout = service_read_timeout(x);
    let mut ended = false;
    std::future::poll_fn(|cx| {
        loop {
            let mut waiting = false;
            if forward.rx_pipe.is_some() || forward.may_splice_response() && !sender.in_large() {
                ready!(poll_splice(sender, forward, cx, read_timeout))?;
                continue;
            }
            if !ended && (sender.has_room() || sender.in_large()) {
                match poll_data(forward, cx) {
                    Poll::Ready(Ok(0)) => {
                        sender.end_with(if trailers { forward.trailers() } else { None });
                        ended = true;
                        continue;
                    }
                    Poll::Ready(Ok(n)) if n <= SMALL && !sender.in_large() => {
                        sender.add(&forward.data()[..n]);
                        forward.consume_data(n);
                        if forward.response_done() {
                            sender.end();
                            ended = true;
                        }
                        continue;
                    }
                    Poll::Ready(Ok(n)) => {
                        let wrote = sender.poll_large(forward.body.io, cx, &forward.up.buffer.data()[..n]);
                        match wrote {
                            Poll::Ready(Ok(n)) => {
                                forward.consume_data(n);
                                forward.body.watch.arm(read_timeout);
                                continue;
                            }
                            Poll::Ready(Err(e)) => return Poll::Ready(Err(Failure::Reset(e))),
                            Poll::Pending => {
                                if forward.body.watch.poll_over(cx) {
                                    return Poll::Ready(Err(Failure::Timeout));
                                }
                                return Poll::Pending;
                            }
                        }
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => waiting = true,
                }
            }
            if sender.is_flushed() && !waiting && ended {
                return Poll::Ready(Ok(()));
            }
            match sender.poll_flush(forward.body.io, cx) {
                Poll::Ready(Ok(())) if ended => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if waiting => {
                    forward.poll_given_up(cx)?;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Failure::Reset(e))),
                Poll::Pending => {
                    if forward.body.watch.poll_over(cx) {
                        return Poll::Ready(Err(Failure::Timeout));
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// As [`stream`], with a body that passes a filter.
async fn stream_filtered(
    sender: &mut Sender,
    forward: &mut Forward<H1Body<'_>>,
    filter: Box<dyn BodyFilter>,
    trailers: bool,
) -> Result<(), Failure> {
    let mut filtering = Filtering::new(filter);
    std::future::poll_fn(|cx| {
        loop {
            let mut waiting = false;
            if sender.has_room() && !filtering.is_over() {
                let watch = forward.body.watch;
                match filtering.poll(forward, cx, watch) {
                    Poll::Ready(Ok(some)) => {
                        if some {
                            sender.add(filtering.out());
                        }
                        if filtering.is_over() {
                            sender.end_with(if trailers { after_changed(forward) } else { None });
                        }
                        continue;
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => waiting = true,
                }
            }
            match sender.poll_flush(forward.body.io, cx) {
                Poll::Ready(Ok(())) if filtering.is_over() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if waiting => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Failure::Reset(e))),
                Poll::Pending if forward.body.watch.poll_over(cx) => {
                    return Poll::Ready(Err(Failure::Timeout));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Moves the response's body from socket to socket. Ready when something was moved or the pipe is done with.
fn poll_splice(
    sender: &mut Sender,
    forward: &mut Forward<H1Body<'_>>,
    cx: &mut Context<'_>,
    read_timeout: Duration,
) -> Poll<Result<(), Failure>> {
    let watch = forward.body.watch;
    forward.pump_on(cx, watch)?;
    if forward.rx_pipe.is_none() {
        match sender.poll_flush(forward.body.io, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => return Poll::Ready(Err(Failure::Reset(e))),
            Poll::Pending if watch.poll_over(cx) => return Poll::Ready(Err(Failure::Timeout)),
            Poll::Pending => return Poll::Pending,
        }
        forward.rx_pipe = Pipe::take();
        // Without one, the body is copied after all.
        forward.splices = forward.rx_pipe.is_some();
    }
    if forward.rx_pipe.as_ref().is_some_and(Pipe::is_empty) {
        ready!(forward.poll_response_pipe(cx, watch))?;
    }
    let Some(pipe) = &mut forward.rx_pipe else { return Poll::Ready(Ok(())) };
    match sender.poll_pipe(forward.body.io, cx, pipe) {
        Poll::Ready(Ok(_)) => {
            watch.arm(read_timeout);
            if forward.rx_pipe.as_ref().is_some_and(Pipe::is_empty) && forward.response_read() {
                forward.rx_pipe = None;
            }
            Poll::Ready(Ok(()))
        }
        Poll::Ready(Err(e)) => Poll::Ready(Err(Failure::Reset(e))),
        Poll::Pending if watch.poll_over(cx) => Poll::Ready(Err(Failure::Timeout)),
        Poll::Pending => Poll::Pending,
    }
}

/// How long an upstream may be silent.
pub fn service_read_timeout(x: &Exchange) -> Duration {
    x.service.map_or(Duration::from_secs(60), |s| x.snapshot.services[s.0 as usize].read_timeout)
}
