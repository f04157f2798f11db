//! Listening sockets, and spreading connections evenly over workers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;

/// A bound socket and what is spoken on it.
#[derive(Clone)]
pub struct Listener {
    pub socket: Arc<TcpListener>,
    pub addr: SocketAddr,
    pub tls: bool,
}

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
    socket.listen(4096)?;
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

/// Accepts for ever and hands each connection to the least loaded worker. An even spread is worth one hop per
/// connection: the kernel's own spreading leaves some workers with several times the connections of others.
pub async fn accept(listener: Listener, slots: Vec<Slot>) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(listener.socket.try_clone()?)?;
    let mut next = 0;
    loop {
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                pause_after(&e).await;
                continue;
            }
        };
        let Ok(accepted) = prepare(stream, peer, &listener) else { continue };
        next += 1;
        let least = (0..slots.len()).min_by_key(|i| {
            let i = (i + next) % slots.len();
            slots[i].load.load(Ordering::Relaxed)
        });
        let Some(slot) = least.map(|i| &slots[(i + next) % slots.len()]) else { return Ok(()) };
        slot.load.fetch_add(1, Ordering::Relaxed);
        if slot.send.send(accepted).is_err() {
            return Ok(());
        }
    }
}

fn prepare(stream: TcpStream, peer: SocketAddr, listener: &Listener) -> io::Result<Accepted> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr().unwrap_or(listener.addr);
    Ok(Accepted { stream: stream.into_std()?, peer, local, tls: listener.tls })
}

/// Out of descriptors, accepting again at once would only spin.
async fn pause_after(error: &io::Error) {
    let transient = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted);
    if !transient {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
