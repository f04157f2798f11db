//! An HTTP/2 client connection. hyper speaks the protocol; each stream goes the same way as an HTTP/1 request.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::context::Worker;
use super::deadline::Watch;
use super::filtering::{Filtering, collect};
use super::forward::{Failure, Forward};
use super::grpc;
use super::guard::Guarded;
use super::held::Held;
use super::io::Io;
use super::pipeline::{self, Decision};
use super::proxy::{self, Kind};
use super::relay::known_length;
use super::request_body::{headers_of, trailers_of, without_digests};
use super::respond::{self, Ending};
use super::source::{BodySource as _, H2Body};
use super::websocket;
use crate::exchange::{Client, Exchange};
use crate::http1::{Buffer, Framing, request as h1};
use crate::message::{Version, names};
use crate::policy::{BodyError, Reply, reply};

/// Runs futures that stay on their thread.
#[derive(Clone, Copy)]
pub struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, io: Io, before: Buffer, client: Client) {
    let snapshot = worker.snapshot();
    let limits = &snapshot.gateway.limits;
    let mut builder = hyper::server::conn::http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_frame_size(16 * 1024)
        .max_header_list_size(limits.header_bytes.min(64 * 1024) as u32)
        .max_send_buf_size(64 * 1024)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    if snapshot.gateway.websocket_over_http2 {
        builder.enable_connect_protocol();
    }
    drop(snapshot);
    let client = Rc::new(RefCell::new(client));
    let service = {
        let worker = Rc::clone(&worker);
        service_fn(move |request| {
            let worker = Rc::clone(&worker);
            let client = {
                let mut c = client.borrow_mut();
                c.connection_requests += 1;
                c.clone()
            };
            // Boxed, because hyper hands it from hand to hand before it runs.
            let stream = Box::pin(stream(worker, client, request));
            async move { Ok::<_, Infallible>(stream.await) }
        })
    };
    let connection = builder.serve_connection(TokioIo::new(Guarded::new(io, before)), service);
    tokio::pin!(connection);
    let drained = async {
        match worker.draining.get() {
            // It began while the worker drains: its first request is likely on its way.
            true => tokio::time::sleep(super::deadline::FRESH).await,
            false => worker.drain.notified().await,
        }
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = drained => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// One stream: a request and its response.
async fn stream(worker: Rc<Worker>, client: Client, mut request: Request<Incoming>) -> Response<Outgoing> {
    let connect = *request.method() == http::Method::CONNECT;
    let upgrade = connect.then(|| hyper::upgrade::on(&mut request));
    let mut x = Held::new(Rc::clone(&worker), worker.exchange(&client));
    let (parts, incoming) = request.into_parts();
    let kind = match read_head(&mut x, &parts) {
        Ok(kind) => kind,
        Err((status, message)) => {
            let reply = Reply::gateway_error(&x.request, x.request_id, status, message);
            return answer(&worker, x.release(), reply);
        }
    };
    let watch = worker.deadlines.watch();
    let snapshot = x.snapshot.clone();
    let limit = snapshot.gateway.limits.body;
    let mut body = H2Body::new(incoming, limit, snapshot.clone());
    if let Framing::Length(n) = body.framing()
        && limit > 0
        && n > limit
    {
        let reply = proxy::body_reply(&x, BodyError::TooLarge);
        return answer(&worker, x.release(), reply);
    }
    if let Some(upgrade) = upgrade {
        return Box::pin(websocket::serve(worker, x, body, watch, kind, upgrade)).await;
    }
    let decision = pipeline::run(&worker, &mut x, &mut body).await;
    let forward = match decision {
        Decision::Reply(reply) => return answer(&worker, x.release(), reply),
        // Boxed, so that what only some services need makes no other request larger.
        Decision::Proxy if pipeline::speaks_h2(&x) => {
            return Box::pin(grpc::serve(worker, x, body, watch, kind)).await;
        }
        Decision::Proxy => match proxy::send(&worker, &mut x, body, &watch, kind).await {
            Ok(forward) => forward,
            Err((_, error)) => {
                worker.sink.proxy_error(&mut x, &error);
                let reply = error.reply(&x);
                return answer(&worker, x.release(), reply);
            }
        },
    };
    deliver(worker, x, forward, watch).await
}

/// An upstream's answer, on its way to the client.
pub async fn deliver(
    worker: Rc<Worker>,
    mut x: Held,
    mut forward: Box<Forward<H2Body>>,
    watch: Watch,
) -> Response<Outgoing> {
    respond::proxied(&mut x);
    if pipeline::wants_body(&x) && forward.meta.framing != Framing::None {
        return match collect(&mut *forward, &watch, x.snapshot.gateway.limits.buffered_body).await {
            Ok(body) => {
                let body = respond::changed(&mut x, body);
                let sent = body.len() as u64;
                let ending =
                    Ending { request_bytes: forward.request_bytes(), response_bytes: sent, broken: false };
                let trailers = forward.trailers().filter(|_| !x.local_response);
                give_back(&worker, forward);
                match trailers.map(|t| without_digests(trailers_of(&t))) {
                    None => finished(&worker, x.release(), body, ending),
                    Some(trailers) => {
                        let mut x = x.release();
                        respond::finish(&worker, &mut x, ending);
                        let head = head(&x);
                        worker.recycle(x);
                        head.map(|()| Outgoing::Whole(body, Some(trailers)))
                    }
                }
            }
            Err(failure) => {
                let error = proxy::ProxyError::Exchange(failure);
                worker.sink.proxy_error(&mut x, &error);
                let reply = error.reply(&x);
                answer_instead(&worker, x.release(), reply)
            }
        };
    }
    let length = known_length(&x, forward.meta.framing);
    let filter = pipeline::filter(&mut x, length).map(Filtering::new);
    if forward.response_done() {
        let ending = Ending { request_bytes: forward.request_bytes(), ..Ending::default() };
        give_back(&worker, forward);
        return finished(&worker, x.release(), Bytes::new(), ending);
    }
    let mut response = head(&x);
    let length = match forward.meta.framing {
        Framing::Length(n) if filter.is_none() => {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, n.into());
            Some(n)
        }
        _ => None,
    };
    let streamed =
        Streamed { worker, x: Some(x.release()), forward: Some(forward), watch, filter, length, sent: 0 };
    response.map(|()| Outgoing::Stream(Box::new(streamed)))
}

/// Brings an HTTP/2 head into the canonical form, refusing what RFC 9113 or our limits refuse.
fn read_head(x: &mut Exchange, parts: &http::request::Parts) -> Result<Kind, (u16, &'static str)> {
    let snapshot = x.snapshot.clone();
    let limits = &snapshot.gateway.limits;
    let request = &mut x.request;
    request.clear();
    request.version = Version::H2;
    let mut kind = Kind::default();
    request.method.push_str(match parts.method.as_str() {
        "CONNECT" => websocket::method(parts, &snapshot.gateway, &mut kind)?,
        "TRACE" => return Err((405, "Method not allowed")),
        other => {
            h1::check_method(other.as_bytes()).map_err(|r| (r.status, "Bad request"))?;
            other
        }
    });
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    if target.len() > limits.uri {
        return Err((414, "URI too long"));
    }
    if !target.starts_with('/') || !crate::http1::scan::is_target(target.as_bytes()) {
        return Err((400, "Bad request"));
    }
    h1::set_target(request, target.as_bytes());
    let mut host_fields = parts.headers.get_all(http::header::HOST).iter().map(|h| h.as_bytes());
    let host_field = host_fields.next();
    if host_fields.next().is_some() {
        return Err((400, "Bad request"));
    }
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    let host = match (authority, host_field) {
        // RFC 9113 8.3.1: they must not differ.
        (Some(a), Some(h)) if !a.eq_ignore_ascii_case(h) => return Err((400, "Bad request")),
        (Some(a), _) => a,
        (None, Some(h)) => h,
        (None, None) => return Err((400, "Bad request")),
    };
    h1::set_host(&mut request.host, host).map_err(|r| (r.status, "Bad request"))?;
    if parts.headers.len() > limits.header_count {
        return Err((431, "Request header or cookie too large"));
    }
    if parts.headers.get_all(http::header::AUTHORIZATION).iter().nth(1).is_some() {
        return Err((400, "Bad request"));
    }
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in &parts.headers {
        match *name {
            http::header::HOST => {}
            // Crumbs of one Cookie field (RFC 9113 8.2.3).
            http::header::COOKIE => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value.as_bytes());
            }
            http::header::EXPECT if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                return Err((417, "Expectation failed"));
            }
            http::header::TE => kind.te_trailers = value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            _ => request.fields.push(name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        request.fields.append(&names::COOKIE, &cookies);
    }
    Ok(kind)
}

/// The gateway's own answer in place of an upstream's whose body is no good.
pub fn answer_instead(worker: &Rc<Worker>, mut x: Box<Exchange>, reply: Reply) -> Response<Outgoing> {
    let reply = if reply::calls_grpc(&x.request) { reply.into_grpc() } else { reply };
    let body = respond::instead(&mut x, reply);
    let ending = Ending { response_bytes: body.len() as u64, ..Ending::default() };
    finished(worker, x, body, ending)
}

/// The gateway's own answer.
pub fn answer(worker: &Rc<Worker>, mut x: Box<Exchange>, reply: Reply) -> Response<Outgoing> {
    let reply = if reply::calls_grpc(&x.request) { reply.into_grpc() } else { reply };
    let body = respond::local(&mut x, reply);
    let ending = Ending { response_bytes: body.len() as u64, ..Ending::default() };
    finished(worker, x, body, ending)
}

fn finished(worker: &Rc<Worker>, mut x: Box<Exchange>, body: Bytes, ending: Ending) -> Response<Outgoing> {
    respond::finish(worker, &mut x, ending);
    let mut response = head(&x);
    let head_only = x.request.method == "HEAD";
    if head_only && let Some(n) = x.response.fields.get(&names::CONTENT_LENGTH) {
        if let Ok(n) = http::HeaderValue::from_bytes(n) {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, n);
        }
    } else if !head_only && !matches!(x.response.status, 204 | 304) {
        response.headers_mut().insert(http::header::CONTENT_LENGTH, body.len().into());
    }
    worker.recycle(x);
    let body = if head_only { Bytes::new() } else { body };
    response.map(|()| Outgoing::Full(body))
}

/// The response's head in hyper's form, without fields of one connection only.
pub fn head(x: &Exchange) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() =
        http::StatusCode::from_u16(x.response.status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    headers_of(&x.response.fields, response.headers_mut());
    response
}

fn give_back(worker: &Worker, forward: Box<Forward<H2Body>>) {
    if let (_, Some(conn)) = forward.finish() {
        worker.pool.put(conn);
    }
}

/// A response's body.
pub enum Outgoing {
    Full(Bytes),
    Stream(Box<Streamed>),
    /// From an HTTP/2 upstream.
    Grpc(Box<grpc::Streamed>),
    /// A body that a policy has changed, and its trailers.
    Whole(Bytes, Option<http::HeaderMap>),
    /// A body that has broken off, and how many turns its stream is left alone before it is reset.
    Ended(Broken, u8),
}

/// A reset overtakes what was not written yet, the response's head among it. So many turns later the connection has had
/// its own and has written that.
const TURNS_BEFORE_RESET: u8 = 2;

/// A body that comes from an upstream as it is sent.
pub struct Streamed {
    worker: Rc<Worker>,
    x: Option<Box<Exchange>>,
    forward: Option<Box<Forward<H2Body>>>,
    watch: Watch,
    filter: Option<Filtering>,
    length: Option<u64>,
    sent: u64,
}

/// An upstream's body that broke off: the stream is reset, so that the client can tell.
#[derive(Debug, Default)]
pub struct Broken(pub Option<::h2::Error>);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the upstream's body broke off")
    }
}

impl std::error::Error for Broken {
    /// What the stream is reset with.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|e| e as _)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let frame = match this {
            Self::Stream(s) => std::task::ready!(s.poll(cx)),
            Self::Grpc(s) => std::task::ready!(s.poll(cx)),
            _ => return this.poll_whole(cx),
        };
        match frame {
            Some(Err(broken)) => {
                *this = Self::Ended(broken, TURNS_BEFORE_RESET);
                this.poll_whole(cx)
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(s) => s.forward.is_none(),
            Self::Grpc(s) => s.is_end_stream(),
            Self::Whole(bytes, trailers) => bytes.is_empty() && trailers.is_none(),
            Self::Ended(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Grpc(s) => s.size_hint(),
            Self::Whole(bytes, None) => SizeHint::with_exact(bytes.len() as u64),
            // With a length, some clients take the body's end for that of all.
            Self::Whole(..) | Self::Ended(..) => SizeHint::default(),
            Self::Stream(s) => s.length.map_or_else(SizeHint::default, |n| SizeHint::with_exact(n - s.sent)),
        }
    }
}

impl Outgoing {
    /// The next frame of what does not come from an upstream any more.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Full(bytes) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Whole(bytes, _) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Whole(_, trailers) => Poll::Ready(trailers.take().map(|t| Ok(Frame::trailers(t)))),
            Self::Ended(broken, 0) => Poll::Ready(Some(Err(std::mem::take(broken)))),
            Self::Ended(_, turns) => {
                *turns -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Full(_) | Self::Stream(_) | Self::Grpc(_) => Poll::Ready(None),
        }
    }
}

/// Largest piece handed to HTTP/2 at once.
const PIECE: usize = 64 * 1024;

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(forward) = &mut self.forward else { return Poll::Ready(None) };
        if let Some(filter) = &mut self.filter {
            if filter.is_over() {
                return Poll::Ready(self.end_filtered());
            }
            let polled = filter.poll(&mut **forward, cx, &self.watch);
            let piece = polled.map_ok(|some| some.then(|| Bytes::copy_from_slice(filter.out())));
            let over = filter.is_over();
            return self.filtered(piece, over);
        }
        match forward.poll_data(cx, &self.watch) {
            Poll::Ready(Ok(0)) => {
                let trailers = forward.trailers();
                self.end(false);
                Poll::Ready(trailers.map(|t| Ok(Frame::trailers(trailers_of(&t)))))
            }
            Poll::Ready(Ok(n)) => {
                let n = n.min(PIECE);
                let piece = Bytes::copy_from_slice(&forward.data()[..n]);
                forward.consume_data(n);
                self.sent += n as u64;
                if forward.response_done() {
                    self.end(false);
                } else if let Some(x) = &self.x {
                    self.watch.arm(super::relay::service_read_timeout(x));
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(Err(_)) => {
                self.end(true);
                Poll::Ready(Some(Err(Broken(None))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn filtered(
        &mut self,
        polled: Poll<Result<Option<Bytes>, Failure>>,
        over: bool,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match std::task::ready!(polled) {
            Ok(piece) => {
                let Some(piece) = piece else { return Poll::Ready(self.end_filtered()) };
                self.sent += piece.len() as u64;
                if over && self.forward.as_ref().is_none_or(|f| f.trailers().is_none()) {
                    self.end(false);
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(_) => {
                self.end(true);
                Poll::Ready(Some(Err(Broken(None))))
            }
        }
    }

    /// The end of a body that was changed, and what comes after it.
    fn end_filtered(&mut self) -> Option<Result<Frame<Bytes>, Broken>> {
        let trailers = self.forward.as_ref().and_then(|f| f.trailers());
        self.end(false);
        trailers.map(|t| Ok(Frame::trailers(without_digests(trailers_of(&t)))))
    }

    fn end(&mut self, broken: bool) {
        let (Some(forward), Some(mut x)) = (self.forward.take(), self.x.take()) else { return };
        let ending = Ending { request_bytes: forward.request_bytes(), response_bytes: self.sent, broken };
        respond::finish(&self.worker, &mut x, ending);
        give_back(&self.worker, forward);
        self.worker.recycle(x);
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // The client gave up before the end.
        self.end(true);
    }
}
