//! Idle connections to upstreams: one pool a worker, so nothing is locked.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::clock;
use crate::http1::Buffer;
use crate::tls::ClientTls;
use crate::worker::io::Io;

/// What makes two connections interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub addr: SocketAddr,
    /// For TLS: the server name and the settings.
    pub tls: Option<(Arc<str>, Settings)>,
}

/// TLS settings, the same only if they are one and the same object. Held, so that no other settings can come to lie at
/// their address while connections made by them are idle.
#[derive(Clone, Debug)]
pub struct Settings(Arc<rustls::ClientConfig>);

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Settings {}

impl std::hash::Hash for Settings {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Key {
    /// The key of a connection to `addr`.
    pub fn new(addr: SocketAddr, tls: Option<&ClientTls>) -> Self {
        Self { addr, tls: tls.map(|t| (Arc::clone(&t.name), Settings(Arc::clone(&t.config)))) }
    }
}

/// An upstream connection and what was read from it beyond the last response.
pub struct UpstreamConn {
    pub io: Io,
    pub buffer: Buffer,
    pub key: Key,
    /// Requests answered on it so far.
    pub requests: u32,
}

struct Idle {
    conn: UpstreamConn,
    since: Instant,
}

/// The idle connections of one worker.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<AHashMap<Key, Vec<Idle>>>,
}

/// Most idle connections kept per destination.
const PER_KEY: usize = 512;
/// Requests after which a connection is not used again (Kong's number).
const REQUESTS_MAX: u32 = 10_000;

impl Pool {
    /// The most recently used connection that is still good.
    pub fn take(&self, key: &Key, max_idle: Duration) -> Option<UpstreamConn> {
        let mut map = self.idle.borrow_mut();
        let list = map.get_mut(key)?;
        let now = clock::monotonic();
        while let Some(mut idle) = list.pop() {
            if now.duration_since(idle.since) < max_idle && is_quiet(&mut idle.conn) {
                return Some(idle.conn);
            }
        }
        None
    }

    /// Keeps a connection whose last exchange ended cleanly.
    pub fn put(&self, mut conn: UpstreamConn) {
        conn.requests += 1;
        if !conn.buffer.is_empty() || conn.requests >= REQUESTS_MAX {
            return;
        }
        conn.buffer.release();
        let mut map = self.idle.borrow_mut();
        let since = clock::monotonic();
        match map.get_mut(&conn.key) {
            Some(list) if list.len() >= PER_KEY => {}
            Some(list) => list.push(Idle { conn, since }),
            None => {
                map.insert(conn.key.clone(), vec![Idle { conn, since }]);
            }
        }
    }

    /// Drops what was idle for too long or was closed by the upstream.
    pub fn sweep(&self, max_idle: Duration) {
        let now = clock::monotonic();
        self.idle.borrow_mut().retain(|_, list| {
            list.retain_mut(|i| now.duration_since(i.since) < max_idle && is_quiet(&mut i.conn));
            !list.is_empty()
        });
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether nothing came while the connection was idle: data nobody asked for, or the end, both make it useless.
///
/// Costs no system call where the kernel has reported nothing.
fn is_quiet(conn: &mut UpstreamConn) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if let Some(tcp) = conn.io.tcp()
        && tcp.poll_read_ready(&mut cx).is_pending()
    {
        return true;
    }
    conn.io.poll_read_into(&mut cx, &mut [0; 1]).is_pending()
}
