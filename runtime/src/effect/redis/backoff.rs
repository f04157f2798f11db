//! Pauses between attempts to reach a server: doubled from the first to the longest, and never the same for two
//! gateways, so that a server that comes back is not met by all of them at once.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// A server that stays up for so long is trusted again.
const TRUSTED_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Backoff {
    pause: Cell<Duration>,
    up_since: Cell<Option<Instant>>,
}

impl Backoff {
    /// The first pause comes next.
    pub fn new() -> Self {
        Self { pause: Cell::new(FIRST), up_since: Cell::new(None) }
    }

    /// The server answers.
    pub fn up(&self, now: Instant) {
        self.up_since.set(Some(now));
    }

    /// The server does not answer any more. One that comes and goes is asked as seldom as one that stays away.
    pub fn down(&self, now: Instant) {
        if self.up_since.take().is_some_and(|since| now.duration_since(since) >= TRUSTED_AFTER) {
            self.pause.set(FIRST);
        }
    }

    /// Waits for the next pause.
    pub async fn wait(&self) {
        sleep(self.next()).await;
    }

    /// Between half of the pause and all of it.
    fn next(&self) -> Duration {
        let pause = self.pause.get();
        self.pause.set((pause * 2).min(LONGEST));
        pause.mul_f64(0.5 + 0.5 * unit())
    }
}

/// Any index of a list of this length; 0 if it is empty.
pub fn below(length: usize) -> usize {
    (unit() * length as f64) as usize
}

/// A number from 0 to 1.
fn unit() -> f64 {
    let random = ahash::RandomState::new().hash_one(0);
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_differ_and_begin_anew_only_for_a_server_that_stayed() {
        let (backoff, start) = (Backoff::new(), Instant::now());
        let next = || backoff.next().as_millis();
        for longest in [50, 100, 200, 400, 800, 1000, 1000] {
            let pause = next();
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        backoff.up(start);
        backoff.down(start + TRUSTED_AFTER / 2);
        assert!(next() >= 500, "it came only for a moment");
        backoff.up(start);
        backoff.down(start + TRUSTED_AFTER);
        assert!(next() <= 50);
        let numbers: Vec<f64> = (0..100).map(|_| unit()).collect();
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)) && numbers.iter().any(|n| *n != numbers[0]));
        assert_eq!((below(0), below(1)), (0, 0));
    }
}
