//! An exchange with an upstream that speaks HTTP/2, seen from the gateway: the request on its way, and its answer as it
//! comes.

use std::error::Error as _;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::context::Worker;
use super::deadline::Watch;
use super::filtering::Pieces;
use super::forward::{Failure, Patience};
use super::pipeline;
use super::proxy::{Kind, ProxyError, tls_for};
use super::request_body::{RequestBody, Source, headers_of};
use crate::clock;
use crate::exchange::Exchange;
use crate::http1::trailers::may_trail;
use crate::message::Fields;
use crate::message::name::tag_of;
use crate::policy::{BodyError, reply};
use crate::snapshot::Service;
use crate::upstream::balance::InFlight;
use crate::upstream::h2::Lease;
use crate::upstream::target::{NoTarget, Target, Targets, To, host_header};

/// Connections that may turn out to have ended as an exchange was put on them, before that counts as a failure.
const STALE_MAX: u32 = 3;

/// How long either side of the exchange may be silent. The client of a gRPC call may pause for as long as its service:
/// calls that stay open for what may come are what streams are for.
pub fn patience(x: &Exchange) -> Patience {
    let least = Duration::from_millis(1);
    let timeouts = &x.snapshot.gateway.timeouts;
    let service = x.service.map(|s| &x.snapshot.services[s.0 as usize]);
    let upstream = super::relay::service_read_timeout(x).max(least);
    let write = service.map_or(timeouts.write, |s| s.write_timeout).max(least);
    let body = if reply::calls_grpc(&x.request) { upstream } else { timeouts.body };
    Patience { upstream, write, body }
}

/// What an exchange holds on to until it is over: its place on a connection, and its count at the target.
struct Hold {
    lease: Lease,
    _in_flight: Option<InFlight>,
}

/// Sends the request and waits for the head of the answer, which is then in `x.response`.
pub async fn send(
    w: &Worker,
    x: &mut Exchange,
    source: &Rc<Source>,
    watch: &Rc<Watch>,
    kind: Kind,
) -> Result<Answer, ProxyError> {
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
                source.forget();
                return Ok(Answer {
                    incoming,
                    source: Rc::clone(source),
                    hold: Some(Hold { lease, _in_flight: target.in_flight() }),
                    watch: Rc::clone(watch),
                    piece: Bytes::new(),
                    trailers: None,
                    waiting: false,
                    error: None,
                });
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
        None if source.awaits_client() => {
            Err(Failed::For(ProxyError::Exchange(Failure::Body(BodyError::Timeout))))
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
        .scheme(if service.tls.is_some() { "https" } else { "http" })
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

/// An upstream's answer as it comes.
pub struct Answer {
    incoming: Incoming,
    source: Rc<Source>,
    hold: Option<Hold>,
    watch: Rc<Watch>,
    /// What has arrived and was not used yet.
    piece: Bytes,
    trailers: Option<Fields>,
    /// The last look found nothing: the time runs.
    waiting: bool,
    error: Option<hyper::Error>,
}

impl Answer {
    /// Whether nothing more comes: no data, and no trailers.
    pub fn is_over(&self) -> bool {
        self.piece.is_empty() && self.trailers.is_none() && self.incoming.is_end_stream()
    }

    /// How long the body is, if that is known.
    pub fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// Whether `n` bytes, which are here, are the last, and nothing comes after them.
    pub fn ends_with(&self, n: usize) -> bool {
        n == self.piece.len() && self.trailers.is_none() && self.incoming.is_end_stream()
    }

    /// The data that arrived, all of it.
    pub fn take_piece(&mut self) -> Bytes {
        std::mem::take(&mut self.piece)
    }

    /// What came after the body.
    pub fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take().filter(|t| !t.is_empty())
    }

    /// Why the upstream took its stream back, if it did.
    pub fn reset(&self) -> Option<::h2::Reason> {
        let cause = self.error.as_ref().and_then(cause);
        cause.filter(|e| e.is_reset() && e.is_remote()).and_then(|e| e.reason())
    }

    /// Bytes of request body sent on.
    pub fn request_bytes(&self) -> u64 {
        self.source.sent()
    }

    /// Nobody wants the rest.
    pub fn end(&mut self) {
        self.source.end();
        self.hold = None;
        self.watch.disarm();
    }
}

impl Pieces for Answer {
    fn poll_data(&mut self, cx: &mut Context<'_>, _: &Watch) -> Poll<Result<usize, Failure>> {
        while self.piece.is_empty() {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.piece = data,
                    Err(frame) => self.trailers = Some(passed(&frame.into_trailers().unwrap_or_default())),
                },
                Poll::Ready(Some(Err(e))) => {
                    let failure = Failure::Reset(std::io::Error::other(reason(&e)));
                    self.error = Some(e);
                    return Poll::Ready(Err(failure));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(0)),
                Poll::Pending => {
                    // A client that takes nothing for a while is not the upstream's silence.
                    if !std::mem::replace(&mut self.waiting, true) {
                        self.watch.arm(self.source.patience());
                    }
                    if !self.watch.poll_over(cx) {
                        return Poll::Pending;
                    }
                    if let Some(hold) = &self.hold {
                        hold.lease.retire();
                    }
                    return Poll::Ready(Err(Failure::Timeout));
                }
            }
            self.waiting = false;
        }
        Poll::Ready(Ok(self.piece.len()))
    }

    fn data(&self) -> &[u8] {
        &self.piece
    }

    fn consume_data(&mut self, n: usize) {
        self.piece.advance(n);
    }
}

/// An upstream's trailers without the fields that are none.
fn passed(trailers: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in trailers {
        let name = name.as_str().as_bytes();
        let tag = tag_of(name);
        if may_trail(tag, name) {
            fields.push_tagged(tag, name, value.as_bytes());
        }
    }
    fields
}
