//! The only place that asks the system what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock milliseconds since 1970 (UTC).
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

/// Wall-clock seconds since 1970 (UTC).
pub fn unix_s() -> u64 {
    unix_ms() / 1000
}

/// The monotonic clock.
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Both clocks, read once for a request so that everything in it agrees.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, for durations.
    pub instant: Instant,
    /// Wall clock in ms since 1970, for windows, `exp` and logs.
    pub unix_ms: u64,
}

impl Now {
    /// The present.
    pub fn read() -> Self {
        Self { instant: monotonic(), unix_ms: unix_ms() }
    }
}
