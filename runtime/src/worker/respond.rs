//! What is the same about a response on every protocol: Kong's fields, the policies' last word, the log line.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;

use super::context::Worker;
use super::{pipeline, proxy_status};
use crate::clock;
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::policy::problem;
use crate::policy::{Reply, filter};

const UPSTREAM_LATENCY: &str = "X-Kong-Upstream-Latency";
const PROXY_LATENCY: &str = "X-Kong-Proxy-Latency";
const RESPONSE_LATENCY: &str = "X-Kong-Response-Latency";

thread_local! {
    static NAMES: [FieldName; 3] =
        [UPSTREAM_LATENCY, PROXY_LATENCY, RESPONSE_LATENCY].map(FieldName::new);
}

fn push_ms(x: &mut Exchange, which: usize, took: Duration) {
    let mut digits = itoa::Buffer::new();
    let text = digits.format(took.as_millis() as u64);
    NAMES.with(|n| x.response.fields.put(&n[which], text));
}

fn push_request_id(x: &mut Exchange) {
    let hex = x.request_id.hex();
    x.response.fields.remove(&names::X_KONG_REQUEST_ID);
    x.response.fields.put(&names::X_KONG_REQUEST_ID, hex);
}

/// Finishes the head of an upstream's answer: gateway fields, then the policies.
pub fn proxied(x: &mut Exchange) {
    proxied_via(x, "1.1 gw");
}

/// As [`proxied`], with what `Via` says of the version that the upstream spoke.
pub fn proxied_via(x: &mut Exchange, via: &str) {
    x.local_response = false;
    // RFC 9110 6.6.1: what is passed on has a date.
    if !x.response.fields.contains(&names::DATE) {
        push_date(x, false);
    }
    pipeline::add_via(&mut x.response.fields, via);
    let began = x.upstream.began.unwrap_or(x.now.instant);
    let first = x.upstream.first_byte.unwrap_or(began);
    push_ms(x, 0, first.duration_since(began));
    push_ms(x, 1, began.duration_since(x.now.instant));
    push_request_id(x);
    if x.snapshot.gateway.proxy_status {
        proxy_status::received(&mut x.response.fields, x.response.status);
    }
    pipeline::respond(x);
}

/// Makes the head of the gateway's own answer in `x.response`; gives back the body.
pub fn local(x: &mut Exchange, reply: Reply) -> Bytes {
    let body = local_head(x, reply);
    if !pipeline::wants_body(x) {
        return filtered(x, body);
    }
    changed(x, body.to_vec())
}

/// The gateway's answer in place of one whose body is no good; no policy changes this one's body.
pub fn instead(x: &mut Exchange, reply: Reply) -> Bytes {
    local_head(x, reply)
}

/// Lets policies change a body that is here whole; gives back what the client gets.
pub fn changed(x: &mut Exchange, body: Vec<u8>) -> Bytes {
    match pipeline::change_body(x, body) {
        Ok(body) => filtered(x, body.into()),
        Err(reply) => instead(x, reply),
    }
}

/// Passes a body that is here whole through the policies' filter, if there is one.
pub fn filtered(x: &mut Exchange, body: Bytes) -> Bytes {
    let Some(mut filter) = pipeline::filter(x, Some(body.len() as u64)) else { return body };
    match filter::whole(&mut *filter, &body, x.snapshot.gateway.limits.buffered_body) {
        Ok(body) => body.into(),
        Err(error) => {
            x.keep(crate::telemetry::Why(error.0.to_owned()));
            let message = "An invalid response was received from the upstream server";
            let reply = Reply::gateway_error(&x.request, x.request_id, 502, message);
            instead(x, reply)
        }
    }
}

fn local_head(x: &mut Exchange, mut reply: Reply) -> Bytes {
    x.local_response = true;
    if x.snapshot.gateway.problem_details {
        reply = problem::of(reply, x.request_id);
    }
    x.response.status = reply.status;
    x.response.fields.clear();
    // An answer that was kept has those of its maker.
    let has = |name: &FieldName| reply.fields.iter().any(|(n, _)| n == name);
    match (has(&names::DATE), has(&names::SERVER)) {
        (false, server) => push_date(x, !server),
        (true, false) => x.response.fields.put(&names::SERVER, SERVER),
        (true, true) => {}
    }
    reply.write_fields(&mut x.response.fields);
    if x.snapshot.gateway.proxy_status {
        let mut fields = std::mem::take(&mut x.response.fields);
        proxy_status::own(&mut fields, reply.status, x.kept());
        x.response.fields = fields;
    }
    push_ms(x, 2, clock::monotonic().duration_since(x.now.instant));
    push_request_id(x);
    pipeline::respond(x);
    reply.body
}

/// What the gateway calls itself.
const SERVER: &str = concat!("gw/", env!("CARGO_PKG_VERSION"));

/// `Date`, made once a second, and `Server` after it, which hardly any answer is without.
fn push_date(x: &mut Exchange, with_server: bool) {
    thread_local! {
        static MADE: RefCell<(u64, Fields, Fields)> = RefCell::default();
    }
    let second = x.now.unix_ms / 1000;
    MADE.with_borrow_mut(|(at, date, both)| {
        if *at != second || date.is_empty() {
            *at = second;
            date.clear();
            let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(second));
            date.put(&names::DATE, text);
            both.clone_from(date);
            both.put(&names::SERVER, SERVER);
        }
        x.response.fields.extend(if with_server { both } else { date });
    });
}

/// How a request ended, for log and metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending {
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// The response could not be finished.
    pub broken: bool,
}

/// Counts and logs a request that is over.
pub fn finish(w: &Worker, x: &mut Exchange, ending: Ending) {
    x.ended = clock::monotonic();
    w.sink.request(x, &ending);
}
