//! The admin listener: health, readiness, metrics, and the config in force. Never on the same socket as traffic.

mod cache;
pub mod config;
mod status;
mod usage;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, watch};

use crate::snapshot::shared::Shared;
use crate::telemetry::metrics::Metrics;
use crate::upstream::health_view;
use config::Submission;

/// What the admin listener is started with.
pub struct Options {
    pub socket: std::net::TcpListener,
    /// Where configs go that are handed in.
    pub submissions: mpsc::Sender<Submission>,
    /// What outlives configs: the cache is looked at and emptied here.
    pub shared: Arc<Shared>,
}

/// What every request is answered from.
struct Admin {
    metrics: Arc<Metrics>,
    submissions: mpsc::Sender<Submission>,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
}

/// Serves the admin endpoints on a thread of their own until the process ends.
pub fn spawn(
    options: Options,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let admin = Arc::new(Admin { metrics, submissions: options.submissions, shared: options.shared, stop });
    std::thread::Builder::new().name("gw-admin".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(serve(options.socket, admin))
    })
}

async fn serve(socket: std::net::TcpListener, admin: Arc<Admin>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    loop {
        let Ok((stream, peer)) = socket.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, Infallible>(admin.answer(request, peer).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let draining = *self.stop.borrow();
        let common = &self.metrics.common;
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/config" if *request.method() == Method::POST => {
                config::accept(request, peer, &self.submissions).await
            }
            path if path == "/proxy-cache" || path.starts_with("/proxy-cache/") => {
                cache::answer(request.method(), path, peer, &self.shared)
            }
            _ if !reads => message(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
            "/healthz" => json(StatusCode::OK, "{\"status\":\"ok\"}\n".into()),
            "/ready" | "/readyz" | "/status/ready" if draining => {
                message(StatusCode::SERVICE_UNAVAILABLE, "draining")
            }
            "/ready" | "/readyz" | "/status/ready" => message(StatusCode::OK, "ready"),
            "/config" => json(StatusCode::OK, status::config(common)),
            "/status" => json(StatusCode::OK, status::process(&self.metrics, draining)),
            "/usage" => usage::report(request.uri().query().unwrap_or_default(), common).await,
            "/metrics" => {
                const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
                typed(StatusCode::OK, TEXT, self.metrics.render())
            }
            path => match upstream_health(path, &self.metrics) {
                Some(found) => json(StatusCode::OK, found),
                None => message(
                    StatusCode::NOT_FOUND,
                    "not found: try /healthz, /ready, /status, /config, /usage, /metrics, /proxy-cache/KEY or /upstreams/NAME/health",
                ),
            },
        }
    }
}

/// `/upstreams/NAME/health`, as Kong words it.
fn upstream_health(path: &str, metrics: &Metrics) -> Option<String> {
    let name = path.strip_prefix("/upstreams/")?.strip_suffix("/health")?;
    let snapshot = metrics.common.publisher.current();
    let upstream = snapshot.upstreams.iter().find(|u| u.name == name || u.id == name)?;
    let mut data = Vec::new();
    for t in health_view::view(&metrics.common, upstream) {
        let state = t.state.to_ascii_uppercase();
        data.push(serde_json::json!({
            "target": t.target, "weight": t.weight, "health": state,
            "address": t.address,
        }));
    }
    Some(format!("{}\n", serde_json::json!({ "data": data, "next": null })))
}

/// `{"message": "…"}`; the text needs no escapes.
fn message(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    json(status, format!("{{\"message\":\"{text}\"}}\n"))
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "application/json", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
