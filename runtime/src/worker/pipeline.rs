//! From a parsed request to a decision: route, policies, and what the upstream is to be asked.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use super::context::Worker;
use super::proxy;
use super::source::{BodySource, collect, collect_some};
use crate::effect::call;
use crate::exchange::Exchange;
use crate::http1::Framing;
use crate::message::{FieldName, RequestHead, Version, names, split_port};
use crate::overload;
use crate::policy::{Answer, BodyError, BodyFilter, Effect, Flow, Reply, Step, reply};
use crate::route::normalise::normalise;
use crate::route::upstream_path::{forwarded_prefix, upstream_path};
use crate::route::{Match, Query};
use crate::snapshot::{ChainId, RouteId};

/// What is to happen with a request.
pub enum Decision {
    /// Ask the service that the exchange names.
    Proxy,
    Reply(Reply),
}

/// Runs everything that comes before the upstream.
pub async fn run<B: BodySource>(w: &Rc<Worker>, x: &mut Exchange, body: &mut B) -> Decision {
    if overload::is_full() {
        return Decision::Reply(Reply::no_room(&x.request, x.request_id));
    }
    match prepare(x) {
        Ok(chain) => {
            if let Some(chain) = chain
                && let Some(reply) = policies(w, x, chain, body).await
            {
                return Decision::Reply(reply);
            }
        }
        Err(reply) => return Decision::Reply(reply),
    }
    if x.service.is_none() {
        let reply = Reply::error(&x.request, x.request_id, 503, "no Service found with those values");
        return Decision::Reply(reply);
    }
    if x.request.version != Version::H2 && takes_grpc(x) {
        return Decision::Reply(needs_h2(x));
    }
    if holds(x, body)
        && let Err(error) = Box::pin(hold(x, body)).await
    {
        return Decision::Reply(proxy::body_reply(x, error));
    }
    Decision::Proxy
}

/// Whether a body's beginning is to be waited for: so that a slow client keeps no target busy, and so that a request that
/// may be sent twice can be. Bodies that are known to be longer than may be held are streamed whatever the route says:
/// memory is for many requests. So are calls, whose messages come one by one.
fn holds<B: BodySource>(x: &Exchange, body: &B) -> bool {
    let framing = body.framing();
    if framing == Framing::None || x.body.is_some() {
        return false;
    }
    let Some(route) = x.route.map(|r| &x.snapshot.routes[r.0 as usize]) else { return false };
    let room = x.snapshot.gateway.limits.request_buffer;
    let may_wait = route.request_buffering && room > 0 && !speaks_h2(x) && !reply::calls_grpc(&x.request);
    may_wait && !matches!(framing, Framing::Length(n) if n > room as u64)
}

/// Waits for it.
async fn hold<B: BodySource>(x: &mut Exchange, body: &mut B) -> Result<(), BodyError> {
    if let Framing::Length(length) = body.framing()
        && !proxy::idempotent(&x.request.method)
    {
        // Mostly it is on its way with the head, and goes on without a copy.
        let here = std::future::poll_fn(|cx| match body.poll_fill(cx) {
            Poll::Ready(here) => Poll::Ready(here.map(|_| ())),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        here.await?;
        if body.data().len() as u64 >= length {
            return Ok(());
        }
    }
    let (beginning, is_whole) = collect_some(body, x.snapshot.gateway.limits.request_buffer).await?;
    (x.body, x.body_goes_on) = (Some(beginning), !is_whole);
    Ok(())
}

/// Whether the service is spoken to over HTTP/2.
#[inline]
pub fn speaks_h2(x: &Exchange) -> bool {
    x.service.is_some_and(|s| x.snapshot.services[s.0 as usize].http2)
}

/// Whether the service takes gRPC calls alone.
fn takes_grpc(x: &Exchange) -> bool {
    x.service.is_some_and(|s| x.snapshot.services[s.0 as usize].is_grpc())
}

/// The answer to an HTTP/1 client of a service that takes HTTP/2 alone.
fn needs_h2(x: &Exchange) -> Reply {
    Reply::error(&x.request, x.request_id, 426, "Please use HTTP2 protocol")
        .field(names::CONNECTION, "Upgrade")
        .field(names::UPGRADE, "HTTP/2")
}

/// Cleans the request, finds its route and checks what Kong checks after the match.
fn prepare(x: &mut Exchange) -> Result<Option<ChainId>, Reply> {
    if let Some(reply) = challenge_answer(x) {
        return Err(reply);
    }
    #[cfg(debug_assertions)]
    crate::panics::on_purpose(&x.request.raw_path);
    real_ip(x);
    x.snapshot.stripped_headers.strip(&mut x.request.fields);
    if let Err(error) = normalise(&x.request.raw_path, &mut x.request.path) {
        x.keep(crate::telemetry::Why(error.to_string()));
        let reply = Reply::gateway_error(&x.request, x.request_id, 400, "Bad request");
        return Err(reply.closing());
    }
    let Some(found) = find_route(x) else {
        return Err(Reply::error(&x.request, x.request_id, 404, "no Route matched with those values"));
    };
    let id = RouteId(found.route);
    x.route = Some(id);
    x.matched_len = found.matched_len;
    x.captures = found.captures;
    let snapshot = x.snapshot.clone();
    let route = &snapshot.routes[id.0 as usize];
    x.service = route.service;
    after_match(x, route)?;
    let base = route.service.map_or("/", |s| snapshot.services[s.0 as usize].path.as_str());
    let path = &mut x.upstream.path;
    upstream_path(base, &x.request.path, x.matched_len, route.strip_path, route.path_handling_v1, path);
    Ok(Some(route.chain))
}

/// The answer to who checks a challenge of ours over HTTP: on plain listeners, and for no token but those that are
/// pending, so that no path is taken from a route for longer than that.
fn challenge_answer(x: &Exchange) -> Option<Reply> {
    let acme = x.snapshot.acme.as_ref().filter(|_| !x.client.tls)?;
    let answer = acme.certificates.answer(&x.request.raw_path)?;
    matches!(x.request.method.as_str(), "GET" | "HEAD")
        .then(|| Reply::with_body(200, "application/octet-stream", answer))
}

fn find_route(x: &Exchange) -> Option<Match> {
    let (name, port) = split_port(&x.request.host);
    let lower;
    let host = if name.bytes().any(|b| b.is_ascii_uppercase()) {
        lower = name.to_ascii_lowercase();
        lower.as_str()
    } else {
        name
    };
    x.snapshot.router.find(&Query {
        method: &x.request.method,
        host,
        port: port.unwrap_or(x.client.local.port()),
        path: &x.request.path,
        query: x.request.query.as_deref().unwrap_or(""),
        fields: &x.request.fields,
        sni: x.client.tls.then(|| x.client.sni.as_deref().unwrap_or("")),
        source: SocketAddr::new(x.client.ip, x.client.peer.port()),
        destination: x.client.local,
    })
}

/// Kong checks a route's protocols only after the match.
fn after_match(x: &Exchange, route: &crate::snapshot::Route) -> Result<(), Reply> {
    let p = route.protocols;
    if p.https && !p.http && x.forwarded_scheme() != "https" {
        return Err(match route.https_redirect_status_code {
            426 => Reply::error(&x.request, x.request_id, 426, "Please use HTTPS protocol")
                .field(names::CONNECTION, "Upgrade")
                .field(names::UPGRADE, "TLS/1.2, HTTP/1.1"),
            code => {
                let mut to = format!("https://{}{}", redirect_host(x), x.request.raw_path);
                if let Some(q) = &x.request.query {
                    let _ = write!(to, "?{q}");
                }
                Reply::empty(code).field(names::LOCATION, to)
            }
        });
    }
    if p.grpc || p.grpcs {
        let is_grpc =
            x.request.fields.text(&names::CONTENT_TYPE).is_some_and(|t| t.starts_with("application/grpc"));
        if !is_grpc {
            return Err(Reply::error(&x.request, x.request_id, 415, "Non-gRPC request matched gRPC route"));
        }
        if x.request.version != Version::H2 {
            return Err(needs_h2(x));
        }
        if p.grpcs && !p.grpc && x.forwarded_scheme() != "https" {
            return Err(Reply::grpc(reply::CANCELLED, "gRPC request matched gRPCs route"));
        }
    }
    Ok(())
}

/// The host that a client is sent to with https: as it called the gateway, without port, a trusted proxy's word included.
fn redirect_host(x: &Exchange) -> String {
    let plain = |host: &&str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b))
    };
    match x.request.fields.text(&names::X_FORWARDED_HOST).filter(|_| x.client.trusted).filter(plain) {
        Some(host) => host.to_owned(),
        None => x.request.host_name().to_ascii_lowercase(),
    }
}

/// The chain that applies now: it changes once the caller is known.
fn chain_of(x: &Exchange, before: ChainId) -> ChainId {
    let Some(class) = x.consumer().and_then(|c| c.class) else { return before };
    let Some(route) = x.route else { return before };
    let route = &x.snapshot.routes[route.0 as usize];
    route.class_chains.iter().find(|(c, _)| *c == class).map_or(before, |(_, chain)| *chain)
}

async fn policies<B: BodySource>(
    w: &Rc<Worker>,
    x: &mut Exchange,
    first: ChainId,
    body: &mut B,
) -> Option<Reply> {
    let snapshot = x.snapshot.clone();
    let mut chain = first;
    let mut at = 0;
    while let Some(&(order, step)) = snapshot.chains[chain.0 as usize].steps.get(at) {
        let step: &Step = &snapshot.steps[step as usize];
        let mut flow = step.request(x);
        loop {
            match flow {
                Flow::Next => break,
                Flow::Reply(reply) => return Some(reply),
                Flow::Await(effect) => {
                    let Some(answer) = Box::pin(perform(w, x, effect, body)).await else {
                        return Some(Reply::empty(CLIENT_GONE).closing());
                    };
                    flow = step.resume(x, answer);
                }
            }
        }
        at += 1;
        let now = chain_of(x, first);
        if now != chain {
            // Policies up to here have run; the rest is the rest of the caller's own chain.
            chain = now;
            at = snapshot.chains[chain.0 as usize].steps.partition_point(|(o, _)| *o <= order);
        }
    }
    None
}

/// What the log says of a request whose client did not wait (nginx's number).
const CLIENT_GONE: u16 = 499;

/// Performs an effect; `None` if the client went away meanwhile.
async fn perform<B: BodySource>(
    w: &Rc<Worker>,
    x: &mut Exchange,
    effect: Effect,
    body: &mut B,
) -> Option<Answer> {
    Some(match effect {
        Effect::ReadBody { limit } => {
            if x.body.is_some() {
                return Some(Answer::Body(Ok(())));
            }
            Answer::Body(collect(body, limit).await.map(|b| x.body = Some(b)))
        }
        Effect::Call(calls) => {
            let all = Box::pin(call::perform(w, x, calls));
            let gone = std::future::poll_fn(|cx| body.poll_gone(cx));
            tokio::select! {
                answers = all => Answer::Call(answers),
                () = gone => return None,
            }
        }
        Effect::Series(mut series) => {
            let all = Box::pin(call::series(w, x, &mut *series));
            let gone = std::future::poll_fn(|cx| body.poll_gone(cx));
            tokio::select! {
                () = all => Answer::Series(series),
                () = gone => return None,
            }
        }
        Effect::Sleep(time) => {
            let gone = std::future::poll_fn(|cx| body.poll_gone(cx));
            tokio::select! {
                () = tokio::time::sleep(time) => Answer::Slept,
                () = gone => return None,
            }
        }
        Effect::Landing(landing, most) => {
            let end = Box::pin(async move { landing.wait(most).await });
            let gone = std::future::poll_fn(|cx| body.poll_gone(cx));
            tokio::select! {
                () = end => Answer::Landing,
                () = gone => return None,
            }
        }
        Effect::Later(call, done) => {
            call::later(w, x, *call, done);
            Answer::Begun
        }
        // Boxed, so that a request that waits for nothing is not as large as one that waits for everything.
        other => Box::pin(w.effects.perform(other)).await,
    })
}

/// The steps whose response phases run: those of the chain in force when the answer came.
fn response_chain(x: &Exchange) -> Option<ChainId> {
    match x.route {
        Some(route) => Some(chain_of(x, x.snapshot.routes[route.0 as usize].chain)),
        None => x.snapshot.no_route_chain,
    }
}

/// Runs the response phases of the policies.
pub fn respond(x: &mut Exchange) {
    let Some(chain) = response_chain(x) else { return };
    let snapshot = x.snapshot.clone();
    for &(_, step) in &snapshot.chains[chain.0 as usize].steps {
        snapshot.steps[step as usize].response(x);
    }
    let extra = std::mem::take(&mut x.response_fields);
    x.response.fields.extend(&extra);
    x.response_fields = extra;
}

/// Whether a policy wants the response's body whole.
pub fn wants_body(x: &Exchange) -> bool {
    let Some(chain) = response_chain(x) else { return false };
    let steps = &x.snapshot.chains[chain.0 as usize].steps;
    steps.iter().any(|(_, s)| x.snapshot.steps[*s as usize].wants_response_body(x))
}

/// Lets the policies that want it change the response's body.
///
/// # Errors
/// The answer in its place.
pub fn change_body(x: &mut Exchange, mut body: Vec<u8>) -> Result<Vec<u8>, Reply> {
    let Some(chain) = response_chain(x) else { return Ok(body) };
    let snapshot = x.snapshot.clone();
    for &(_, step) in &snapshot.chains[chain.0 as usize].steps {
        let step = &snapshot.steps[step as usize];
        if step.wants_response_body(x) {
            body = step.response_body(x, body)?;
        }
    }
    Ok(body)
}

/// The filter through which the response's body of `length` bytes, if that is known, is to pass. The head is final after
/// this.
pub fn filter(x: &mut Exchange, length: Option<u64>) -> Option<Box<dyn BodyFilter>> {
    let chain = response_chain(x)?;
    if !x.snapshot.chains[chain.0 as usize].filters {
        return None;
    }
    let snapshot = x.snapshot.clone();
    let steps = snapshot.chains[chain.0 as usize].steps.iter();
    steps.map(|(_, step)| &snapshot.steps[*step as usize]).find_map(|step| step.response_filter(x, length))
}

/// The client's address behind trusted proxies (Kong's and nginx's real-ip rules).
fn real_ip(x: &mut Exchange) {
    x.client.ip = x.client.peer.ip().to_canonical();
    let gateway = &x.snapshot.gateway;
    let trusted = |ip: &std::net::IpAddr| gateway.trusted_ips.iter().any(|net| net.contains(ip));
    x.client.trusted = !gateway.trusted_ips.is_empty() && trusted(&x.client.ip);
    if !x.client.trusted {
        return;
    }
    let header = FieldName::new(&gateway.real_ip_header);
    let mut found = Vec::new();
    for value in x.request.fields.all(&header) {
        let text = String::from_utf8_lossy(value).into_owned();
        found.extend(text.split(',').map(|e| e.trim().to_owned()));
    }
    let parse = |e: &String| {
        let bare = e.trim_start_matches('[');
        let bare = bare.split(']').next().unwrap_or(bare);
        bare.parse::<std::net::IpAddr>().ok().or_else(|| split_port(e).0.parse().ok())
    };
    let mut ip = None;
    for entry in found.iter().rev() {
        let Some(this) = parse(entry) else { break };
        ip = Some(this);
        if !gateway.real_ip_recursive || !trusted(&this) {
            break;
        }
    }
    if let Some(ip) = ip {
        x.client.ip = ip.to_canonical();
    }
}

/// Sets what every upstream is told about the client (Kong's proxy headers). Runs after the policies.
pub fn proxy_headers(x: &mut Exchange) {
    let trusted = x.client.trusted;
    let peer = x.client.peer.ip().to_canonical();
    let request: &mut RequestHead = &mut x.request;
    if x.client.ip == peer {
        request.fields.set(&names::X_REAL_IP, x.client.peer_text.as_bytes());
    } else {
        request.fields.set(&names::X_REAL_IP, x.client.ip.to_string());
    }
    // As Kong does: what the client claims stays in front, and the peer that is known comes last.
    if request.fields.contains(&names::X_FORWARDED_FOR) {
        let mut text = String::with_capacity(64);
        for value in request.fields.all(&names::X_FORWARDED_FOR) {
            text.push_str(&String::from_utf8_lossy(value));
            text.push_str(", ");
        }
        text.push_str(&x.client.peer_text);
        request.fields.set(&names::X_FORWARDED_FOR, &text);
    } else {
        request.fields.append(&names::X_FORWARDED_FOR, x.client.peer_text.as_bytes());
    }
    let keep = |request: &RequestHead, name: &FieldName| trusted && request.fields.contains(name);
    if !keep(request, &names::X_FORWARDED_PROTO) {
        request.fields.set(&names::X_FORWARDED_PROTO, if x.client.tls { "https" } else { "http" });
    }
    if !keep(request, &names::X_FORWARDED_HOST) {
        request.fields.remove(&names::X_FORWARDED_HOST);
        let RequestHead { host, fields, .. } = request;
        let name = split_port(host).0;
        match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => fields.append(&names::X_FORWARDED_HOST, name.to_ascii_lowercase()),
            false => fields.append(&names::X_FORWARDED_HOST, name),
        }
    }
    if !keep(request, &names::X_FORWARDED_PORT) {
        let mut digits = itoa::Buffer::new();
        request.fields.set(&names::X_FORWARDED_PORT, digits.format(x.client.local.port()));
    }
    if !keep(request, &names::X_FORWARDED_PATH) {
        request.fields.remove(&names::X_FORWARDED_PATH);
        let RequestHead { raw_path, fields, .. } = request;
        fields.append(&names::X_FORWARDED_PATH, raw_path.as_str());
    }
    if !keep(request, &names::X_FORWARDED_PREFIX) {
        request.fields.remove(&names::X_FORWARDED_PREFIX);
        let strips = x.route.is_some_and(|r| x.snapshot.routes[r.0 as usize].strip_path);
        let RequestHead { path, fields, .. } = request;
        if let Some(prefix) = forwarded_prefix(path, x.matched_len, strips) {
            fields.append(&names::X_FORWARDED_PREFIX, prefix);
        }
    }
    if let Some(certificate) = &x.client.certificate {
        request.fields.set(const { &names::X_FORWARDED_CLIENT_CERT }, certificate.forwarded.as_bytes());
    }
    add_via(
        &mut request.fields,
        if request.version == crate::message::Version::H2 { "2 gw" } else { "1.1 gw" },
    );
    request.fields.set(&names::X_KONG_REQUEST_ID, x.request_id.hex());
}

/// Adds the gateway to the list of those that a message went through.
pub fn add_via(fields: &mut crate::message::Fields, me: &str) {
    match fields.text(&names::VIA) {
        None => fields.append(&names::VIA, me),
        Some(others) => {
            let all = format!("{others}, {me}");
            fields.set(&names::VIA, all);
        }
    }
}
