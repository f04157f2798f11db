//! Flow control (RFC 9113 5.2 and 6.9): how much may be sent, and when to allow the peer more.

use super::frame::Code;

/// What a window is until something else is agreed.
pub const DEFAULT: u32 = 65_535;
/// The largest window.
const MAX: i64 = 0x7fff_ffff;

/// Bytes that may be sent. Can be below zero after the peer has made all windows smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow(i64);

impl SendWindow {
    /// A window of `n` bytes.
    pub fn new(n: u32) -> Self {
        Self(i64::from(n))
    }

    /// How much may be sent now.
    pub fn room(self) -> usize {
        self.0.max(0) as usize
    }

    /// `n` bytes were sent, of which [`SendWindow::room`] knew.
    pub fn sent(&mut self, n: usize) {
        self.0 -= n as i64;
    }

    /// The peer allows `by` bytes more, or fewer.
    ///
    /// # Errors
    /// More than any window may have.
    pub fn grow(&mut self, by: i64) -> Result<(), Code> {
        self.0 += by;
        if self.0 > MAX { Err(Code::FLOW_CONTROL_ERROR) } else { Ok(()) }
    }
}

/// Bytes that the peer may send.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveWindow {
    size: u32,
    left: u32,
    /// Used up since the peer was last allowed more.
    used: u32,
}

impl ReceiveWindow {
    /// A window that is kept at `size`.
    pub fn new(size: u32) -> Self {
        Self { size, left: size, used: 0 }
    }

    /// The peer has sent `n` bytes.
    ///
    /// # Errors
    /// More than it may.
    pub fn received(&mut self, n: usize) -> Result<(), Code> {
        let n = u32::try_from(n).map_err(|_| Code::FLOW_CONTROL_ERROR)?;
        self.left = self.left.checked_sub(n).ok_or(Code::FLOW_CONTROL_ERROR)?;
        Ok(())
    }

    /// `n` of those were used up. Says how much more the peer is to be allowed, once that is worth a frame.
    pub fn used(&mut self, n: usize) -> Option<u32> {
        self.used += n as u32;
        if self.used < self.size / 2 {
            return None;
        }
        let more = std::mem::take(&mut self.used);
        self.left += more;
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_what_was_agreed() {
        let mut w = SendWindow::new(10);
        w.sent(10);
        assert_eq!(w.room(), 0);
        assert!(w.grow(-5).is_ok());
        assert_eq!(w.room(), 0);
        assert!(w.grow(7).is_ok());
        assert_eq!(w.room(), 2);
        assert_eq!(w.grow(MAX), Err(Code::FLOW_CONTROL_ERROR));
        let mut r = ReceiveWindow::new(100);
        assert!(r.received(100).is_ok());
        assert_eq!(r.received(1), Err(Code::FLOW_CONTROL_ERROR));
        assert_eq!((r.used(49), r.used(1), r.used(50)), (None, Some(50), Some(50)));
        assert!(r.received(100).is_ok());
    }
}
