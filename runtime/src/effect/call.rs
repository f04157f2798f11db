//! Calls: requests of the gateway's own, over the worker's connections, by the rules of a client's request.

use std::rc::Rc;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use crate::clock;
use crate::exchange::Exchange;
use crate::http1::{Framing, scan};
use crate::message::{FieldName, Fields, names};
use crate::policy::BodyError;
use crate::policy::call::{Call, CallError, CallResponse, CallTo, Done, Series};
use crate::upstream::connect::ConnectError;
use crate::upstream::target::{NoTarget, To};
use crate::worker::context::Worker;
use crate::worker::deadline::Watch;
use crate::worker::forward::{Failure, Forward};
use crate::worker::grpc;
use crate::worker::proxy::{self, Kind, ProxyError};
use crate::worker::source::NoBody;

/// Sends all of them at the same time, on behalf of the request in `x`. Dropping the future ends every call.
pub async fn perform(w: &Worker, x: &Exchange, calls: Vec<Call>) -> Vec<Result<CallResponse, CallError>> {
    let mut calls = calls;
    if calls.len() == 1
        && let Some(call) = calls.pop()
    {
        return vec![one(w, x, call).await];
    }
    join_all(calls.into_iter().map(|call| Box::pin(one(w, x, call)))).await
}

/// Sends what a series says, as it says it. Dropping the future ends every call.
pub async fn series(w: &Worker, x: &Exchange, series: &mut dyn Series) {
    let mut under_way = FuturesUnordered::new();
    while let Some(calls) = series.next() {
        for (number, call) in calls {
            under_way.push(Box::pin(async move { (number, one(w, x, call).await) }));
        }
        let Some((number, result)) = under_way.next().await else { return };
        series.answered(number, result);
    }
}

/// Sends a call that the request does not wait for, on its behalf but beyond its end.
pub fn later(w: &Rc<Worker>, x: &Exchange, call: Call, done: Done) {
    let mut parent = w.exchange(&x.client);
    parent.snapshot = x.snapshot.clone();
    parent.route = x.route;
    parent.identity.clone_from(&x.identity);
    parent.captures.clone_from(&x.captures);
    parent.upstream.host.clone_from(&x.upstream.host);
    parent.request.host.push_str(&x.request.host);
    parent.request.raw_path.push_str(&x.request.raw_path);
    parent.request.fields.extend(&x.request.fields);
    let w = Rc::clone(w);
    tokio::task::spawn_local(async move {
        done.call(Box::pin(one(&w, &parent, call)).await);
        w.recycle(parent);
    });
}

async fn one(w: &Worker, parent: &Exchange, call: Call) -> Result<CallResponse, CallError> {
    let timeout = call.timeout;
    tokio::time::timeout(timeout, exchange(w, parent, call)).await.unwrap_or(Err(CallError::Timeout))
}

async fn exchange(w: &Worker, parent: &Exchange, call: Call) -> Result<CallResponse, CallError> {
    let began = clock::monotonic();
    let snapshot = parent.snapshot.clone();
    let (service, to_service) = match &call.to {
        CallTo::Service(id) | CallTo::Exactly(id) => {
            (snapshot.services.get(id.0 as usize).ok_or(CallError::Invalid)?, Some(*id))
        }
        CallTo::Endpoint(endpoint) => (&endpoint.service, None),
    };
    let public_only = matches!(&call.to, CallTo::Endpoint(e) if e.public_only);
    let speaks_http1 = !service.http2;
    let path = call.path.as_bytes();
    if (!speaks_http1 && to_service.is_none())
        || !scan::is_token(call.method.as_bytes())
        || !call.path.starts_with('/')
        || !scan::is_target(path)
    {
        return Err(CallError::Invalid);
    }
    let mut x = w.exchange(&parent.client);
    prepare(&mut x, parent, &call);
    x.service = to_service;
    let base = match &call.to {
        CallTo::Exactly(_) => {
            x.route = parent.route;
            x.upstream.host.clone_from(&parent.upstream.host);
            ""
        }
        _ => service.path.trim_end_matches('/'),
    };
    x.upstream.path = format!("{base}{}", x.request.path);
    let watch = w.deadlines.watch();
    if !speaks_http1 {
        let (body, trailers) = grpc::whole(w, &mut x, call.body.clone(), watch, call.max_body)
            .await
            .map_err(|error| error.map_or(CallError::TooLarge, |e| why(&e)))?;
        let response = response(&x, body, trailers, began);
        w.recycle(x);
        return Ok(response);
    }
    let sent = match to_service {
        Some(_) => proxy::send(w, &mut x, NoBody, &watch, Kind::default()).await,
        None => {
            let to = To { service, id: None, public_only };
            proxy::send_to(w, &mut x, NoBody, &watch, Kind::default(), to).await
        }
    };
    let mut forward = sent.map_err(|(_, error)| why(&error))?;
    let body = body(&mut forward, &watch, call.max_body).await?;
    let (_, idle) = forward.finish();
    if let Some(conn) = idle {
        w.pool.put(conn);
    }
    let response = response(&x, body, Fields::default(), began);
    w.recycle(x);
    Ok(response)
}

fn response(x: &Exchange, body: Vec<u8>, trailers: Fields, began: std::time::Instant) -> CallResponse {
    CallResponse {
        status: x.response.status,
        fields: x.response.fields.clone(),
        body: body.into(),
        trailers,
        took: began.elapsed(),
    }
}

const FORWARDED: [FieldName; 4] =
    [names::X_FORWARDED_FOR, names::X_FORWARDED_PROTO, names::X_FORWARDED_HOST, names::X_FORWARDED_PORT];

/// Makes `x` the call's request. What balancing and forwarding look at beside it is the client's.
fn prepare(x: &mut Exchange, parent: &Exchange, call: &Call) {
    x.snapshot = parent.snapshot.clone();
    x.identity.clone_from(&parent.identity);
    x.captures.clone_from(&parent.captures);
    let (path, query) = match call.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (call.path.as_str(), None),
    };
    let request = &mut x.request;
    request.clear();
    request.method.push_str(&call.method);
    request.path.push_str(path);
    request.raw_path.push_str(&parent.request.raw_path);
    request.query = query.map(str::to_owned);
    request.host.push_str(&parent.request.host);
    request.fields.extend(&call.fields);
    x.upstream.host = call.fields.text(&names::HOST).map(str::to_owned);
    request.fields.remove(&names::HOST);
    if !matches!(call.to, CallTo::Endpoint(_)) {
        // From here they are judged as the client's own: kept of a trusted proxy, else replaced.
        for name in FORWARDED.iter().filter(|n| !call.fields.contains(n)) {
            for value in parent.request.fields.all(name) {
                request.fields.append(name, value);
            }
        }
    }
    x.body = Some(call.body.clone());
}

async fn body(forward: &mut Forward<NoBody>, watch: &Watch, limit: usize) -> Result<Vec<u8>, CallError> {
    let mut all = Vec::new();
    if let Framing::Length(n) = forward.meta.framing {
        if n > limit as u64 {
            return Err(CallError::TooLarge);
        }
        all.reserve_exact(n as usize);
    }
    loop {
        let read = std::future::poll_fn(|cx| forward.poll_data(cx, watch)).await;
        let n = read.map_err(|e| why(&ProxyError::Exchange(e)))?;
        if n == 0 {
            return Ok(all);
        }
        if all.len() + n > limit {
            return Err(CallError::TooLarge);
        }
        all.extend_from_slice(&forward.data()[..n]);
        forward.consume_data(n);
    }
}

fn why(error: &ProxyError) -> CallError {
    match error {
        ProxyError::NoTarget(NoTarget::NoPeer | NoTarget::Full) => CallError::TargetsDown,
        ProxyError::NoTarget(NoTarget::Name) => CallError::Unresolved,
        ProxyError::NoTarget(NoTarget::Private) => CallError::Private,
        ProxyError::Connect(ConnectError::Timeout)
        | ProxyError::Exchange(Failure::Timeout | Failure::Body(BodyError::Timeout)) => CallError::Timeout,
        ProxyError::Connect(_) => CallError::Unreachable,
        ProxyError::Exchange(_) => CallError::Broken,
    }
}

#[cfg(test)]
mod tests;
