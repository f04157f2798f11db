//! Listening sockets, and spreading connections evenly over workers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

/// A bound socket and what is spoken on it.
#[derive(Clone)]
pub struct Listener {
    pub socket: Arc<TcpListener>,
    pub addr: SocketAddr,
    pub tls: bool,
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds a listener.
pub fn bind(addr: SocketAddr, tls: bool) -> io::Result<Listener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let socket: TcpListener = socket.into();
    let addr = socket.local_addr()?;
    Ok(Listener { socket: Arc::new(socket), addr, tls })
}

/// A connection on its way to a worker.
pub struct Accepted {
    pub stream: std::net::TcpStream,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub tls: bool,
}

/// One worker as the acceptor sees it.
#[derive(Clone)]
pub struct Slot {
    pub send: UnboundedSender<Accepted>,
    /// Its open connections.
    pub load: Arc<AtomicUsize>,
}

/// Accepts until the end and hands each connection to the least loaded worker. An even spread is worth one hop per
/// connection: the kernel's own spreading leaves some workers with several times the connections of others.
pub async fn accept(listener: Listener, slots: Vec<Slot>, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(listener.socket.try_clone()?)?;
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.wait_for(|s| *s) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                next += 1;
                if let Ok(stream) = stream.into_std() {
                    hand_on(stream, peer, &listener, &slots, next);
                }
            }
            Err(e) => pause_after(&e).await,
        }
    }
    // Clients that the kernel has let in already would be cut off when the socket is closed. They are as many as the
    // queue holds; with more, clients that always come back would keep the gateway from its end.
    for _ in 0..BACKLOG {
        let Ok((stream, peer)) = listener.socket.accept() else { break };
        next += 1;
        if stream.set_nonblocking(true).is_ok() {
            hand_on(stream, peer, &listener, &slots, next);
        }
    }
    Ok(())
}

/// Gives a connection to the least loaded worker; among equals to the one whose turn it is.
fn hand_on(stream: std::net::TcpStream, peer: SocketAddr, listener: &Listener, slots: &[Slot], turn: usize) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let local = stream.local_addr().unwrap_or(listener.addr);
    let in_turn = (0..slots.len()).map(|i| &slots[(i + turn) % slots.len()]);
    // A worker that has ended takes nothing; the others still do.
    let alive = in_turn.filter(|s| !s.send.is_closed());
    let Some(slot) = alive.min_by_key(|s| s.load.load(Ordering::Relaxed)) else { return };
    slot.load.fetch_add(1, Ordering::Relaxed);
    if slot.send.send(Accepted { stream, peer, local, tls: listener.tls }).is_err() {
        slot.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Out of descriptors, accepting again at once would only spin.
async fn pause_after(error: &io::Error) {
    let transient = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted);
    if !transient {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
