//! After a WebSocket handshake: bytes both ways until one side ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deadline::Watch;
use super::respond::Ending;
use crate::http1::Buffer;
use crate::upstream::balance::InFlight;
use crate::upstream::pool::UpstreamConn;

/// One direction: what was read is written before more is read.
struct Pipe {
    ended: bool,
    flushed: bool,
    moved: u64,
}

impl Pipe {
    /// Moves bytes as far as it goes now; tells whether any moved.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        buffer: &mut Buffer,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<bool> {
        let mut any = false;
        loop {
            while !buffer.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, buffer.data()) {
                    Poll::Ready(n) => {
                        let n = n?;
                        buffer.consume(n);
                        self.moved += n as u64;
                        any = true;
                    }
                    Poll::Pending => return Ok(any),
                }
            }
            if self.ended {
                if !self.flushed && Pin::new(&mut *to).poll_shutdown(cx).is_ready() {
                    self.flushed = true;
                }
                return Ok(any);
            }
            let mut room = ReadBuf::new(buffer.spare());
            match Pin::new(&mut *from).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) => match room.filled().len() {
                    0 => self.ended = true,
                    n => buffer.filled(n),
                },
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => {
                    if let Poll::Ready(Err(e)) = Pin::new(&mut *to).poll_flush(cx) {
                        return Err(e);
                    }
                    return Ok(any);
                }
            }
        }
    }
}

/// What a tunnel needs of the exchange that opened it.
pub struct Opened {
    pub upstream: UpstreamConn,
    /// What the client is to be sent first.
    pub head: Vec<u8>,
    /// How long both directions may be silent.
    pub idle: Duration,
    /// Counts the tunnel at its target.
    pub in_flight: Option<InFlight>,
}

/// Runs a tunnel to its end. It ends, too, when it was silent in both directions for too long. Holds nothing of the
/// request: a tunnel may last for days, and must not keep an old config in memory.
pub async fn run(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut Buffer,
    watch: &Watch,
    opened: Opened,
) -> Ending {
    let Opened { mut upstream, head, idle, in_flight: _counted } = opened;
    watch.arm(idle);
    let mut up = Pipe { ended: false, flushed: false, moved: 0 };
    let mut down = Pipe { ended: false, flushed: false, moved: 0 };
    let mut written = 0;
    let result: std::io::Result<()> = poll_fn(|cx| {
        while written < head.len() {
            match Pin::new(&mut *client).poll_write(cx, &head[written..]) {
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let moved = (|| {
            let a = up.turn(cx, client, buffer, &mut upstream.io)?;
            let b = down.turn(cx, &mut upstream.io, &mut upstream.buffer, client)?;
            Ok::<bool, std::io::Error>(a || b)
        })();
        match moved {
            Err(e) => return Poll::Ready(Err(e)),
            Ok(true) => watch.arm(idle),
            Ok(false) => {}
        }
        if down.flushed {
            return Poll::Ready(Ok(()));
        }
        if watch.poll_over(cx) {
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    })
    .await;
    Ending { request_bytes: up.moved, response_bytes: down.moved, broken: result.is_err() }
}
