//! Large bodies between two plain TCP sockets, moved by the kernel: their bytes never come into this process.
//!
//! A copy in and a copy out are most of what a large body costs a proxy. `splice(2)` hands pages from socket to pipe to
//! socket instead. It pays only for bodies of some size: two more system calls and a pipe stand against the copies.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// So much of a body must be left for it to pay.
pub const WORTH: u64 = 32 * 1024;
/// What a pipe is asked to hold, in bytes; the kernel may give less.
const ROOM: usize = 512 * 1024;
/// Most idle pipes kept per thread.
const KEEP: usize = 32;

thread_local! {
    /// Empty pipes, for the next bodies.
    static FREE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
}

/// A pipe between two sockets. Filled only when it is empty, so that "would block" always speaks of the socket.
pub struct Pipe {
    /// Reading and writing end; `None` only while it is dropped.
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Pipe {
    /// A pipe, unless the process has no descriptors left: then bodies are copied.
    pub fn take() -> Option<Self> {
        let ends = FREE.with_borrow_mut(Vec::pop).or_else(|| {
            let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // A smaller pipe moves the same bytes in more steps.
            let _ = fcntl_setpipe_size(&ends.1, ROOM);
            Some(ends)
        })?;
        Some(Self { ends: Some(ends), held: 0 })
    }

    /// Whether everything that came in has gone out.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes up to `most` bytes from a socket; 0 is its end. The pipe must be empty.
    pub fn poll_from(
        &mut self,
        from: &TcpStream,
        cx: &mut Context<'_>,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.held == 0);
        let Some((_, into)) = &self.ends else { return Poll::Ready(Ok(0)) };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(ROOM);
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || step(from, into, most)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) => {
                    self.held = n;
                    return Poll::Ready(Ok(n));
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Gives some of what it holds to a socket.
    pub fn poll_to(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((from, _)) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || step(from, to, self.held)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.held -= n;
                    return Poll::Ready(Ok(n));
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

fn step(from: &impl AsFd, to: &impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // One that still holds bytes of a broken exchange must not meet another.
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else { return };
        // The thread's store may be gone already while the thread ends.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEEP {
                free.push(ends);
            }
        });
    }
}
