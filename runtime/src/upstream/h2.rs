//! HTTP/2 connections to upstreams: few, shared by many exchanges at once, one set a worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::connect::{ConnectError, connect};
use super::pool::Key;
use crate::clock;
use crate::tls::ClientTls;
use crate::worker::h2::Local;
use crate::worker::request_body::RequestBody;

/// Exchanges on one connection at once. Times the window of a stream this is the window of the connection, so that
/// clients that read slowly can never stop the others.
const STREAMS: usize = 64;
const STREAM_WINDOW: u32 = 256 * 1024;
/// Connections to one destination, beyond which exchanges queue for a stream.
const CONNECTIONS: usize = 64;
/// How often a silent connection with exchanges on it is probed. gRPC servers take more than one PING in five minutes
/// without data for abuse.
const PING_EVERY: Duration = Duration::from_secs(330);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The shared connections of one worker.
#[derive(Default)]
pub struct H2Pool {
    destinations: RefCell<AHashMap<Key, Rc<Destination>>>,
}

#[derive(Default)]
struct Destination {
    connections: RefCell<Vec<Rc<Connection>>>,
    opening: RefCell<Option<Rc<Opening>>>,
}

struct Connection {
    sender: SendRequest<RequestBody>,
    /// Streams that the upstream takes at once.
    allowed: Rc<Cell<usize>>,
    in_flight: Cell<usize>,
    idle_since: Cell<Instant>,
}

/// An attempt to connect, for which any number of exchanges wait.
#[derive(Default)]
struct Opening {
    done: Notify,
    result: RefCell<Option<Result<(), ConnectError>>>,
}

impl Opening {
    async fn wait(&self) -> Result<(), ConnectError> {
        loop {
            let done = self.done.notified();
            match &*self.result.borrow() {
                Some(Ok(())) => return Ok(()),
                Some(Err(e)) => return Err(again(e)),
                None => {}
            }
            done.await;
        }
    }
}

/// The same error for another exchange that waited for the same connection.
fn again(error: &ConnectError) -> ConnectError {
    let copy = |e: &io::Error| io::Error::new(e.kind(), e.to_string());
    match error {
        ConnectError::Timeout => ConnectError::Timeout,
        ConnectError::Refused(e) => ConnectError::Refused(copy(e)),
        ConnectError::Tls(e) => ConnectError::Tls(copy(e)),
    }
}

/// A place on a connection for one exchange.
pub struct Lease {
    connection: Rc<Connection>,
    destination: Rc<Destination>,
}

impl Lease {
    /// The connection's sender.
    pub fn sender(&self) -> SendRequest<RequestBody> {
        self.connection.sender.clone()
    }

    /// Gives the connection no further exchanges: it seems dead, or ends. Those on it go on.
    pub fn retire(&self) {
        self.destination.connections.borrow_mut().retain(|c| !Rc::ptr_eq(c, &self.connection));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.in_flight.set(self.connection.in_flight.get() - 1);
        self.connection.idle_since.set(clock::monotonic());
    }
}

impl Destination {
    /// The least used connection, if it has room; else the least used one if there may be no more.
    fn pick(self: &Rc<Self>) -> Option<Lease> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|c| !c.sender.is_closed());
        let least = connections.iter().min_by_key(|c| c.in_flight.get())?;
        let room = least.allowed.get().clamp(1, STREAMS);
        if least.in_flight.get() >= room && connections.len() < CONNECTIONS {
            return None;
        }
        least.in_flight.set(least.in_flight.get() + 1);
        Some(Lease { connection: Rc::clone(least), destination: Rc::clone(self) })
    }
}

impl H2Pool {
    /// A place on a connection to `addr`, opening one where none has room. Exchanges that need one at the same time
    /// wait for the same.
    pub async fn lease(
        &self,
        addr: SocketAddr,
        tls: Option<&ClientTls>,
        timeout: Duration,
    ) -> Result<Lease, ConnectError> {
        let key = Key::new(addr, tls);
        let destination = Rc::clone(self.destinations.borrow_mut().entry(key).or_default());
        loop {
            if let Some(lease) = destination.pick() {
                return Ok(lease);
            }
            let opening = destination.opening.borrow().clone();
            let opening = opening.unwrap_or_else(|| begin(&destination, addr, tls.cloned(), timeout));
            opening.wait().await?;
        }
    }

    /// Drops connections that nobody used for too long.
    pub fn sweep(&self, max_idle: Duration) {
        let now = clock::monotonic();
        self.destinations.borrow_mut().retain(|_, destination| {
            let mut connections = destination.connections.borrow_mut();
            connections.retain(|c| {
                let idle = c.in_flight.get() == 0 && now.duration_since(c.idle_since.get()) >= max_idle;
                !idle && !c.sender.is_closed()
            });
            !connections.is_empty() || destination.opening.borrow().is_some()
        });
    }
}

/// Opens a connection in a task of its own: the exchange that asked first may go away before the others.
fn begin(
    destination: &Rc<Destination>,
    addr: SocketAddr,
    tls: Option<ClientTls>,
    timeout: Duration,
) -> Rc<Opening> {
    let opening = Rc::new(Opening::default());
    *destination.opening.borrow_mut() = Some(Rc::clone(&opening));
    let (destination, task) = (Rc::clone(destination), Rc::clone(&opening));
    tokio::task::spawn_local(async move {
        let opened = open(addr, tls.as_ref(), timeout).await;
        *destination.opening.borrow_mut() = None;
        let result = opened.map(|connection| destination.connections.borrow_mut().push(Rc::new(connection)));
        *task.result.borrow_mut() = Some(result);
        task.done.notify_waiters();
    });
    opening
}

async fn open(
    addr: SocketAddr,
    tls: Option<&ClientTls>,
    timeout: Duration,
) -> Result<Connection, ConnectError> {
    let began = clock::monotonic();
    let stream = connect(addr, tls, timeout).await?;
    let mut builder = Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * STREAMS as u32)
        .max_send_buf_size(64 * 1024)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let left = timeout.saturating_sub(began.elapsed());
    let handshake = builder.handshake(TokioIo::new(stream.io));
    let (sender, mut connection) = tokio::time::timeout(left, handshake)
        .await
        .map_err(|_| ConnectError::Timeout)?
        .map_err(|e| ConnectError::Refused(io::Error::other(e)))?;
    let allowed = Rc::new(Cell::new(STREAMS));
    let seen = Rc::clone(&allowed);
    tokio::task::spawn_local(async move {
        // Its end is seen by those who use it.
        let _ = std::future::poll_fn(|cx| {
            let end = Pin::new(&mut connection).poll(cx);
            seen.set(connection.current_max_send_streams());
            end
        })
        .await;
    });
    Ok(Connection { sender, allowed, in_flight: Cell::new(0), idle_since: Cell::new(clock::monotonic()) })
}
