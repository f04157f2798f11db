//! Answers whose body is here whole.

use bytes::Bytes;

use super::Handle;
use crate::exchange::Exchange;
use crate::http1::Framing;
use crate::message::Fields;
use crate::policy::{Reply, reply};
use crate::worker::context::Worker;
use crate::worker::relay::known_length;
use crate::worker::respond::{self, Ending};

/// The gateway's own answer.
pub async fn own(worker: &Worker, handle: &Handle, mut x: Box<Exchange>, reply: Reply) {
    let reply = if reply::calls_grpc(&x.request) { reply.into_grpc() } else { reply };
    let body = respond::local(&mut x, reply);
    let ending = Ending { response_bytes: body.len() as u64, ..Ending::default() };
    whole(worker, handle, x, body, None, ending).await;
}

/// The gateway's own answer in place of an upstream's whose body is no good.
pub async fn instead(worker: &Worker, handle: &Handle, mut x: Box<Exchange>, reply: Reply) {
    let reply = if reply::calls_grpc(&x.request) { reply.into_grpc() } else { reply };
    let body = respond::instead(&mut x, reply);
    let ending = Ending { response_bytes: body.len() as u64, ..Ending::default() };
    whole(worker, handle, x, body, None, ending).await;
}

/// An upstream's answer that is over with its head, which may say how long the body would be that it does not have. A
/// call that fails has no more than that, and clients of such calls want no length.
pub fn bodyless(worker: &Worker, handle: &Handle, mut x: Box<Exchange>, request_bytes: u64) {
    respond::finish(worker, &mut x, Ending { request_bytes, ..Ending::default() });
    let length = known_length(&x, Framing::None).filter(|n| *n > 0);
    // A stream that is gone needs none.
    let _ = handle.head(x.response.status, &x.response.fields, length, true);
    worker.recycle(x);
}

/// An answer of which all is known.
pub async fn whole(
    worker: &Worker,
    handle: &Handle,
    mut x: Box<Exchange>,
    body: Bytes,
    trailers: Option<Fields>,
    ending: Ending,
) {
    respond::finish(worker, &mut x, ending);
    let bodyless = x.request.method == "HEAD" || matches!(x.response.status, 204 | 304);
    let length = match (bodyless, &trailers) {
        (true, _) if x.response.status == 204 => None,
        (true, _) => known_length(&x, Framing::None).filter(|n| *n > 0),
        // With a length, some clients take the body's end for that of all.
        (false, Some(_)) => None,
        (false, None) => Some(body.len() as u64),
    };
    let body = if bodyless { Bytes::new() } else { body };
    let end = body.is_empty() && trailers.is_none();
    let sent = handle.head(x.response.status, &x.response.fields, length, end);
    worker.recycle(x);
    if sent.is_err() || end {
        return;
    }
    let patience = worker.snapshot().gateway.timeouts.write;
    let mut rest = &body[..];
    if handle.has_room(rest.len()) {
        if !rest.is_empty() {
            let _ = handle.data(rest, trailers.is_none());
        }
    } else {
        let watch = handle.watch(worker);
        watch.arm(patience);
        while !rest.is_empty() {
            let room = std::future::poll_fn(|cx| match handle.poll_room(cx) {
                std::task::Poll::Pending if watch.poll_over(cx) => std::task::Poll::Ready(None),
                other => other.map(Result::ok),
            });
            let Some(n) = room.await else {
                handle.reset(crate::http2::Code::CANCEL);
                return;
            };
            watch.arm(patience);
            let (piece, after) = rest.split_at(n.min(rest.len()));
            if handle.data(piece, after.is_empty() && trailers.is_none()).is_err() {
                return;
            }
            rest = after;
        }
        handle.give_back(watch);
    }
    if let Some(trailers) = trailers {
        // A stream that is gone needs none.
        let _ = handle.trailers(&trailers);
    }
}
