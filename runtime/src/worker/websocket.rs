//! WebSockets of HTTP/2 clients (RFC 8441), each a stream of its connection, bridged to upstreams that speak HTTP/1.1.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::context::Worker;
use super::deadline::Watch;
use super::forward::{Failure, Forward};
use super::h2::{self, H2Body, Handle, StreamIo};
use super::held::Held;
use super::pipeline::{self, Decision};
use super::proxy::{self, Kind, ProxyError};
use super::respond::{self, Ending};
use super::tunnel;
use crate::exchange::Exchange;
use crate::http1::{Buffer, Reject};
use crate::message::FieldName;
use crate::policy::Reply;

const KEY: &str = "Sec-WebSocket-Key";
const ACCEPT: &str = "Sec-WebSocket-Accept";
/// What both sides of a handshake over HTTP/1.1 hash with the key (RFC 6455 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Serves a CONNECT. It is answered with a success only if the upstream has agreed to speak WebSocket: to the client that
/// means that it has a tunnel now.
pub async fn serve(
    worker: Rc<Worker>,
    handle: Handle,
    mut x: Held,
    mut body: H2Body,
    watch: Rc<Watch>,
    kind: Kind,
) {
    // Over HTTP/1.1 the same client would have sent a GET: that is what routes and policies see.
    x.request.method.clear();
    x.request.method.push_str("GET");
    // The client has no key to send, and the upstream wants one.
    let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
    x.request.fields.set(&FieldName::new(KEY), &key);
    let reply = match pipeline::run(&worker, &mut x, &mut body).await {
        Decision::Reply(reply) => reply,
        Decision::Proxy if pipeline::speaks_h2(&x) => {
            Reply::gateway_error(&x.request, x.request_id, 501, "Not implemented")
        }
        Decision::Proxy => match proxy::send(&worker, &mut x, body, &watch, kind).await {
            Ok(forward) if forward.meta.websocket && fits(&mut x, &key) => {
                return established(&worker, handle, x, forward, &watch).await;
            }
            Ok(forward) if !matches!(x.response.status, 101 | 200..300) => {
                return h2::deliver(worker, &handle, x, forward, watch).await;
            }
            Ok(_) => {
                let reject = Reject::bad("the upstream does not take part in the WebSocket handshake");
                failed(&worker, &mut x, ProxyError::Exchange(Failure::Malformed(reject)))
            }
            Err((_, error)) => failed(&worker, &mut x, error),
        },
    };
    let reply = match reply.status {
        200..300 => Reply::gateway_error(&x.request, x.request_id, 501, "Not implemented"),
        _ => reply,
    };
    h2::own(&worker, &handle, x.release(), reply).await;
}

fn failed(worker: &Worker, x: &mut Exchange, error: ProxyError) -> Reply {
    worker.sink.proxy_error(x, &error);
    error.reply(x)
}

/// Whether the upstream has understood the handshake.
fn fits(x: &mut Exchange, key: &str) -> bool {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    let name = FieldName::new(ACCEPT);
    let fits = x.response.fields.get(&name) == Some(STANDARD.encode(hash).as_bytes());
    // Over HTTP/2 there is none (RFC 8441 5).
    x.response.fields.remove(&name);
    fits
}

/// Answers, and runs the tunnel to its end.
async fn established(
    worker: &Rc<Worker>,
    handle: Handle,
    mut x: Held,
    forward: Box<Forward<H2Body>>,
    watch: &Watch,
) {
    x.response.status = 200;
    respond::proxied(&mut x);
    let idle = super::relay::service_read_timeout(&x);
    if handle.head(200, &x.response.fields, None, false).is_err() {
        return;
    }
    x.let_go_of_config();
    let mut io = StreamIo::new(handle);
    let opened = forward.into_tunnel(Vec::new(), idle);
    let ending: Ending = tunnel::run(&mut io, &mut Buffer::default(), watch, opened).await;
    let mut x = x.release();
    respond::finish(worker, &mut x, ending);
}
