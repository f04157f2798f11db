//! How hits are counted. One state, [`Cell`], serves every algorithm; the Redis script keeps the same state.

use super::window::Period;
use super::{Rule, Usage};

/// The algorithms. `token-bucket` and `smooth` are both [`Algorithm::Bucket`], with another burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Kong's: a counter per calendar period. Up to twice the limit may pass around the edge of a window.
    Fixed,
    /// The counter of the current window and a share of the last one. Smooth for ordinary traffic.
    Sliding,
    /// A bucket that drains at the limit's rate. In any time `t`, at most `burst + rate × t` pass.
    Bucket,
}

/// The state of one limit for one key. All zero is the state of a key never seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// Start of the window that `count` belongs to; of a bucket, when `count` was last brought up to date. In ms.
    pub at_ms: u64,
    /// Hits of the window; of a bucket, its level.
    pub count: f64,
    /// Hits of the window before, for [`Algorithm::Sliding`].
    pub previous: f64,
}

/// Absorbs rounding where a level that is a sum of many small steps is compared with a whole number.
const EPSILON: f64 = 1e-9;

impl Algorithm {
    /// Start of the window around `now_ms`. Windows of a fixed length count from 1970.
    pub fn window_start_ms(self, period: Period, now_ms: u64) -> u64 {
        match self {
            Self::Fixed => period.start_ms(now_ms),
            Self::Sliding => now_ms - now_ms % (period.seconds() * 1000),
            Self::Bucket => now_ms,
        }
    }

    /// Brings a state up to `now_ms`.
    ///
    /// Workers read the clock before they get here, so a request may come a little late, from the window before: it
    /// counts in the newer one. A clock that was set back further starts anew.
    pub fn advance(self, rule: &Rule, cell: Cell, now_ms: u64) -> Cell {
        let length = rule.period.seconds() * 1000;
        if self == Self::Bucket {
            let drained = now_ms.saturating_sub(cell.at_ms) as f64 * rule.limit / length as f64;
            return Cell { at_ms: now_ms, count: (cell.count - drained).max(0.0), previous: 0.0 };
        }
        let start = self.window_start_ms(rule.period, now_ms);
        if cell.at_ms == start || (cell.at_ms > start && cell.at_ms - start <= length) {
            return cell;
        }
        let adjacent = self == Self::Sliding && cell.at_ms + length == start;
        Cell { at_ms: start, count: 0.0, previous: if adjacent { cell.count } else { 0.0 } }
    }

    /// How the limit stands for a request of `hits`, given a state brought up to `now_ms`.
    pub fn usage(self, rule: &Rule, cell: Cell, hits: u32, now_ms: u64) -> Usage {
        let needed = f64::from(hits.max(1));
        let (left, exhausted, reset_s) = match self {
            // Kong's rule lets a request through while anything is left, be it a fraction.
            Self::Fixed => {
                let left = rule.limit - cell.count;
                (left, left <= needed - 1.0, rule.period.reset_s(now_ms))
            }
            Self::Sliding => {
                let left = rule.limit - sliding_estimate(rule, cell, now_ms);
                let exhausted = left + EPSILON < needed;
                let ends = (cell.at_ms + rule.period.seconds() * 1000).saturating_sub(now_ms);
                let reset = match exhausted {
                    true => sliding_wait_s(rule, cell, needed, now_ms),
                    false => seconds_up(ends as f64 / 1000.0),
                };
                (left, exhausted, reset)
            }
            Self::Bucket => {
                let left = rule.burst - cell.count;
                let exhausted = left + EPSILON < needed;
                let drain = if exhausted { needed - left } else { cell.count };
                (left, exhausted, seconds_up(drain / rule.limit * rule.period.seconds() as f64))
            }
        };
        Usage { period: rule.period, limit: rule.limit, left, exhausted, reset_s }
    }

    /// Until when a state means anything, in ms.
    pub fn expires_ms(self, rule: &Rule, cell: Cell) -> u64 {
        let length = rule.period.seconds() * 1000;
        match self {
            // Two days more than a nominal month or year cover the longest real ones.
            Self::Fixed if rule.period >= Period::Month => cell.at_ms + length + 2 * 86_400_000,
            Self::Fixed => cell.at_ms + length,
            Self::Sliding => cell.at_ms + 2 * length,
            Self::Bucket => cell.at_ms + (cell.count / rule.limit * length as f64).ceil() as u64,
        }
    }
}

fn sliding_estimate(rule: &Rule, cell: Cell, now_ms: u64) -> f64 {
    let length = (rule.period.seconds() * 1000) as f64;
    let passed = (now_ms.saturating_sub(cell.at_ms) as f64 / length).min(1.0);
    cell.previous * (1.0 - passed) + cell.count
}

/// Seconds until `needed` hits fit if nobody else comes.
fn sliding_wait_s(rule: &Rule, cell: Cell, needed: f64, now_ms: u64) -> u64 {
    let length = rule.period.seconds() as f64;
    let passed = now_ms.saturating_sub(cell.at_ms) as f64 / 1000.0;
    let room = rule.limit - needed;
    // In this window, the share of the last one must fall to what the present count leaves.
    if cell.count <= room && cell.previous > 0.0 {
        let share = ((room - cell.count) / cell.previous).clamp(0.0, 1.0);
        return seconds_up((1.0 - share) * length - passed);
    }
    // In the next, this window's count is the last one's.
    let share = if cell.count > 0.0 { (room / cell.count).clamp(0.0, 1.0) } else { 1.0 };
    seconds_up(length - passed + (1.0 - share) * length)
}

fn seconds_up(seconds: f64) -> u64 {
    ((seconds - 1e-6).ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn rule(limit: f64, burst: f64) -> Rule {
        Rule { period: Period::Minute, limit, burst }
    }

    /// Admits what the algorithm admits out of requests at these times.
    fn run(algorithm: Algorithm, rule: Rule, times: impl IntoIterator<Item = u64>) -> Vec<bool> {
        let mut cell = Cell::default();
        let mut step = |now| {
            cell = algorithm.advance(&rule, cell, now);
            let admitted = !algorithm.usage(&rule, cell, 1, now).exhausted;
            cell.count += f64::from(u8::from(admitted));
            admitted
        };
        times.into_iter().map(&mut step).collect()
    }

    fn admitted(verdicts: &[bool]) -> usize {
        verdicts.iter().filter(|v| **v).count()
    }

    #[test]
    fn a_fixed_window_admits_its_limit_and_starts_anew_at_the_edge() {
        let base = 30_000_000 * MINUTE;
        let burst = |at: u64| std::iter::repeat_n(base + at, 10);
        let verdicts = run(Algorithm::Fixed, rule(4.0, 0.0), burst(MINUTE - 1).chain(burst(MINUTE)));
        assert_eq!(admitted(&verdicts[..10]), 4);
        assert_eq!(admitted(&verdicts[10..]), 4, "the known weakness: twice the limit around an edge");
    }

    #[test]
    fn a_late_request_counts_in_the_newer_window_and_a_clock_set_back_starts_anew() {
        let base = 30_000_000 * MINUTE;
        let times = [base + MINUTE, base + MINUTE - 1, base + MINUTE, base + MINUTE - 1];
        assert_eq!(run(Algorithm::Fixed, rule(2.0, 0.0), times), [true, true, false, false]);
        let back = [base, base, base, base - 10 * MINUTE];
        assert_eq!(run(Algorithm::Fixed, rule(2.0, 0.0), back), [true, true, false, true]);
    }

    #[test]
    fn a_sliding_window_remembers_the_last_one() {
        let base = 30_000_000 * MINUTE;
        let burst = |at: u64| std::iter::repeat_n(base + at, 20);
        let verdicts = run(
            Algorithm::Sliding,
            rule(10.0, 0.0),
            burst(MINUTE - 1).chain(burst(MINUTE)).chain(burst(MINUTE + MINUTE / 2)),
        );
        assert_eq!(admitted(&verdicts[..20]), 10);
        assert_eq!(admitted(&verdicts[20..40]), 0, "at the edge the last window still counts in full");
        assert_eq!(admitted(&verdicts[40..]), 5, "in the middle it counts half");
    }

    #[test]
    fn a_bucket_never_admits_more_than_burst_and_rate() {
        let r = rule(60.0, 5.0);
        let times: Vec<u64> = (0..2000).map(|i| 1_000_000 + i * 50).collect();
        let verdicts = run(Algorithm::Bucket, r, times.iter().copied());
        let total = admitted(&verdicts);
        assert!((104..=105).contains(&total), "100 s at 1/s and a burst of 5: {total}");
        assert_eq!(admitted(&verdicts[..10]), 5);
    }

    #[test]
    fn waits_are_honest() {
        for (algorithm, r) in [(Algorithm::Sliding, rule(10.0, 0.0)), (Algorithm::Bucket, rule(60.0, 3.0))] {
            for offset in [0, 1, 17_000, 59_999] {
                let now = 30_000_000 * MINUTE + offset;
                let mut cell = algorithm.advance(&r, Cell::default(), now);
                while !algorithm.usage(&r, cell, 1, now).exhausted {
                    cell.count += 1.0;
                }
                let wait = algorithm.usage(&r, cell, 1, now).reset_s;
                let at = |t: u64| algorithm.usage(&r, algorithm.advance(&r, cell, t), 1, t).exhausted;
                assert!(!at(now + wait * 1000), "{algorithm:?} at {offset}: {wait} s is too short");
                if wait > 1 {
                    assert!(
                        at(now + (wait - 1) * 1000 - 1),
                        "{algorithm:?} at {offset}: {wait} s is too long"
                    );
                }
            }
        }
    }
}
