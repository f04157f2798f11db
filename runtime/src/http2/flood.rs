//! What a client makes the gateway do for nothing: counted, and bounded within a span of time.

use std::time::{Duration, Instant};

use super::frame::Code;
use crate::clock;

/// Counts start anew after so long.
const WINDOW: Duration = Duration::from_secs(10);
/// Streams that a client may take back within the window.
const RESETS: u32 = 100;
/// Streams that a client may make the gateway take back.
const LOCAL_RESETS: u32 = 100;
/// Streams that a client may open beyond those that it was allowed: it may not have heard of the bound yet.
const REFUSED: u32 = 1000;
/// PING, SETTINGS and PRIORITY frames, and DATA without a byte, beside those that answers give a right to.
const CONTROL: u32 = 1000;
/// gRPC clients measure the way with a PING for each piece of an answer (at most one in flight), so that many bytes of
/// answers give a right to one more control frame.
const BYTES_PER_CONTROL: u64 = 16;
/// The least that an answer's head counts for, however small a table has made it.
const HEAD: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub struct Flood {
    since: Option<Instant>,
    opened: u32,
    resets: u32,
    local_resets: u32,
    refused: u32,
    control: u32,
    /// Bytes of answers.
    answered: u64,
}

impl Flood {
    /// A stream was opened.
    pub fn opened(&mut self) {
        self.opened = self.opened.saturating_add(1);
    }

    /// Bytes of an answer go out.
    pub fn answered(&mut self, n: usize) {
        self.answered += n.max(HEAD) as u64;
    }

    /// The client has taken a stream back.
    ///
    /// # Errors
    /// That is too much.
    pub fn reset(&mut self) -> Result<(), Code> {
        self.resets += 1;
        self.check(|f| f.resets > RESETS && f.resets * 2 > f.opened)
    }

    /// The gateway has to take a stream back for the client's fault.
    ///
    /// # Errors
    /// That is too much.
    pub fn local_reset(&mut self) -> Result<(), Code> {
        self.local_resets += 1;
        self.check(|f| f.local_resets > LOCAL_RESETS)
    }

    /// A stream beyond the bound was refused.
    ///
    /// # Errors
    /// That is too much.
    pub fn refused(&mut self) -> Result<(), Code> {
        self.refused += 1;
        self.check(|f| f.refused > REFUSED)
    }

    /// A frame that costs work and moves nothing.
    ///
    /// # Errors
    /// That is too much.
    pub fn control(&mut self) -> Result<(), Code> {
        self.control = self.control.saturating_add(1);
        self.check(|f| f.control > CONTROL && u64::from(f.control - CONTROL) > f.answered / BYTES_PER_CONTROL)
    }

    /// The clock is asked only where there is too much of something.
    fn check(&mut self, too_much: impl Fn(&Self) -> bool) -> Result<(), Code> {
        if !too_much(self) {
            return Ok(());
        }
        self.over(clock::monotonic())
    }

    fn over(&mut self, now: Instant) -> Result<(), Code> {
        match self.since {
            Some(since) if now.duration_since(since) <= WINDOW => Err(Code::ENHANCE_YOUR_CALM),
            // The first span begins with the connection, for which no clock was read.
            None => Err(Code::ENHANCE_YOUR_CALM),
            Some(_) => {
                *self = Self { since: Some(now), ..Self::default() };
                Ok(())
            }
        }
    }

    /// Begins a new span if the last one is over; to be called now and then.
    pub fn renew(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.duration_since(since) > WINDOW) {
            *self = Self { since: Some(now), ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often `what` can be done at once.
    fn times(what: impl Fn(&mut Flood) -> Result<(), Code>) -> Option<u32> {
        let mut flood = Flood::default();
        flood.renew(clock::monotonic());
        (1..20_000).find(|_| what(&mut flood).is_err())
    }

    #[test]
    fn floods_are_seen_and_traffic_is_not() {
        assert_eq!(times(Flood::reset), Some(RESETS + 1));
        assert_eq!(times(Flood::local_reset), Some(LOCAL_RESETS + 1));
        assert_eq!(times(Flood::control), Some(CONTROL + 1));
        let mostly_served = |f: &mut Flood| {
            f.opened();
            f.opened();
            f.reset()
        };
        assert_eq!(times(mostly_served), None);
        let measured = |f: &mut Flood| {
            f.answered(9);
            f.control()
        };
        assert_eq!(times(measured), None);
    }

    #[test]
    fn a_new_span_forgives() {
        let mut flood = Flood::default();
        let start = clock::monotonic();
        flood.renew(start);
        for _ in 0..=RESETS {
            let _ = flood.reset();
        }
        assert!(flood.over(start + WINDOW + Duration::from_millis(1)).is_ok());
        assert!(flood.reset().is_ok());
    }
}
