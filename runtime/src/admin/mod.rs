//! The admin listener: health, readiness and metrics. Never on the same socket as traffic.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::telemetry::metrics::Metrics;
use crate::upstream::health_view;

/// Serves the admin endpoints on a thread of their own until the process ends.
pub fn spawn(
    socket: std::net::TcpListener,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name("gw-admin".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(serve(socket, metrics, stop))
    })
}

async fn serve(
    socket: std::net::TcpListener,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (metrics, stop) = (Arc::clone(&metrics), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &metrics, *stop.borrow());
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, draining: bool) -> Response<Full<Bytes>> {
    const JSON: &str = "application/json";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, JSON, "{\"message\":\"method not allowed\"}\n".into());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, JSON, "{\"status\":\"ok\"}\n".into()),
        "/ready" | "/readyz" | "/status/ready" if draining => {
            text(StatusCode::SERVICE_UNAVAILABLE, JSON, "{\"message\":\"draining\"}\n".into())
        }
        "/ready" | "/readyz" | "/status/ready" => {
            text(StatusCode::OK, JSON, "{\"message\":\"ready\"}\n".into())
        }
        "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render()),
        path => match upstream_health(path, metrics) {
            Some(found) => text(StatusCode::OK, JSON, found),
            None => text(
                StatusCode::NOT_FOUND,
                JSON,
                "{\"message\":\"not found: try /healthz, /ready, /metrics or /upstreams/NAME/health\"}\n"
                    .into(),
            ),
        },
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
            "address": t.address.map(|a| a.to_string()),
        }));
    }
    Some(format!("{}\n", serde_json::json!({ "data": data, "next": null })))
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
