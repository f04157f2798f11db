//! Client connections: HTTP/1.1 with keep-alive and HTTP/2, in clear or over TLS.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tally::Failure;

/// What requests carry.
pub type Body = Full<Bytes>;

/// Opens connections to the one server of a run.
pub struct Connector {
    addrs: Vec<SocketAddr>,
    /// Addresses take turns.
    turn: Cell<usize>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    http2: bool,
}

/// Where requests are handed in.
pub enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// What moves an HTTP/1.1 connection's bytes. It is polled by the task that uses the connection, which saves a switch
/// between tasks for each request.
pub type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// A new connection.
pub struct Opened {
    pub sender: Sender,
    /// None where a task of its own drives it.
    pub driver: Option<Driver>,
    pub resumed: bool,
    pub took: std::time::Duration,
}

/// Runs tasks of HTTP/2 on the worker's own thread.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Window of a stream and of a connection: large, so that the generator is not what throttles.
const H2_WINDOW: u32 = 4 << 20;

impl Connector {
    /// A connector to `addrs` (at least one), for the server named `name` if over TLS.
    pub fn new(
        addrs: Vec<SocketAddr>,
        tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
        http2: bool,
        first: usize,
    ) -> Self {
        let tls = tls.map(|(config, name)| (TlsConnector::from(config), name));
        Self { addrs, turn: Cell::new(first), tls, http2 }
    }

    /// Opens one.
    pub async fn open(&self) -> Result<Opened, (Failure, String)> {
        let start = Instant::now();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let addr = self.addrs[turn % self.addrs.len()];
        let tcp = TcpStream::connect(addr).await.map_err(|e| (Failure::Connect, format!("{addr}: {e}")))?;
        // Requests are written whole; waiting for more would only add latency.
        let _ = tcp.set_nodelay(true);
        let Some((connector, name)) = &self.tls else {
            return self.handshake(tcp, start, false).await;
        };
        let stream =
            connector.connect(name.clone(), tcp).await.map_err(|e| (Failure::Tls, format!("{addr}: {e}")))?;
        let session = stream.get_ref().1;
        if self.http2 && session.alpn_protocol() != Some(b"h2") {
            return Err((
                Failure::Tls,
                format!("{addr}: the server does not speak HTTP/2 over TLS (no `h2` in ALPN)"),
            ));
        }
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        self.handshake(stream, start, resumed).await
    }

    async fn handshake<S>(
        &self,
        stream: S,
        start: Instant,
        resumed: bool,
    ) -> Result<Opened, (Failure, String)>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    {
        let wrong = |e: hyper::Error| (Failure::Protocol, describe(&e));
        let io = TokioIo::new(stream);
        if self.http2 {
            let (sender, connection) = http2::Builder::new(Local)
                .initial_stream_window_size(H2_WINDOW)
                .initial_connection_window_size(H2_WINDOW)
                .handshake(io)
                .await
                .map_err(wrong)?;
            tokio::task::spawn_local(async move {
                // Its errors are those of the requests on it.
                let _ = connection.await;
            });
            return Ok(Opened { sender: Sender::H2(sender), driver: None, resumed, took: start.elapsed() });
        }
        let (sender, connection) = http1::handshake(io).await.map_err(wrong)?;
        let driver: Driver = Box::pin(async move {
            let _ = connection.await;
        });
        Ok(Opened { sender: Sender::H1(sender), driver: Some(driver), resumed, took: start.elapsed() })
    }
}

impl Sender {
    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_closed(),
            Self::H2(sender) => sender.is_closed(),
        }
    }

    /// Waits until a request may be sent.
    pub async fn ready(&mut self) -> Result<(), hyper::Error> {
        match self {
            Self::H1(sender) => sender.ready().await,
            Self::H2(sender) => sender.ready().await,
        }
    }

    /// Sends a request.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::H1(sender) => sender.send_request(request).await,
            Self::H2(sender) => sender.send_request(request).await,
        }
    }
}

/// Waits for `future` while moving the connection's bytes. A driver that has finished is dropped.
pub async fn drive<F: Future>(driver: &mut Option<Driver>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        let Some(moving) = driver.as_mut() else { return Poll::Pending };
        if moving.as_mut().poll(cx).is_ready() {
            *driver = None;
        }
        // What came over the connection may be what is waited for.
        future.as_mut().poll(cx)
    })
    .await
}

/// What a failed exchange counts as, when the response's head had not come yet.
pub fn failure(error: &hyper::Error) -> Failure {
    if error.is_parse() { Failure::Protocol } else { Failure::Reset }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
