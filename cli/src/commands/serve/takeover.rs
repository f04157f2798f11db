//! A new gateway takes the listening sockets of the one that runs, so that a new binary comes into service without one
//! refused connection.
//!
//! Whoever serves with `--takeover PATH` can be asked for its sockets there. The next one asks, serves, says so, and
//! takes the place at PATH; only then the first one drains. Connections that wait in a socket's queue meanwhile are
//! served by either. If the new one fails before it serves, nothing has changed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gw_runtime::worker::listen::{Listener, Socket};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with,
};
use tokio::sync::mpsc;

use crate::exit::{Code, WithCode};

/// Most sockets that change hands.
const SOCKETS: usize = 256;
/// Longest name of one.
const NAME: usize = 256;
/// What ends the list.
const END: &[u8] = b"end";
/// What the new gateway says once it serves.
const SERVING: &[u8] = b"serving";
/// How long a message may take that the other side has only to write.
const SOON: Duration = Duration::from_secs(10);
/// How long a new gateway may take from its start until it serves.
const START: Duration = Duration::from_secs(600);

/// What a socket is called in both processes: what was asked for, since a port may have been left to the system.
fn name_of(tls: bool, addr: &impl ToString) -> String {
    format!("{} {}", if tls { "tls" } else { "clear" }, addr.to_string())
}

/// The admin socket's name.
fn admin_name(addr: &impl ToString) -> String {
    format!("admin {}", addr.to_string())
}

/// The new gateway's side.
#[derive(Default)]
pub struct Takeover {
    path: PathBuf,
    given: Vec<(String, OwnedFd)>,
    /// Whoever gave them, and waits to hear that they are in use.
    from: Option<OwnedFd>,
}

impl Takeover {
    /// Asks whoever serves at `path`; without anybody there, there is nothing to take.
    pub fn ask(path: &Path) -> Result<Self, WithCode> {
        let failed = |e: io::Error| {
            WithCode(
                Code::Environment,
                format!("cannot take over from the gateway at {}: {e}", path.display()),
            )
        };
        let mut this = Self { path: path.to_owned(), ..Self::default() };
        let socket = open().map_err(failed)?;
        match connect(&socket, &address(path).map_err(failed)?) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => return Ok(this),
            Err(e) => return Err(failed(e.into())),
        }
        patience(&socket, SOON).map_err(failed)?;
        loop {
            match receive(&socket).map_err(failed)? {
                (name, _) if name == END => break,
                (name, Some(fd)) if this.given.len() < SOCKETS => {
                    this.given.push((String::from_utf8_lossy(&name).into_owned(), fd));
                }
                _ => return Err(failed(io::ErrorKind::InvalidData.into())),
            }
        }
        this.from = Some(socket);
        Ok(this)
    }

    /// Whether there is a gateway to take over from.
    pub fn is_from_another(&self) -> bool {
        self.from.is_some()
    }

    /// The socket for such a listener, if it was given.
    pub fn listener(&mut self, tls: bool, addr: &impl ToString) -> Option<OwnedFd> {
        self.take(&name_of(tls, addr))
    }

    /// The admin socket, if it was given.
    pub fn admin(&mut self, addr: &impl ToString) -> Option<OwnedFd> {
        self.take(&admin_name(addr))
    }

    fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.given.iter().position(|(n, _)| n == name)?;
        Some(self.given.swap_remove(at).1)
    }

    /// This gateway serves: the other one may end. What was given and is not wanted any more is closed.
    pub fn done(&mut self) -> io::Result<()> {
        self.given.clear();
        let Some(from) = self.from.take() else { return Ok(()) };
        send(&from, SERVING, None)?;
        // It gives up its place before it closes the connection.
        match receive(&from) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(e) => Err(e),
        }
    }

    /// Offers this gateway's sockets to the next one, from a thread of its own; what it says is that it is time to go.
    pub fn offer(&self, sockets: Sockets) -> io::Result<mpsc::Receiver<()>> {
        let (told, tell) = mpsc::channel(1);
        let (socket, path) = (place(&self.path)?, self.path.clone());
        std::thread::Builder::new().name("gw-takeover".into()).spawn(move || {
            loop {
                // What goes wrong with one that asks concerns that one; this gateway serves on.
                let Ok(next) = accept_with(&socket, SocketFlags::CLOEXEC) else {
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                };
                if hand_over(&next, &sockets).is_ok() {
                    let _ = std::fs::remove_file(&path);
                    drop((socket, sockets));
                    let _ = told.blocking_send(());
                    return;
                }
            }
        })?;
        Ok(tell)
    }
}

/// Sockets under their names.
#[derive(Default)]
pub struct Sockets(Vec<(String, OwnedFd)>);

impl Sockets {
    /// Those of all listeners, and of the admin.
    pub fn of(
        listeners: &[Listener],
        admin: Option<(std::net::SocketAddr, &std::net::TcpListener)>,
    ) -> io::Result<Self> {
        let mut all = Vec::new();
        for l in listeners {
            let fd = match &l.socket {
                Socket::Tcp(s) => s.as_fd().try_clone_to_owned()?,
                Socket::Unix(s) => s.as_fd().try_clone_to_owned()?,
            };
            all.push((name_of(l.asked.tls, &l.asked.addr), fd));
        }
        if let Some((addr, socket)) = admin {
            all.push((admin_name(&addr), socket.as_fd().try_clone_to_owned()?));
        }
        Ok(Self(all))
    }
}

/// Gives the sockets, and waits until they are in use.
fn hand_over(next: &OwnedFd, sockets: &Sockets) -> io::Result<()> {
    // Whoever has the sockets has the traffic.
    if socket_peercred(next)?.uid != rustix::process::geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    patience(next, SOON)?;
    for (name, fd) in &sockets.0 {
        send(next, name.as_bytes(), Some(fd))?;
    }
    send(next, END, None)?;
    patience(next, START)?;
    match receive(next)? {
        (word, None) if word == SERVING => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(path)?)
}

fn patience(socket: &OwnedFd, time: Duration) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(time))?;
    Ok(set_socket_timeout(socket, Timeout::Send, Some(time))?)
}

/// Takes the place at `path`, also from a gateway that died without giving it up.
fn place(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    let (socket, addr) = (open()?, address(path)?);
    if let Err(e) = bind(&socket, &addr) {
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
        let nobody = connect(open()?, &addr) == Err(rustix::io::Errno::CONNREFUSED);
        if !is_socket || !nobody {
            return Err(e.into());
        }
        std::fs::remove_file(path)?;
        bind(&socket, &addr)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listen(&socket, 4)?;
    Ok(socket)
}

/// Sends one packet, perhaps with a descriptor.
fn send(to: &OwnedFd, text: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let fds = fd.map(|fd| [fd.as_fd()]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(fds) = &fds
        && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(to, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet; at the other side's end there is none.
fn receive(from: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut text = vec![0; NAME];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    text.truncate(got.bytes);
    let mut fds = control.drain().flat_map(|m| match m {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    Ok((text, fds.next()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sockets_change_hands_once_they_are_in_use() {
        let dir = std::env::temp_dir().join(format!("gw-takeover-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("place");
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = admin.local_addr().unwrap();
        let mut old = Takeover::ask(&path).unwrap();
        assert!(!old.is_from_another());
        old.done().unwrap();
        let mut told = old.offer(Sockets::of(&[], Some((addr, &admin))).unwrap()).unwrap();
        // One that fails before it serves changes nothing.
        let failed = Takeover::ask(&path).unwrap();
        assert!(failed.is_from_another());
        drop(failed);
        let mut new = Takeover::ask(&path).unwrap();
        assert!(told.try_recv().is_err());
        let socket = TcpListener::from(new.admin(&addr).unwrap());
        assert_eq!(socket.local_addr().unwrap(), addr);
        assert!(new.admin(&addr).is_none());
        new.done().unwrap();
        assert_eq!(told.blocking_recv(), Some(()));
        let _next = new.offer(Sockets::default()).unwrap();
        assert!(Takeover::ask(&path).unwrap().is_from_another());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
