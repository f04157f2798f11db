//! Listening sockets, and spreading connections evenly over workers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::io::Io;
use crate::model::gateway::{self, Address};

/// A bound socket and what is spoken on it.
#[derive(Clone)]
pub struct Listener {
    pub socket: Socket,
    /// What was asked for; its port may be 0.
    pub asked: gateway::Listener,
    /// Where it is.
    pub addr: Address,
}

/// A socket that listens. Shared by what accepts from it.
#[derive(Clone)]
pub enum Socket {
    Tcp(Arc<TcpListener>),
    Unix(Arc<UnixListener>),
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds a listener.
pub fn bind(asked: &gateway::Listener) -> io::Result<Listener> {
    let socket = match &asked.addr {
        Address::Ip(addr) => Socket::Tcp(Arc::new(bind_ip(*addr)?)),
        Address::Unix(path) => Socket::Unix(Arc::new(bind_unix(path, asked.mode)?)),
    };
    Listener::new(asked, socket)
}

fn bind_ip(addr: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes the place of a socket that nobody listens on any more, but of nothing else.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let addr = SockAddr::unix(path)?;
    if let Err(e) = socket.bind(&addr) {
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
        let nobody = || {
            let asked = std::os::unix::net::UnixStream::connect(path);
            asked.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
        };
        if e.kind() != io::ErrorKind::AddrInUse || !is_socket || !nobody() {
            return Err(e);
        }
        std::fs::remove_file(path)?;
        socket.bind(&addr)?;
    }
    // Until it listens nobody can connect, so nobody slips in with the permissions that it was made with.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    /// A listener on a socket that was bound before.
    pub fn new(asked: &gateway::Listener, socket: Socket) -> io::Result<Self> {
        let addr = match &socket {
            Socket::Tcp(tcp) => Address::Ip(tcp.local_addr()?),
            Socket::Unix(_) => asked.addr.clone(),
        };
        Ok(Self { socket, asked: asked.clone(), addr })
    }
}

impl Socket {
    /// A connection that waits to be accepted.
    fn take(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(tcp) => {
                let (stream, peer) = tcp.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Unix(unix) => {
                let (stream, _) = unix.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Unix(stream), HERE))
            }
        }
    }
}

/// Waits for connections on behalf of one thread.
enum Waiting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Waiting {
    fn on(socket: &Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(tcp) => Self::Tcp(tokio::net::TcpListener::from_std(tcp.try_clone()?)?),
            Socket::Unix(unix) => Self::Unix(tokio::net::UnixListener::from_std(unix.try_clone()?)?),
        })
    }

    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(tcp) => {
                let (stream, peer) = tcp.accept().await?;
                Ok((Stream::Tcp(stream.into_std()?), peer))
            }
            Self::Unix(unix) => {
                let (stream, _) = unix.accept().await?;
                Ok((Stream::Unix(stream.into_std()?), HERE))
            }
        }
    }
}

/// The address of who comes over a Unix socket: this machine's.
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A connection's stream, not yet any thread's own.
pub enum Stream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Stream {
    /// The stream for the thread that serves it.
    pub fn into_io(self) -> io::Result<Io> {
        Ok(match self {
            Self::Tcp(tcp) => Io::Tcp(tokio::net::TcpStream::from_std(tcp)?),
            Self::Unix(unix) => Io::Unix(tokio::net::UnixStream::from_std(unix)?),
        })
    }
}

/// A connection on its way to a worker.
pub struct Accepted {
    pub stream: Stream,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub tls: bool,
    /// A PROXY protocol header comes first.
    pub proxied: bool,
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
    let socket = Waiting::on(&listener.socket)?;
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.wait_for(|s| *s) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                next += 1;
                hand_on(stream, peer, &listener, &slots, next);
            }
            Err(e) => pause_after(&e).await,
        }
    }
    // Clients that the kernel has let in already would be cut off when the socket is closed. They are as many as the
    // queue holds; with more, clients that always come back would keep the gateway from its end.
    for _ in 0..BACKLOG {
        let Ok((stream, peer)) = listener.socket.take() else { break };
        next += 1;
        hand_on(stream, peer, &listener, &slots, next);
    }
    Ok(())
}

/// Gives a connection to the least loaded worker; among equals to the one whose turn it is.
fn hand_on(stream: Stream, peer: SocketAddr, listener: &Listener, slots: &[Slot], turn: usize) {
    let local = match &stream {
        Stream::Tcp(tcp) if tcp.set_nodelay(true).is_err() => return,
        Stream::Tcp(tcp) => tcp.local_addr().unwrap_or(HERE),
        Stream::Unix(_) => HERE,
    };
    let in_turn = (0..slots.len()).map(|i| &slots[(i + turn) % slots.len()]);
    // A worker that has ended takes nothing; the others still do.
    let alive = in_turn.filter(|s| !s.send.is_closed());
    let Some(slot) = alive.min_by_key(|s| s.load.load(Ordering::Relaxed)) else { return };
    slot.load.fetch_add(1, Ordering::Relaxed);
    let gateway::Listener { tls, proxy_protocol: proxied, .. } = listener.asked;
    if slot.send.send(Accepted { stream, peer, local, tls, proxied }).is_err() {
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
