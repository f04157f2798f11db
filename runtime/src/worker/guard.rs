//! Watching the frames of an HTTP/2 client for floods that the protocol library itself does not bound: rapid resets,
//! PING, SETTINGS and PRIORITY floods, empty DATA, and window updates that make the gateway reset streams itself. Little
//! more than lengths and types is looked at, so it costs next to nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::Io;
use crate::clock;
use crate::http1::Buffer;

/// Counts start anew after so long.
const WINDOW: Duration = Duration::from_secs(10);
/// Streams that a client may take back within the window.
const RESETS: u32 = 100;
/// PING, SETTINGS and PRIORITY frames, and empty DATA, within the window, beside those that answers give a right to.
const CONTROL: u32 = 1000;
/// gRPC clients measure the way with a PING for each piece of an answer (at most one in flight), so that many bytes of
/// answers give a right to one more control frame.
const BYTES_PER_CONTROL: u64 = 16;
/// What the gateway sends back for a PING or SETTINGS, which is no answer in this sense.
const ACKNOWLEDGEMENT: u64 = 17;
const PREFACE: usize = 24;

/// What the frames so far amount to.
#[derive(Default)]
pub struct FrameCounter {
    /// Bytes of the preface or of a payload to pass over.
    skip: usize,
    head: [u8; 9],
    have: usize,
    started: bool,
    since: Option<Instant>,
    resets: u32,
    opened: u32,
    control: u32,
    /// Bytes sent to the client, in the window.
    answered: u64,
    last_stream: u32,
    /// The frame under way is a stream's WINDOW_UPDATE: how many bytes of its increment came, and whether all were 0.
    increment: Option<(u8, bool)>,
    /// A window was opened by nothing, which is an error of the stream (RFC 9113 6.9). The protocol library ends the
    /// connection over it, with no word about it being abuse; no client does it in good faith.
    opened_by_nothing: bool,
}

impl FrameCounter {
    /// Takes note of bytes from the client; tells whether they are a flood.
    pub fn flood(&mut self, mut bytes: &[u8]) -> bool {
        if !self.started {
            self.started = true;
            self.skip = PREFACE;
        }
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                if let Some((have, zero)) = &mut self.increment {
                    *have += n as u8;
                    *zero &= bytes[..n].iter().all(|b| *b == 0);
                    self.opened_by_nothing |= *have == 4 && *zero;
                }
                self.skip -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = (9 - self.have).min(bytes.len());
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == 9 {
                self.have = 0;
                self.frame();
            }
        }
        self.opened_by_nothing
            || self.resets > RESETS && self.resets * 2 > self.opened
            || self.control > CONTROL && u64::from(self.control - CONTROL) > self.earned()
    }

    /// Takes note of bytes to the client.
    fn sent(&mut self, n: usize) {
        self.answered += n as u64;
    }

    /// Control frames that answers have given a right to.
    fn earned(&self) -> u64 {
        self.answered.saturating_sub(u64::from(self.control) * ACKNOWLEDGEMENT) / BYTES_PER_CONTROL
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = len;
        self.increment = (kind == 8 && len == 4).then_some((0, true));
        match kind {
            // HEADERS
            1 => {
                self.renew();
                self.opened += 1;
                self.last_stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
            }
            // RST_STREAM
            3 => self.resets += 1,
            // DATA without a byte and without an end, PRIORITY, SETTINGS, PING
            0 if len == 0 && flags & 1 == 0 => self.control += 1,
            2 | 4 | 6 => {
                self.renew();
                self.control += 1;
            }
            _ => {}
        }
    }

    fn renew(&mut self) {
        // The clock is read seldom: floods come in thousands.
        if !(self.opened + self.control).is_multiple_of(64) {
            return;
        }
        let now = clock::monotonic();
        if self.since.is_none_or(|s| now.duration_since(s) > WINDOW) {
            self.since = Some(now);
            (self.resets, self.opened, self.control, self.answered) = (0, 0, 0, 0);
        }
    }

    /// `GOAWAY` with `ENHANCE_YOUR_CALM`.
    fn goaway(&self) -> [u8; 17] {
        let mut frame = [0; 17];
        frame[2] = 8;
        frame[3] = 7;
        frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[16] = 11;
        frame
    }
}

/// A client's stream under watch, of which some bytes were read already.
pub struct Guarded {
    io: Io,
    before: Buffer,
    counter: FrameCounter,
    /// The last write was cut short, so that a frame of ours would land inside another.
    mid_write: bool,
    flooded: bool,
}

impl Guarded {
    /// Watches `io`, of which `before` was read.
    pub fn new(io: Io, before: Buffer) -> Self {
        Self { io, before, counter: FrameCounter::default(), mid_write: false, flooded: false }
    }

    fn note(&mut self, wrote: &Poll<std::io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = wrote {
            self.counter.sent(*n);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        self.flooded = true;
        if !self.mid_write {
            let _ = self.io.poll_write_from(cx, &self.counter.goaway());
            let _ = self.io.poll_flush_all(cx);
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        if this.flooded {
            return Poll::Ready(Ok(()));
        }
        let start = buf.filled().len();
        if this.before.is_empty() {
            std::task::ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        } else {
            let n = this.before.len().min(buf.remaining());
            buf.put_slice(&this.before.data()[..n]);
            this.before.consume(n);
            this.before.release();
        }
        if this.counter.flood(&buf.filled()[start..]) {
            this.end(cx);
            buf.set_filled(start);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.flooded {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        let wrote = self.io.poll_write_from(cx, buf);
        self.note(&wrote);
        self.mid_write = !matches!(wrote, Poll::Ready(Ok(n)) if n == buf.len());
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        if self.flooded {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        let all: usize = pieces.iter().map(|p| p.len()).sum();
        let wrote = self.io.poll_write_pieces(cx, pieces);
        self.note(&wrote);
        self.mid_write = !matches!(wrote, Poll::Ready(Ok(n)) if n == all);
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, len: usize) -> Vec<u8> {
        let mut f = vec![0, (len >> 8) as u8, len as u8, kind, 0];
        f.extend(stream.to_be_bytes());
        f.resize(9 + len, 7);
        f
    }

    /// How many rounds of `frames` it takes, in pieces of `step` bytes.
    fn rounds(frames: &[Vec<u8>], step: usize) -> Option<usize> {
        rounds_answered(frames, step, 0)
    }

    /// The same where each round is answered with so many bytes.
    fn rounds_answered(frames: &[Vec<u8>], step: usize, answer: usize) -> Option<usize> {
        let mut counter = FrameCounter::default();
        assert!(!counter.flood(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        let round: Vec<u8> = frames.concat();
        (1..5000).find(|_| {
            counter.sent(answer);
            round.chunks(step).any(|piece| counter.flood(piece))
        })
    }

    #[test]
    fn a_ping_for_each_piece_of_an_answer_is_no_flood() {
        let acknowledged = ACKNOWLEDGEMENT as usize;
        assert_eq!(rounds_answered(&[frame(6, 0, 8)], 4096, acknowledged + 24), None);
        assert!(
            rounds_answered(&[frame(6, 0, 8)], 4096, acknowledged).is_some(),
            "acknowledgements do not count"
        );
    }

    #[test]
    fn floods_are_seen_and_traffic_is_not() {
        for step in [1, 7, 4096] {
            let got = rounds(&[frame(1, 1, 20), frame(3, 1, 4)], step);
            assert!(got.is_some_and(|n| n <= 200), "rapid reset: {got:?}");
            assert!(rounds(&[frame(6, 0, 8)], step).is_some_and(|n| n <= 1100), "pings");
            assert!(rounds(&[frame(2, 1, 5)], step).is_some_and(|n| n <= 1100), "priority");
            assert!(rounds(&[frame(0, 1, 0)], step).is_some_and(|n| n <= 1100), "empty data");
            assert_eq!(rounds(&[frame(1, 1, 20), frame(0, 1, 900), frame(8, 1, 4)], step), None, "requests");
            let nothing = [0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0].to_vec();
            assert_eq!(rounds(&[nothing], step), Some(1), "a window opened by nothing");
        }
    }
}
