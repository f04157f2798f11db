//! Peak EWMA: a moving average of the time that a peer takes to answer, which rises at once and falls slowly; the
//! better of two random peers gets the request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The average's time constant.
const DECAY: Duration = Duration::from_secs(10);
/// What a failure counts as at least: one that fails fast must not look fast.
pub const FAILURE: Duration = Duration::from_secs(1);

/// One peer's average.
#[derive(Default)]
pub struct Ewma(Mutex<Option<(Instant, f64)>>);

fn decayed(value: f64, since: Duration) -> f64 {
    value * (-since.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

impl Ewma {
    /// Adds a measurement.
    pub fn observe(&self, took: Duration, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let took = took.as_secs_f64();
        let value = match *state {
            Some((at, value)) if took < value => {
                let old = decayed(1.0, now.saturating_duration_since(at));
                value * old + took * (1.0 - old)
            }
            _ => took,
        };
        *state = Some((now, value));
    }

    /// Seconds that the peer is expected to take. What is not measured for long tends to 0, so that it is tried again.
    pub fn expected(&self, now: Instant) -> f64 {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, value)) => decayed(value, now.saturating_duration_since(at)),
            None => 0.0,
        }
    }
}

/// The better of two random ones of the `usable` peers among `n`; `cost` is what is compared.
pub fn pick(
    n: usize,
    usable: impl Fn(usize) -> bool,
    cost: impl Fn(usize) -> f64,
    random: u64,
) -> Option<usize> {
    let count = (0..n).filter(|i| usable(*i)).count();
    if count == 0 {
        return None;
    }
    let nth = |k: usize| (0..n).filter(|i| usable(*i)).nth(k);
    let first = (random as u32) as usize % count;
    if count == 1 {
        return nth(0);
    }
    // Another than the first.
    let second = (first + 1 + (random >> 32) as usize % (count - 1)) % count;
    let (a, b) = (nth(first)?, nth(second)?);
    Some(if cost(b) < cost(a) { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_rises_at_once_and_falls_slowly() {
        let t = Instant::now();
        let at = |s: u64| t + Duration::from_secs(s);
        let ms = Duration::from_millis;
        let e = Ewma::default();
        assert_eq!(e.expected(t), 0.0);
        e.observe(ms(100), t);
        assert!((e.expected(t) - 0.1).abs() < 1e-9);
        e.observe(ms(900), t);
        assert!((e.expected(t) - 0.9).abs() < 1e-9, "a peak shows at once");
        e.observe(ms(100), at(1));
        assert!(e.expected(at(1)) > 0.8, "one good answer does not undo it");
        e.observe(ms(100), at(31));
        assert!(e.expected(at(31)) < 0.15, "time does");
        assert!(e.expected(at(200)) < 1e-6, "who is not asked becomes attractive again");
    }

    #[test]
    fn the_better_of_two_is_picked() {
        let cost = |i: usize| [3.0, 1.0, 2.0][i];
        for seed in 0..100_u64 {
            let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            assert_ne!(pick(3, |_| true, cost, random), Some(0), "the worst never wins against another");
            assert_eq!(pick(3, |i| i == 0, cost, random), Some(0));
            assert_eq!(pick(3, |i| i != 1, cost, random), Some(2));
            assert_eq!(pick(3, |_| false, cost, random), None);
        }
    }
}
