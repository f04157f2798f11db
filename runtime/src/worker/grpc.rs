//! An exchange with an upstream that speaks HTTP/2 (services of protocol grpc and grpcs): both directions stream, and
//! trailers pass.

use std::error::Error as _;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::context::Worker;
use super::deadline::Watch;
use super::forward::Failure;
use super::h2::{self, Broken, Outgoing};
use super::held::Held;
use super::pipeline;
use super::proxy::{Kind, ProxyError, tls_for};
use super::request_body::{Origin, RequestBody, Source, headers_of, trailers_of};
use super::respond::{self, Ending};
use super::source::H2Body;
use crate::clock;
use crate::exchange::Exchange;
use crate::message::{Fields, names};
use crate::policy::{BodyError, reply};
use crate::snapshot::{Scheme, Service};
use crate::upstream::balance::InFlight;
use crate::upstream::h2::Lease;
use crate::upstream::target::{NoTarget, Target, Targets, To, host_header};

/// Connections that may turn out to have ended as an exchange was put on them, before that counts as a failure.
const STALE_MAX: u32 = 3;

/// Serves a request whose service speaks HTTP/2.
pub async fn serve(
    worker: Rc<Worker>,
    mut x: Held,
    body: H2Body,
    watch: Watch,
    kind: Kind,
) -> Response<Outgoing> {
    let patience = super::relay::service_read_timeout(&x).max(Duration::from_millis(1));
    let watch = Rc::new(watch);
    let limit = x.snapshot.gateway.limits.body;
    let origin = match x.body.clone() {
        Some(whole) => Origin::Whole(whole),
        None => Origin::Client(body.into_incoming()),
    };
    let source = Source::new(origin, limit, Rc::clone(&watch), patience, x.snapshot.clone());
    let (incoming, hold) = match send(&worker, &mut x, &source, &watch, kind).await {
        Ok(sent) => sent,
        Err(error) => {
            source.end();
            worker.sink.proxy_error(&mut x, &error);
            let reply = error.reply(&x);
            return h2::answer(&worker, x.release(), reply);
        }
    };
    source.forget();
    respond::proxied_via(&mut x, "2 gw");
    let speaks_grpc = x.response.fields.get(&names::CONTENT_TYPE).is_some_and(reply::is_grpc);
    let mut streamed = Streamed {
        worker,
        x: Some(x.release()),
        incoming,
        source,
        hold: Some(hold),
        watch,
        patience,
        waiting: false,
        sent: 0,
        speaks_grpc,
    };
    if streamed.x.as_deref().is_some_and(pipeline::wants_body) {
        return changed(streamed).await;
    }
    let head = streamed.x.as_deref().map_or_else(|| Response::new(()), h2::head);
    if streamed.is_end_stream() {
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
    let patience = super::relay::service_read_timeout(x).max(Duration::from_millis(1));
    let source = Source::new(Origin::Whole(body), 0, Rc::clone(&watch), patience, x.snapshot.clone());
    let kind = Kind { te_trailers: true, ..Kind::default() };
    let sent = send(w, x, &source, &watch, kind).await;
    let (mut incoming, hold) = sent.map_err(|error| {
        source.end();
        Some(error)
    })?;
    watch.disarm();
    let (mut all, mut trailers) = (Vec::new(), Fields::default());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
        let frame = frame
            .map_err(|e| Some(ProxyError::Exchange(Failure::Reset(std::io::Error::other(reason(&e))))))?;
        match frame.into_data() {
            Ok(data) if all.len() + data.len() > limit => return Err(None),
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => {
                for (name, value) in &passed(&frame.into_trailers().unwrap_or_default()) {
                    trailers.push(name.as_str().as_bytes(), value.as_bytes());
                }
            }
        }
    }
    source.end();
    drop(hold);
    Ok((all, trailers))
}

/// What an exchange holds on to until it is over: its place on a connection, and its count at the target.
struct Hold {
    lease: Lease,
    _in_flight: Option<InFlight>,
}

/// Sends the request and waits for the head of the answer, which is then in `x.response`.
async fn send(
    w: &Worker,
    x: &mut Exchange,
    source: &Rc<Source>,
    watch: &Watch,
    kind: Kind,
) -> Result<(Incoming, Hold), ProxyError> {
    let snapshot = x.snapshot.clone();
    let Some(id) = x.service else { return Err(ProxyError::NoTarget(NoTarget::NoPeer)) };
    let service = &snapshot.services[id.0 as usize];
    pipeline::proxy_headers(x);
    w.retry_budget.request();
    let mut targets = Targets::default();
    let mut left = u32::from(service.retries);
    let mut stale = 0;
    let mut target = targets.next(w, x, To::service(service, id)).await.map_err(ProxyError::NoTarget)?;
    loop {
        match attempt(w, x, source, watch, kind, service, &target).await {
            Ok((response, lease)) => {
                let (parts, incoming) = response.into_parts();
                x.response.status = parts.status.as_u16();
                x.response.fields.clear();
                for (name, value) in &parts.headers {
                    x.response.fields.push(name.as_str().as_bytes(), value.as_bytes());
                }
                x.upstream.status = Some(x.response.status);
                target.answered(x);
                return Ok((incoming, Hold { lease, _in_flight: target.in_flight() }));
            }
            Err(Failed::Stale(_)) if stale < STALE_MAX => stale += 1,
            Err(Failed::Retry(error)) if left > 0 => {
                target.failed(&error);
                let reached = !matches!(error, ProxyError::Connect(_));
                if reached && !w.retry_budget.retry(clock::monotonic()) {
                    return Err(error);
                }
                left -= 1;
                target = targets.next(w, x, To::service(service, id)).await.map_err(|_| error)?;
            }
            Err(Failed::Stale(error) | Failed::Retry(error) | Failed::For(error)) => {
                target.failed(&error);
                return Err(error);
            }
        }
    }
}

enum Failed {
    /// The connection was ending; nothing was sent.
    Stale(ProxyError),
    /// The upstream has not looked at the request.
    Retry(ProxyError),
    For(ProxyError),
}

async fn attempt(
    w: &Worker,
    x: &mut Exchange,
    source: &Rc<Source>,
    watch: &Watch,
    kind: Kind,
    service: &Service,
    target: &Target,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let tls = service.tls.as_ref().map(|t| tls_for(t, target));
    x.upstream.addr = Some(target.addr);
    x.upstream.tries += 1;
    let lease =
        w.h2.lease(target.addr, tls.as_ref(), service.connect_timeout)
            .await
            .map_err(|e| Failed::Retry(ProxyError::Connect(e)))?;
    let Some(body) = source.body() else { return Err(Failed::For(ProxyError::Exchange(Failure::Closed))) };
    let request = request(x, service, target, kind, body)
        .map_err(|_| Failed::For(ProxyError::Exchange(Failure::Body(BodyError::Broken))))?;
    let began = clock::monotonic();
    x.upstream.began = Some(began);
    watch.arm_from(began, service.read_timeout.max(Duration::from_millis(1)));
    let mut sender = lease.sender();
    let mut answer = pin!(sender.try_send_request(request));
    let answered = std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if watch.poll_over(cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    match answered.await {
        Some(Ok(response)) => {
            x.upstream.first_byte = Some(clock::monotonic());
            Ok((response, lease))
        }
        Some(Err(mut error)) => {
            if error.take_message().is_some() {
                lease.retire();
                return Err(Failed::Stale(ProxyError::Exchange(Failure::Closed)));
            }
            let error = error.into_error();
            if let Some(fault) = source.fault() {
                return Err(Failed::For(ProxyError::Exchange(Failure::Body(fault))));
            }
            let unseen = unseen(&error);
            if unseen {
                lease.retire();
            }
            let failure = ProxyError::Exchange(Failure::Reset(std::io::Error::other(reason(&error))));
            Err(if unseen && source.is_whole() { Failed::Retry(failure) } else { Failed::For(failure) })
        }
        None => {
            // Slow or dead: nobody can tell, so the next exchange gets a connection of its own.
            lease.retire();
            Err(Failed::For(ProxyError::Exchange(Failure::Timeout)))
        }
    }
}

fn request(
    x: &Exchange,
    service: &Service,
    target: &Target,
    kind: Kind,
    body: RequestBody,
) -> Result<Request<RequestBody>, http::Error> {
    let path = match &x.request.query {
        Some(query) => format!("{}?{query}", x.upstream.path),
        None => x.upstream.path.clone(),
    };
    let uri = http::Uri::builder()
        .scheme(if service.scheme == Scheme::Grpcs { "https" } else { "http" })
        .authority(host_header(x, service, target))
        .path_and_query(path)
        .build()?;
    let mut request = Request::builder()
        .method(x.request.method.as_str())
        .uri(uri)
        .version(http::Version::HTTP_2)
        .body(body)?;
    let headers = request.headers_mut();
    headers_of(&x.request.fields, headers);
    if kind.te_trailers {
        headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    }
    Ok(request)
}

/// The HTTP/2 error behind an error of the connection.
fn cause(error: &hyper::Error) -> Option<&::h2::Error> {
    let mut source = error.source();
    while let Some(e) = source {
        if let Some(e) = e.downcast_ref() {
            return Some(e);
        }
        source = e.source();
    }
    None
}

/// Whether the upstream promises that it has not processed the request (RFC 9113 8.7).
fn unseen(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|e| {
        e.is_remote()
            && (e.is_reset() && e.reason() == Some(::h2::Reason::REFUSED_STREAM)
                || e.is_go_away() && e.reason() == Some(::h2::Reason::NO_ERROR))
    })
}

/// What happened, for the log.
fn reason(error: &hyper::Error) -> String {
    cause(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The answer where a policy changes its body.
async fn changed(mut s: Streamed) -> Response<Outgoing> {
    let limit = s.x.as_ref().map_or(0, |x| x.snapshot.gateway.limits.buffered_body);
    let mut all = Vec::new();
    let mut trailers = None;
    let failure = loop {
        match std::future::poll_fn(|cx| s.next(cx)).await {
            Piece::Data(data) if all.len() + data.len() > limit => {
                let reject = crate::http1::Reject::bad("the body is larger than a policy may hold");
                break Some(Failure::Malformed(reject));
            }
            Piece::Data(data) => all.extend_from_slice(&data),
            Piece::Trailers(t) => trailers = Some(t),
            Piece::End => break None,
            Piece::Timeout => break Some(Failure::Timeout),
            Piece::Failed(e) => break Some(Failure::Reset(std::io::Error::other(reason(&e)))),
        }
    };
    let worker = Rc::clone(&s.worker);
    let Some(mut x) = s.x.take() else { return Response::new(Outgoing::Full(Bytes::new())) };
    s.source.end();
    if let Some(failure) = failure {
        let error = ProxyError::Exchange(failure);
        worker.sink.proxy_error(&mut x, &error);
        let reply = error.reply(&x);
        return h2::answer_instead(&worker, x, reply);
    }
    let body = match pipeline::change_body(&mut x, all) {
        Ok(body) => body,
        Err(reply) => return h2::answer_instead(&worker, x, reply),
    };
    let ending = Ending { request_bytes: s.source.sent(), response_bytes: body.len() as u64, broken: false };
    respond::finish(&worker, &mut x, ending);
    let head = h2::head(&x);
    worker.recycle(x);
    head.map(|()| Outgoing::Whole(Bytes::from(body), trailers))
}

/// A response's body that comes from an HTTP/2 upstream as it is sent.
pub struct Streamed {
    worker: Rc<Worker>,
    /// Until the exchange is over.
    x: Option<Box<Exchange>>,
    incoming: Incoming,
    source: Rc<Source>,
    hold: Option<Hold>,
    watch: Rc<Watch>,
    patience: Duration,
    /// The last look found nothing: the time runs.
    waiting: bool,
    sent: u64,
    speaks_grpc: bool,
}

enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    Timeout,
    Failed(hyper::Error),
}

impl Streamed {
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        let piece = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(frame) => Piece::Trailers(passed(&frame.into_trailers().unwrap_or_default())),
            },
            Poll::Ready(Some(Err(e))) => Piece::Failed(e),
            Poll::Ready(None) => Piece::End,
            Poll::Pending => {
                // A client that takes nothing for a while is not the upstream's silence.
                if !std::mem::replace(&mut self.waiting, true) {
                    self.watch.arm(self.patience);
                }
                return match self.watch.poll_over(cx) {
                    true => Poll::Ready(Piece::Timeout),
                    false => Poll::Pending,
                };
            }
        };
        self.waiting = false;
        Poll::Ready(piece)
    }

    /// The next frame for the client.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.x.is_none() {
            return Poll::Ready(None);
        }
        let (status, message, broken) = match std::task::ready!(self.next(cx)) {
            Piece::Data(data) => {
                self.sent += data.len() as u64;
                if self.incoming.is_end_stream() {
                    self.end(false);
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Piece::Trailers(trailers) => {
                self.end(false);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            Piece::End => {
                self.end(false);
                return Poll::Ready(None);
            }
            Piece::Timeout => {
                if let Some(hold) = &self.hold {
                    hold.lease.retire();
                }
                let message = "The upstream server is timing out";
                (reply::DEADLINE_EXCEEDED, message.to_owned(), Broken::default())
            }
            Piece::Failed(e) => {
                // A stream that the upstream takes back is taken back from the client for the same reason.
                let reset = cause(&e).filter(|e| e.is_reset() && e.is_remote()).and_then(|e| e.reason());
                let message = format!("The connection to the upstream server failed: {}", reason(&e));
                (reply::UNAVAILABLE, message, Broken(reset.map(Into::into)))
            }
        };
        if let Some(x) = &mut self.x {
            x.keep(crate::telemetry::Why(message.clone()));
        }
        self.end(true);
        // A call that breaks off can still say so in its own words.
        if self.speaks_grpc && broken.0.is_none() {
            return Poll::Ready(Some(Ok(Frame::trailers(reply::grpc_trailers(status, &message)))));
        }
        Poll::Ready(Some(Err(broken)))
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.x.is_none() || self.incoming.is_end_stream()
    }

    /// How much comes yet.
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn end(&mut self, broken: bool) {
        let Some(mut x) = self.x.take() else { return };
        self.source.end();
        self.hold = None;
        self.watch.disarm();
        let ending = Ending { request_bytes: self.source.sent(), response_bytes: self.sent, broken };
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

/// An upstream's trailers without the fields that are none.
fn passed(trailers: &HeaderMap) -> HeaderMap {
    let mut fields = Fields::default();
    for (name, value) in trailers {
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    trailers_of(&fields)
}
