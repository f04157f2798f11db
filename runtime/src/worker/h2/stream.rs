//! One stream: a request and its answer.

use std::rc::Rc;

use super::streaming::{Manner, without_digests};
use super::{H2Body, Handle, answer, streaming};
use crate::exchange::Exchange;
use crate::http1::Framing;
use crate::http2::request::{Connect, Meta};
use crate::policy::{BodyError, Reply};
use crate::worker::context::Worker;
use crate::worker::deadline::Watch;
use crate::worker::filtering::{Filtering, collect};
use crate::worker::forward::Forward;
use crate::worker::held::Held;
use crate::worker::pipeline::{self, Decision};
use crate::worker::proxy::{self, Kind, ProxyError};
use crate::worker::relay::known_length;
use crate::worker::respond::{self, Ending};
use crate::worker::{grpc, websocket};

/// Serves a request whose head is in `x`.
pub async fn serve(worker: Rc<Worker>, handle: Handle, x: Box<Exchange>, meta: Meta) {
    let x = Held::new(Rc::clone(&worker), x);
    answered(worker, &handle, x, meta).await;
    handle.finish();
}

async fn answered(worker: Rc<Worker>, handle: &Handle, mut x: Held, meta: Meta) {
    if let Some(reply) = refusal(&x, &meta) {
        return answer::own(&worker, handle, x.release(), reply).await;
    }
    let watch = handle.watch(&worker);
    let snapshot = x.snapshot.clone();
    if meta.framing != Framing::None {
        watch.arm_from(x.now.instant, snapshot.gateway.timeouts.body);
    }
    let mut body = H2Body::new(handle.clone(), &meta, Rc::clone(&watch), x.now.instant, snapshot);
    let kind = Kind { te_trailers: meta.te_trailers, websocket: meta.connect == Some(Connect::WebSocket) };
    if kind.websocket {
        return Box::pin(websocket::serve(worker, handle.clone(), x, body, watch, kind)).await;
    }
    let forward = match pipeline::run(&worker, &mut x, &mut body).await {
        Decision::Reply(reply) => {
            drop(body);
            answer::own(&worker, handle, x.release(), reply).await;
            return handle.give_back(watch);
        }
        // Boxed, so that what only some services need makes no other request larger.
        Decision::Proxy if pipeline::speaks_h2(&x) => {
            return Box::pin(grpc::serve(worker, handle.clone(), x, body, watch, kind)).await;
        }
        Decision::Proxy => match proxy::send(&worker, &mut x, body, &watch, kind).await {
            Ok(forward) => forward,
            Err((_, error)) => {
                worker.sink.proxy_error(&mut x, &error);
                let reply = error.reply(&x);
                return answer::own(&worker, handle, x.release(), reply).await;
            }
        },
    };
    deliver(worker, handle, x, forward, Rc::clone(&watch)).await;
    handle.give_back(watch);
}

/// The answer to a request that is not served at all.
fn refusal(x: &Exchange, meta: &Meta) -> Option<Reply> {
    if let Some((status, message)) = meta.refused {
        return Some(Reply::gateway_error(&x.request, x.request_id, status, message));
    }
    if x.request.raw_path == "*" {
        return Some(Reply::empty(204));
    }
    let limit = x.snapshot.gateway.limits.body;
    match meta.framing {
        Framing::Length(n) if limit > 0 && n > limit => Some(proxy::body_reply(x, BodyError::TooLarge)),
        _ => None,
    }
}

/// An upstream's answer, on its way to the client.
pub async fn deliver(
    worker: Rc<Worker>,
    handle: &Handle,
    mut x: Held,
    forward: Box<Forward<H2Body>>,
    watch: Rc<Watch>,
) {
    respond::proxied(&mut x);
    if forward.meta.framing != Framing::None && pipeline::wants_body(&x) {
        return Box::pin(changed(worker, handle, x, forward, watch)).await;
    }
    let length = known_length(&x, forward.meta.framing);
    let filter = pipeline::filter(&mut x, length).map(Filtering::new);
    if forward.response_done() {
        let ending = Ending { request_bytes: forward.request_bytes(), ..Ending::default() };
        streaming::Source::end(forward, &worker);
        return answer::whole(&worker, handle, x.release(), bytes::Bytes::new(), None, ending).await;
    }
    let length = match forward.meta.framing {
        Framing::Length(n) if filter.is_none() => Some(n),
        _ => None,
    };
    let manner = Manner { filter, length, patience: x.snapshot.gateway.timeouts.write };
    streaming::stream(worker, handle.clone(), x.release(), forward, watch, manner).await;
}

/// The same where a policy wants the body whole.
async fn changed(
    worker: Rc<Worker>,
    handle: &Handle,
    mut x: Held,
    mut forward: Box<Forward<H2Body>>,
    watch: Rc<Watch>,
) {
    match collect(&mut *forward, &watch, x.snapshot.gateway.limits.buffered_body).await {
        Ok(body) => {
            let body = respond::changed(&mut x, body);
            let sent = body.len() as u64;
            let ending =
                Ending { request_bytes: forward.request_bytes(), response_bytes: sent, broken: false };
            let trailers = forward.trailers().filter(|_| !x.local_response).map(without_digests);
            streaming::Source::end(forward, &worker);
            answer::whole(&worker, handle, x.release(), body, trailers, ending).await;
        }
        Err(failure) => {
            let error = ProxyError::Exchange(failure);
            worker.sink.proxy_error(&mut x, &error);
            let reply = error.reply(&x);
            answer::instead(&worker, handle, x.release(), reply).await;
        }
    }
}
