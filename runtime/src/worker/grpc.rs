//! Requests of services that speak HTTP/2 (of protocol grpc and grpcs): both directions stream, and trailers pass.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::Response;

use super::context::Worker;
use super::deadline::Watch;
use super::filtering::{Filtering, Pieces as _, collect};
use super::forward::Failure;
use super::h2::{self, Broken, Outgoing};
use super::held::Held;
use super::pipeline;
use super::proxy::{Kind, ProxyError};
use super::relay::known_length;
use super::request_body::{Origin, Source, without_digests};
use super::respond::{self, Ending};
use super::source::H2Body;
use super::upstream_h2::{self, Answer, patience};
use crate::exchange::Exchange;
use crate::http1::Framing;
use crate::message::{Fields, names};
use crate::policy::reply;

/// Serves a request whose service speaks HTTP/2.
pub async fn serve(
    worker: Rc<Worker>,
    mut x: Held,
    body: H2Body,
    watch: Watch,
    kind: Kind,
) -> Response<Outgoing> {
    let watch = Rc::new(watch);
    let limit = x.snapshot.gateway.limits.body;
    let origin = match x.body.clone() {
        Some(whole) => Origin::Whole(whole),
        None => Origin::Client(body.into_incoming()),
    };
    let source = Source::new(origin, limit, Rc::clone(&watch), patience(&x), x.snapshot.clone());
    let answer = match upstream_h2::send(&worker, &mut x, &source, &watch, kind).await {
        Ok(answer) => answer,
        Err(error) => {
            source.end();
            worker.sink.proxy_error(&mut x, &error);
            let reply = error.reply(&x);
            return h2::answer(&worker, x.release(), reply);
        }
    };
    respond::proxied_via(&mut x, "2 gw");
    if !answer.is_over() && pipeline::wants_body(&x) {
        return changed(worker, x.release(), answer, watch).await;
    }
    let framing = match (answer.is_over(), answer.length()) {
        (true, _) => Framing::None,
        (false, Some(n)) => Framing::Length(n),
        (false, None) => Framing::Chunked,
    };
    let length = known_length(&x, framing);
    let filter = pipeline::filter(&mut x, length).filter(|_| !answer.is_over()).map(Filtering::new);
    let speaks_grpc = x.response.fields.get(&names::CONTENT_TYPE).is_some_and(reply::is_grpc);
    let head = h2::head(&x);
    let mut streamed = Streamed { worker, x: Some(x.release()), answer, filter, watch, sent: 0, speaks_grpc };
    if streamed.answer.is_over() {
        streamed.end(false);
    }
    head.map(|()| Outgoing::Grpc(Box::new(streamed)))
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
    let source = Source::new(Origin::Whole(body), 0, Rc::clone(&watch), patience(x), x.snapshot.clone());
    let kind = Kind { te_trailers: true, ..Kind::default() };
    let sent = upstream_h2::send(w, x, &source, &watch, kind).await;
    let mut answer = sent.map_err(|error| {
        source.end();
        Some(error)
    })?;
    let (mut all, mut trailers) = (Vec::new(), Fields::default());
    loop {
        let n = std::future::poll_fn(|cx| answer.poll_data(cx, &watch)).await;
        match n.map_err(|failure| Some(ProxyError::Exchange(failure)))? {
            0 => break,
            n if all.len() + n > limit => return Err(None),
            _ => all.extend_from_slice(&answer.take_piece()),
        }
    }
    for (name, value) in &answer.take_trailers().unwrap_or_default() {
        trailers.push(name.as_str().as_bytes(), value.as_bytes());
    }
    answer.end();
    Ok((all, trailers))
}

/// The answer where a policy changes its body.
async fn changed(
    worker: Rc<Worker>,
    mut x: Box<Exchange>,
    mut answer: Answer,
    watch: Rc<Watch>,
) -> Response<Outgoing> {
    let limit = x.snapshot.gateway.limits.buffered_body;
    let collected = collect(&mut answer, &watch, limit).await;
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
        Err(reply) => return h2::answer_instead(&worker, x, reply),
    };
    let ending =
        Ending { request_bytes: answer.request_bytes(), response_bytes: body.len() as u64, broken: false };
    respond::finish(&worker, &mut x, ending);
    let head = h2::head(&x);
    worker.recycle(x);
    head.map(|()| Outgoing::Whole(body, trailers))
}

/// A response's body that comes from an HTTP/2 upstream as it is sent.
pub struct Streamed {
    worker: Rc<Worker>,
    /// Until the exchange is over.
    x: Option<Box<Exchange>>,
    answer: Answer,
    filter: Option<Filtering>,
    watch: Rc<Watch>,
    sent: u64,
    speaks_grpc: bool,
}

impl Streamed {
    /// The next frame for the client.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.x.is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(match std::task::ready!(self.poll_piece(cx)) {
            Ok(Some(data)) => {
                self.sent += data.len() as u64;
                if self.is_over() {
                    self.end(false);
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(None) => {
                let trailers = self.answer.take_trailers();
                let trailers = if self.filter.is_some() { trailers.map(without_digests) } else { trailers };
                self.end(false);
                trailers.map(|t| Ok(Frame::trailers(t)))
            }
            Err(failure) => Some(self.broken(failure)),
        })
    }

    /// More of the body as the client is to get it; `None` at its end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let Some(filter) = &mut self.filter else {
            let polled = self.answer.poll_data(cx, &self.watch);
            return polled.map_ok(|n| (n > 0).then(|| self.answer.take_piece()));
        };
        if filter.is_over() {
            return Poll::Ready(Ok(None));
        }
        let polled = filter.poll(&mut self.answer, cx, &self.watch);
        polled.map_ok(|some| some.then(|| Bytes::copy_from_slice(filter.out())))
    }

    /// Whether nothing more comes, trailers neither.
    fn is_over(&self) -> bool {
        self.answer.is_over() && self.filter.as_ref().is_none_or(Filtering::is_over)
    }

    fn broken(&mut self, failure: Failure) -> Result<Frame<Bytes>, Broken> {
        // A stream that the upstream takes back is taken back from the client for the same reason.
        let broken = Broken(self.answer.reset().map(Into::into));
        let (status, message) = match failure {
            Failure::Timeout => (reply::DEADLINE_EXCEEDED, "The upstream server is timing out".to_owned()),
            Failure::Reset(e) => {
                (reply::UNAVAILABLE, format!("The connection to the upstream server failed: {e}"))
            }
            other => (reply::UNAVAILABLE, ProxyError::Exchange(other).reason()),
        };
        if let Some(x) = &mut self.x {
            x.keep(crate::telemetry::Why(message.clone()));
        }
        self.end(true);
        // A call that breaks off can still say so in its own words.
        match self.speaks_grpc && broken.0.is_none() {
            true => Ok(Frame::trailers(reply::grpc_trailers(status, &message))),
            false => Err(broken),
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.x.is_none()
    }

    /// How much comes yet.
    pub fn size_hint(&self) -> SizeHint {
        match (&self.filter, self.answer.length()) {
            (None, Some(n)) => SizeHint::with_exact(n),
            _ => SizeHint::default(),
        }
    }

    fn end(&mut self, broken: bool) {
        let Some(mut x) = self.x.take() else { return };
        self.answer.end();
        let ending = Ending { request_bytes: self.answer.request_bytes(), response_bytes: self.sent, broken };
        respond::finish(&self.worker, &mut x, ending);
        self.worker.recycle(x);
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // The client gave up before the end.
        self.end(true);
    }
}
