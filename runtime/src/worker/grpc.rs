//! Requests of services that speak HTTP/2 (of protocol grpc and grpcs): both directions stream, and trailers pass.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::context::Worker;
use super::deadline::Watch;
use super::filtering::{Filtering, Pieces, collect};
use super::forward::Failure;
use super::h2::{self, Broken, H2Body, Handle, Manner, without_digests};
use super::held::Held;
use super::pipeline;
use super::proxy::{Kind, ProxyError};
use super::relay::known_length;
use super::request_body::{Origin, Source};
use super::respond::{self, Ending};
use super::upstream_h2::{self, Answer, patience};
use crate::exchange::Exchange;
use crate::http1::Framing;
use crate::http2::Code;
use crate::message::{Fields, names};
use crate::policy::reply;

/// As good as for ever, and still a time that can be added to another.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Serves a request whose service speaks HTTP/2.
pub async fn serve(
    worker: Rc<Worker>,
    handle: Handle,
    mut x: Held,
    body: H2Body,
    watch: Rc<Watch>,
    kind: Kind,
) {
    let limit = x.snapshot.gateway.limits.body;
    let origin = match x.body.clone() {
        Some(whole) => Origin::Whole(whole),
        None => Origin::Client(body),
    };
    let source = Source::new(origin, limit, Rc::clone(&watch), patience(&x));
    let answer = match upstream_h2::send(&worker, &mut x, &source, &watch, kind).await {
        Ok(answer) => answer,
        Err(error) => {
            source.end();
            worker.sink.proxy_error(&mut x, &error);
            let reply = error.reply(&x);
            return h2::own(&worker, &handle, x.release(), reply).await;
        }
    };
    respond::proxied_via(&mut x, "2 gw");
    if answer.is_over() {
        return h2::bodyless(&worker, &handle, x.release(), answer.request_bytes());
    }
    if pipeline::wants_body(&x) {
        return changed(&worker, &handle, x.release(), answer, &watch).await;
    }
    let framing = answer.length().map_or(Framing::Chunked, Framing::Length);
    let length = known_length(&x, framing);
    let filter = pipeline::filter(&mut x, length).map(Filtering::new);
    let length = answer.length().filter(|_| filter.is_none());
    let speaks_grpc = x.response.fields.get(&names::CONTENT_TYPE).is_some_and(reply::is_grpc);
    // A call may stay open for what may come, and its client may be as slow as it likes.
    let patience = match speaks_grpc {
        true => A_YEAR,
        false => x.snapshot.gateway.timeouts.write,
    };
    let from = Streamed { answer, speaks_grpc };
    let manner = Manner { filter, length, patience };
    h2::stream(worker, handle, x.release(), from, watch, manner).await;
}

/// Sends a request whose body is whole, and reads the answer whole: body and trailers. `None` for an answer of more than
/// `limit` bytes. How long it may take is the caller's to bound.
pub async fn whole(
    w: &Worker,
    x: &mut Exchange,
    body: Bytes,
    watch: Watch,
    limit: usize,
) -> Result<(Vec<u8>, Fields), Option<ProxyError>> {
    let watch = Rc::new(watch);
    let source = Source::new(Origin::Whole(body), 0, Rc::clone(&watch), patience(x));
    let kind = Kind { te_trailers: true, ..Kind::default() };
    let sent = upstream_h2::send(w, x, &source, &watch, kind).await;
    let mut answer = sent.map_err(|error| {
        source.end();
        Some(error)
    })?;
    let mut all = Vec::new();
    loop {
        let n = std::future::poll_fn(|cx| answer.poll_data(cx, &watch)).await;
        match n.map_err(|failure| Some(ProxyError::Exchange(failure)))? {
            0 => break,
            n if all.len() + n > limit => return Err(None),
            _ => all.extend_from_slice(&answer.take_piece()),
        }
    }
    answer.end();
    Ok((all, answer.take_trailers().unwrap_or_default()))
}

/// The answer where a policy changes its body.
async fn changed(worker: &Worker, handle: &Handle, mut x: Box<Exchange>, mut answer: Answer, watch: &Watch) {
    let limit = x.snapshot.gateway.limits.buffered_body;
    let collected = collect(&mut answer, watch, limit).await;
    let trailers = answer.take_trailers().map(without_digests);
    answer.end();
    let body = match collected {
        Ok(body) => pipeline::change_body(&mut x, body),
        Err(failure) => {
            let error = ProxyError::Exchange(failure);
            worker.sink.proxy_error(&mut x, &error);
            Err(error.reply(&x))
        }
    };
    let body = match body {
        Ok(body) => respond::filtered(&mut x, body.into()),
        Err(reply) => return h2::instead(worker, handle, x, reply).await,
    };
    let ending =
        Ending { request_bytes: answer.request_bytes(), response_bytes: body.len() as u64, broken: false };
    h2::whole(worker, handle, x, body, trailers, ending).await;
}

/// An answer that comes from an HTTP/2 upstream as it is sent.
struct Streamed {
    answer: Answer,
    speaks_grpc: bool,
}

impl Pieces for Streamed {
    fn poll_data(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Result<usize, Failure>> {
        self.answer.poll_data(cx, watch)
    }

    fn data(&self) -> &[u8] {
        self.answer.data()
    }

    fn consume_data(&mut self, n: usize) {
        self.answer.consume_data(n);
    }
}

impl h2::Source for Streamed {
    fn is_last(&self, n: usize) -> bool {
        self.answer.ends_with(n)
    }

    fn take_trailers(&mut self) -> Option<Fields> {
        self.answer.take_trailers()
    }

    fn poll_request(&mut self, _: &mut Context<'_>, _: &Watch) -> Result<(), Failure> {
        // The upstream's connection moves it.
        Ok(())
    }

    fn request_bytes(&self) -> u64 {
        self.answer.request_bytes()
    }

    fn broken(&mut self, x: &mut Exchange, failure: Failure) -> Broken {
        // A stream that the upstream takes back is taken back from the client for the same reason.
        let reset = self.answer.reset().map(|reason| Code(reason.into()));
        let (status, message) = match failure {
            Failure::Timeout => (reply::DEADLINE_EXCEEDED, "The upstream server is timing out".to_owned()),
            Failure::Reset(e) => {
                (reply::UNAVAILABLE, format!("The connection to the upstream server failed: {e}"))
            }
            other => (reply::UNAVAILABLE, ProxyError::Exchange(other).reason()),
        };
        x.keep(crate::telemetry::Why(message.clone()));
        match reset {
            Some(code) => Broken::Reset(code),
            // A call that breaks off can still say so in its own words.
            None if self.speaks_grpc => Broken::Trailers(reply::grpc_trailers(status, &message)),
            None => Broken::Reset(Code::INTERNAL_ERROR),
        }
    }

    fn end(mut self, _: &Worker) {
        self.answer.end();
    }
}
