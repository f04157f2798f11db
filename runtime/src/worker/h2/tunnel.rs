//! A stream as bytes both ways: what a CONNECT has become.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Handle;
use crate::http2::send::Body;

/// See the module.
pub struct StreamIo {
    handle: Handle,
    piece: Vec<u8>,
    used: usize,
    ended: bool,
}

impl StreamIo {
    /// The bytes of a stream whose request was answered with success.
    pub fn new(handle: Handle) -> Self {
        handle.make_tunnel();
        Self { handle, piece: Vec::new(), used: 0, ended: false }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for StreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.used == this.piece.len() {
            this.used = 0;
            this.piece.clear();
            match ready!(this.handle.poll_body(&mut this.piece, cx)) {
                Body::Data => {}
                Body::End => return Poll::Ready(Ok(())),
                Body::Broken => return Poll::Ready(Err(gone())),
            }
        }
        let n = buf.remaining().min(this.piece.len() - this.used);
        buf.put_slice(&this.piece[this.used..this.used + n]);
        this.used += n;
        this.handle.used(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.handle.poll_room(cx)).map_err(|_| gone())?;
        let n = room.min(buf.len());
        self.handle.data(&buf[..n], false).map_err(|_| gone())?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            // A stream that is gone has ended, too.
            let _ = self.handle.data(&[], true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamIo {
    fn drop(&mut self) {
        self.handle.used(self.piece.len() - self.used);
    }
}
