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
    /// The present. The wall clock is asked at most once a second and thread; in between the monotonic clock carries it on.
    pub fn read() -> Self {
        thread_local! {
            static BASE: std::cell::Cell<Option<(Instant, u64)>> = const { std::cell::Cell::new(None) };
        }
        let instant = monotonic();
        if let Some((at, ms)) = BASE.get() {
            let since = instant.duration_since(at);
            if since < Duration::from_secs(1) {
                return Self { instant, unix_ms: ms + since.as_millis() as u64 };
            }
        }
        let unix_ms = unix_ms();
        BASE.set(Some((instant, unix_ms)));
        Self { instant, unix_ms }
    }
}
