//! How much a worker may add to the load of its upstreams by asking again: retries must not finish off an upstream that
//! is failing under load.

use std::cell::Cell;
use std::time::Instant;

/// Thousandths of a retry that each request allows: a fifth.
const PER_REQUEST: u64 = 200;
/// What is allowed whatever the load: retries per second.
const PER_SECOND: u64 = 10;
/// Most retries that are saved up, and what there is at the start.
const SAVED_MAX: u64 = 500 * RETRY;
const RETRY: u64 = 1000;

/// One worker's budget.
pub struct RetryBudget {
    saved: Cell<u64>,
    filled: Cell<Instant>,
}

impl RetryBudget {
    /// A full budget.
    pub fn new(now: Instant) -> Self {
        Self { saved: Cell::new(SAVED_MAX), filled: Cell::new(now) }
    }

    /// Counts a request.
    #[inline]
    pub fn request(&self) {
        self.saved.set((self.saved.get() + PER_REQUEST).min(SAVED_MAX));
    }

    /// Whether a retry may be made; it is paid for if so.
    pub fn retry(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled.get());
        self.filled.set(now);
        let floor = (since.as_micros() as u64).saturating_mul(PER_SECOND * RETRY / 1000) / 1000;
        let saved = self.saved.get().saturating_add(floor).min(SAVED_MAX);
        let left = saved.checked_sub(RETRY);
        self.saved.set(left.unwrap_or(saved));
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retries_are_a_fifth_of_requests_and_a_few_more() {
        let start = Instant::now();
        let budget = RetryBudget::new(start);
        let spend = |now| (0..10_000).take_while(|_| budget.retry(now)).count();
        assert_eq!(spend(start), 500, "what is saved up");
        assert_eq!(spend(start), 0);
        (0..100).for_each(|_| budget.request());
        assert_eq!(spend(start), 20, "a fifth of the requests");
        assert_eq!(spend(start + Duration::from_secs(2)), 20, "the floor");
        assert_eq!(spend(start + Duration::from_secs(100_000)), 500, "never more than can be saved");
    }
}
