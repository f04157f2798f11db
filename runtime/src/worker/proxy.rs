//! Getting an answer from a service: which target, which connection, and what to do when one fails.

use std::sync::Arc;
use std::time::Duration;

use super::context::Worker;
use super::deadline::Watch;
use super::forward::{Failure, Forward, HeldBody, Patience};
use super::pipeline;
use super::source::BodySource;
use crate::clock;
use crate::exchange::Exchange;
use crate::http1::Framing;
use crate::http1::write::{self, UpstreamLine};
use crate::policy::{BodyError, Reply};
use crate::snapshot::Service;
use crate::tls::ClientTls;
use crate::upstream::connect::{ConnectError, connect};
use crate::upstream::pool::{Key, UpstreamConn};
use crate::upstream::target::{NoTarget, Target, Targets, To, host_header};

/// Why there is no answer from the service.
#[derive(Debug)]
pub enum ProxyError {
    NoTarget(NoTarget),
    Connect(ConnectError),
    Exchange(Failure),
}

impl ProxyError {
    /// The answer that Kong gives in this case.
    pub fn reply(&self, x: &Exchange) -> Reply {
        let (status, message) = match self {
            Self::NoTarget(NoTarget::NoPeer) => (503, "failure to get a peer from the ring-balancer"),
            Self::NoTarget(NoTarget::Full) => (503, "The upstream server is currently unavailable"),
            Self::NoTarget(NoTarget::Name | NoTarget::Private) => (503, "name resolution failed"),
            Self::Connect(ConnectError::Timeout) | Self::Exchange(Failure::Timeout) => {
                (504, "The upstream server is timing out")
            }
            Self::Exchange(Failure::Body(e)) => return body_reply(x, *e),
            Self::Connect(_) | Self::Exchange(_) => {
                (502, "An invalid response was received from the upstream server")
            }
        };
        match self {
            Self::NoTarget(_) => Reply::error(&x.request, x.request_id, status, message),
            _ => Reply::gateway_error(&x.request, x.request_id, status, message),
        }
    }

    /// For the log: what happened, without secrets.
    pub fn reason(&self) -> String {
        match self {
            Self::NoTarget(NoTarget::NoPeer) => "no target is available".to_owned(),
            Self::NoTarget(NoTarget::Full) => "the upstream's circuit breaker is open".to_owned(),
            Self::NoTarget(NoTarget::Name) => "the host name cannot be resolved".to_owned(),
            Self::NoTarget(NoTarget::Private) => "the host has an address that is not public".to_owned(),
            Self::Connect(e) => e.to_string(),
            Self::Exchange(Failure::Body(_)) => "the client's body broke off".to_owned(),
            Self::Exchange(Failure::Closed) => "the upstream closed the connection early".to_owned(),
            Self::Exchange(Failure::Reset(e)) => format!("the connection to the upstream failed: {e}"),
            Self::Exchange(Failure::Timeout) => "the upstream took too long".to_owned(),
            Self::Exchange(Failure::Malformed(r)) => {
                format!("the upstream's answer is malformed: {}", r.reason)
            }
        }
    }
}

/// The answer to a request whose own body failed.
pub fn body_reply(x: &Exchange, error: BodyError) -> Reply {
    let (status, message) = match error {
        BodyError::TooLarge => (413, "Payload too large"),
        BodyError::Timeout => (408, "Request timeout"),
        BodyError::NoRoom => return Reply::no_room(&x.request, x.request_id),
        BodyError::Broken => (400, "Bad request"),
    };
    Reply::gateway_error(&x.request, x.request_id, status, message).closing()
}

/// What kind of request it is, beyond its head.
#[derive(Clone, Copy, Default)]
pub struct Kind {
    pub websocket: bool,
    pub te_trailers: bool,
}

/// Sends the request and waits for the head of the answer, which is then in `x.response`.
pub async fn send<B: BodySource>(
    w: &Worker,
    x: &mut Exchange,
    body: B,
    watch: &Watch,
    kind: Kind,
) -> Result<Box<Forward<B>>, (B, ProxyError)> {
    let snapshot = x.snapshot.clone();
    let Some(id) = x.service else { return Err((body, ProxyError::NoTarget(NoTarget::NoPeer))) };
    let service = &snapshot.services[id.0 as usize];
    pipeline::proxy_headers(x);
    send_to(w, x, body, watch, kind, To::service(service, id)).await
}

/// [`send`] to somebody who is named, with the fields as they are.
pub async fn send_to<B: BodySource>(
    w: &Worker,
    x: &mut Exchange,
    mut body: B,
    watch: &Watch,
    kind: Kind,
    to: To<'_>,
) -> Result<Box<Forward<B>>, (B, ProxyError)> {
    let service = to.service;
    w.retry_budget.request();
    let mut targets = Targets::default();
    let mut left = u32::from(service.retries);
    loop {
        let target = match targets.next(w, x, to).await {
            Ok(t) => t,
            Err(e) => return Err((body, ProxyError::NoTarget(e))),
        };
        match attempt(w, x, body, watch, kind, service, &target).await {
            Ok(mut forward) => {
                target.answered(x);
                forward.in_flight = target.in_flight();
                return Ok(forward);
            }
            Err(fail) => {
                target.failed(&fail.error);
                body = fail.body;
                // A target that was never reached had no work from the try, so trying another costs no budget.
                let reached = !matches!(fail.error, ProxyError::Connect(_));
                if !fail.retry || left == 0 || (reached && !w.retry_budget.retry(clock::monotonic())) {
                    return Err((body, fail.error));
                }
                left -= 1;
            }
        }
    }
}

struct Failed<B> {
    body: B,
    error: ProxyError,
    retry: bool,
}

/// One target: first over pooled connections, which may have gone stale, then over a new one.
async fn attempt<B: BodySource>(
    w: &Worker,
    x: &mut Exchange,
    mut body: B,
    watch: &Watch,
    kind: Kind,
    service: &Service,
    target: &Target,
) -> Result<Box<Forward<B>>, Failed<B>> {
    let tls = service.tls.as_ref().map(|t| tls_for(t, target));
    let key = Key::new(target.addr, tls.as_ref());
    x.upstream.addr = Some(target.addr);
    let idle = x.snapshot.gateway.timeouts.upstream_idle;
    let pooled = if kind.websocket { None } else { w.pool.take(&key, idle) };
    if let Some(conn) = pooled {
        match exchange(x, body, conn, watch, kind, service, target).await {
            Ok(forward) => return Ok(forward),
            Err((b, failure, replayable)) => {
                body = b;
                // The upstream closed the idle connection as we used it: no answer, nothing lost.
                let stale = replayable && matches!(failure, Failure::Closed | Failure::Reset(_));
                if !stale {
                    return Err(failed(x, body, failure, replayable));
                }
            }
        }
    }
    x.upstream.tries += 1;
    let conn = match Box::pin(connect(target.addr, tls.as_ref(), service.connect_timeout)).await {
        Ok(conn) => conn,
        Err(error) => return Err(Failed { body, error: ProxyError::Connect(error), retry: true }),
    };
    match exchange(x, body, conn, watch, kind, service, target).await {
        Ok(forward) => Ok(forward),
        Err((body, failure, replayable)) => Err(failed(x, body, failure, replayable)),
    }
}

fn failed<B>(x: &Exchange, body: B, failure: Failure, replayable: bool) -> Failed<B> {
    let _ = x;
    let retry = replayable && matches!(failure, Failure::Closed | Failure::Reset(_) | Failure::Timeout);
    Failed { body, error: ProxyError::Exchange(failure), retry }
}

/// The TLS settings for one target: its name is the Host that it gets.
pub fn tls_for(tls: &ClientTls, target: &Target) -> ClientTls {
    match target.server_name() {
        Some(name) => ClientTls { config: Arc::clone(&tls.config), name: Arc::clone(name) },
        None => tls.clone(),
    }
}

/// Whether the request may be sent twice: its method promises that this changes nothing (Kong: POST, PATCH and LOCK
/// do not).
pub fn idempotent(method: &str) -> bool {
    !matches!(method, "POST" | "PATCH" | "LOCK")
}

async fn exchange<B: BodySource>(
    x: &mut Exchange,
    body: B,
    conn: UpstreamConn,
    watch: &Watch,
    kind: Kind,
    service: &Service,
    target: &Target,
) -> Result<Box<Forward<B>>, (B, Failure, bool)> {
    let patience = Patience {
        upstream: service.read_timeout.max(Duration::from_millis(1)),
        write: service.write_timeout.max(Duration::from_millis(1)),
        body: x.snapshot.gateway.timeouts.body,
    };
    let mut forward = Forward::new(conn, body, HeldBody::of(x), kind.websocket, patience);
    forward.gives_up = x.gives_up;
    let framing = forward.framing();
    let line = UpstreamLine {
        path: &x.upstream.path,
        query: x.request.query.as_deref(),
        host: host_header(x, service, target),
        framing,
        websocket: kind.websocket,
        te_trailers: kind.te_trailers,
        expect_continue: false,
    };
    write::request(forward.request_head(), &x.request, &line);
    let began = clock::monotonic();
    x.upstream.began = Some(began);
    watch.arm_from(began, if framing == Framing::None { patience.upstream } else { patience.body });
    let method = std::mem::take(&mut x.request.method);
    let response = &mut x.response;
    let result = std::future::poll_fn(|cx| forward.poll_head(cx, watch, &method, response)).await;
    x.request.method = method;
    match result {
        Ok(()) => {
            x.upstream.first_byte = Some(clock::monotonic());
            x.upstream.status = Some(x.response.status);
            Ok(forward)
        }
        Err(failure) => {
            // What is held can be sent again; what came after it is gone.
            let untouched = (x.body.is_some() && !x.body_goes_on) || forward.body.untouched();
            let replayable = untouched && !forward.answered && idempotent(&x.request.method);
            let (body, _) = forward.finish();
            Err((body, failure, replayable))
        }
    }
}
