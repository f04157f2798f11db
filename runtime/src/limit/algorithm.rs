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
    /// As stores and tools call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Sliding => "sliding",
            Self::Bucket => "bucket",
        }
    }
}

impl Rule {
    fn length_ms(&self) -> u64 {
        self.period.seconds() * 1000
    }

    /// Start of the window around `now_ms`. Sliding windows have a fixed length and count from 1970.
    pub fn window_start_ms(&self, now_ms: u64) -> u64 {
        match (self.algorithm, &self.calendar) {
            (Algorithm::Fixed, Some(calendar)) => calendar.window(now_ms).start_ms,
            (Algorithm::Fixed, None) => self.period.start_ms(now_ms),
            (Algorithm::Sliding, _) => now_ms - now_ms % self.length_ms(),
            (Algorithm::Bucket, _) => now_ms,
        }
    }

    /// End of the window around `now_ms`; of a bucket, now.
    pub fn window_end_ms(&self, now_ms: u64) -> u64 {
        match (self.algorithm, &self.calendar) {
            (Algorithm::Fixed, Some(calendar)) => calendar.window(now_ms).end_ms,
            (Algorithm::Fixed, None) => self.period.end_ms(now_ms),
            (Algorithm::Sliding, _) => self.window_start_ms(now_ms) + self.length_ms(),
            (Algorithm::Bucket, _) => now_ms,
        }
    }

    /// Brings a state up to `now_ms`.
    ///
    /// Workers read the clock before they get here, so a request may come a little late, from the window before: it
    /// counts in the newer one. A clock that was set back further starts anew.
    pub fn advance(&self, cell: Cell, now_ms: u64) -> Cell {
        if self.algorithm == Algorithm::Bucket {
            if cell.at_ms > now_ms + self.length_ms() {
                return Cell { at_ms: now_ms, ..Cell::default() };
            }
            let drained = now_ms.saturating_sub(cell.at_ms) as f64 * self.limit / self.length_ms() as f64;
            return Cell {
                at_ms: now_ms.max(cell.at_ms),
                count: (cell.count - drained).max(0.0),
                previous: 0.0,
            };
        }
        let start = self.window_start_ms(now_ms);
        let late = match self.algorithm {
            Algorithm::Fixed => self.period.longest_ms(),
            _ => self.length_ms(),
        };
        if cell.at_ms == start || (cell.at_ms > start && cell.at_ms - start <= late) {
            return cell;
        }
        let adjacent = self.algorithm == Algorithm::Sliding && cell.at_ms + self.length_ms() == start;
        Cell { at_ms: start, count: 0.0, previous: if adjacent { cell.count } else { 0.0 } }
    }

    /// A state with `hits` more. A bucket never holds more than a full one and a period's worth, so that who was refused
    /// often, where that counts, is let in again within a period.
    pub fn charge(&self, mut cell: Cell, hits: f64) -> Cell {
        cell.count += hits;
        if self.algorithm == Algorithm::Bucket {
            cell.count = cell.count.min(self.burst + self.queue + self.limit);
        }
        cell
    }

    /// How the limit stands for a request of `hits`, given a state brought up to `now_ms`. `count_rejected` says whether
    /// the request counts even if it is refused.
    pub fn usage(&self, cell: Cell, hits: u32, now_ms: u64, count_rejected: bool) -> Usage {
        let needed = f64::from(hits.max(1));
        let (left, exhausted) = match self.algorithm {
            // Kong's rule lets a request through while anything is left, be it a fraction.
            Algorithm::Fixed => {
                let left = self.limit - cell.count;
                (left, left <= needed - 1.0)
            }
            Algorithm::Sliding => {
                let left = self.limit - self.sliding_estimate(cell, now_ms);
                (left, left + EPSILON < needed)
            }
            Algorithm::Bucket => {
                let left = self.burst - cell.count;
                (left, left + self.queue + EPSILON < needed)
            }
        };
        let after = if exhausted && count_rejected { self.charge(cell, f64::from(hits)) } else { cell };
        let retry_ms = if exhausted { self.retry_ms(after, needed, now_ms) } else { None };
        let delay_ms = match exhausted {
            false if self.queue > 0.0 => self.drain_ms(f64::from(hits) - left),
            _ => 0,
        };
        let ends_s = || seconds_up(self.window_end_ms(now_ms).saturating_sub(now_ms));
        let more_s = match (self.algorithm, retry_ms) {
            (_, Some(ms)) => seconds_up(ms),
            (Algorithm::Bucket, None) => seconds_up(self.drain_ms((cell.count + f64::from(hits)).min(1.0))),
            _ => ends_s(),
        };
        let reset_s = match self.algorithm {
            Algorithm::Fixed => match &self.calendar {
                None if self.period != Period::Week => self.period.reset_s(now_ms),
                _ => ends_s(),
            },
            Algorithm::Sliding if !exhausted => ends_s(),
            Algorithm::Bucket if !exhausted => seconds_up(self.drain_ms(cell.count)),
            _ => seconds_up(retry_ms.unwrap_or_else(|| self.length_ms())),
        };
        Usage { limit: self.limit, left, hits, exhausted, reset_s, more_s, retry_ms, delay_ms }
    }

    /// Until when a state means anything, in ms.
    pub fn expires_ms(&self, cell: Cell) -> u64 {
        match self.algorithm {
            Algorithm::Fixed => self.window_end_ms(cell.at_ms),
            Algorithm::Sliding => cell.at_ms + 2 * self.length_ms(),
            Algorithm::Bucket => cell.at_ms + self.drain_ms(cell.count),
        }
    }

    /// How much of the limit is used, from 0 to 1 or, where refused requests count, more.
    pub fn share(&self, cell: Cell) -> f64 {
        match self.algorithm {
            Algorithm::Bucket => cell.count / (self.burst + self.queue),
            _ => cell.count.max(cell.previous) / self.limit,
        }
    }

    /// ms until so many hits have drained from the bucket.
    fn drain_ms(&self, hits: f64) -> u64 {
        // Half of what comparisons forgive, so that what is said to fit then does.
        ((hits - EPSILON / 2.0).max(0.0) / self.limit * self.length_ms() as f64).ceil() as u64
    }

    fn sliding_estimate(&self, cell: Cell, now_ms: u64) -> f64 {
        let passed = (now_ms.saturating_sub(cell.at_ms) as f64 / self.length_ms() as f64).min(1.0);
        cell.previous * (1.0 - passed) + cell.count
    }

    /// ms until `needed` hits fit if nobody else comes.
    fn retry_ms(&self, cell: Cell, needed: f64, now_ms: u64) -> Option<u64> {
        let wait = match self.algorithm {
            Algorithm::Fixed if self.limit <= needed - 1.0 => return None,
            Algorithm::Fixed => self.window_end_ms(now_ms.max(cell.at_ms)).saturating_sub(now_ms),
            Algorithm::Sliding if self.limit + EPSILON < needed => return None,
            Algorithm::Sliding => self.sliding_wait_ms(cell, needed, now_ms),
            Algorithm::Bucket if self.burst + self.queue + EPSILON < needed => return None,
            Algorithm::Bucket => self.drain_ms(cell.count + needed - self.burst - self.queue),
        };
        Some(wait.max(1))
    }

    fn sliding_wait_ms(&self, cell: Cell, needed: f64, now_ms: u64) -> u64 {
        let length = self.length_ms() as f64;
        let passed = now_ms.saturating_sub(cell.at_ms) as f64;
        let room = self.limit - needed + EPSILON / 2.0;
        // When the share of a window's hits has fallen to what may remain of them.
        let fades = |hits: f64, to: f64| (1.0 - (to / hits).clamp(0.0, 1.0)) * length;
        // In this window, the share of the last one must fall to what the present count leaves.
        if cell.count <= room && cell.previous > 0.0 {
            return (fades(cell.previous, room - cell.count) - passed).ceil().max(0.0) as u64;
        }
        // In the next, this window's count is the last one's.
        let share = if cell.count > 0.0 { fades(cell.count, room) } else { 0.0 };
        (length - passed + share).ceil().max(0.0) as u64
    }
}

/// Whole seconds, rounded up, at least 1.
pub fn seconds_up(ms: u64) -> u64 {
    ms.div_ceil(1000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn rule(algorithm: Algorithm, limit: f64, burst: f64) -> Rule {
        Rule::new(algorithm, Period::Minute, limit).with_burst(burst, 0.0)
    }

    /// Admits what the algorithm admits out of requests at these times.
    fn run(rule: &Rule, times: impl IntoIterator<Item = u64>) -> Vec<bool> {
        let mut cell = Cell::default();
        let mut step = |now| {
            cell = rule.advance(cell, now);
            let admitted = !rule.usage(cell, 1, now, false).exhausted;
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
        let verdicts = run(&rule(Algorithm::Fixed, 4.0, 0.0), burst(MINUTE - 1).chain(burst(MINUTE)));
        assert_eq!(admitted(&verdicts[..10]), 4);
        assert_eq!(admitted(&verdicts[10..]), 4, "the known weakness: twice the limit around an edge");
    }

    #[test]
    fn a_late_request_counts_in_the_newer_window_and_a_clock_set_back_starts_anew() {
        let base = 30_000_000 * MINUTE;
        let times = [base + MINUTE, base + MINUTE - 1, base + MINUTE, base + MINUTE - 1];
        let two = rule(Algorithm::Fixed, 2.0, 0.0);
        assert_eq!(run(&two, times), [true, true, false, false]);
        let back = [base, base, base, base - 10 * MINUTE];
        assert_eq!(run(&two, back), [true, true, false, true]);
        // A month of 31 days is longer than a nominal one.
        let (july, august) = (1_782_864_000_000, 1_785_542_400_000);
        let month = Rule::new(Algorithm::Fixed, Period::Month, 2.0);
        assert_eq!(month.window_start_ms(august - 1), july);
        assert_eq!(run(&month, [august, august - 1, august, august - 1]), [true, true, false, false]);
    }

    #[test]
    fn a_sliding_window_remembers_the_last_one() {
        let base = 30_000_000 * MINUTE;
        let burst = |at: u64| std::iter::repeat_n(base + at, 20);
        let verdicts = run(
            &rule(Algorithm::Sliding, 10.0, 0.0),
            burst(MINUTE - 1).chain(burst(MINUTE)).chain(burst(MINUTE + MINUTE / 2)),
        );
        assert_eq!(admitted(&verdicts[..20]), 10);
        assert_eq!(admitted(&verdicts[20..40]), 0, "at the edge the last window still counts in full");
        assert_eq!(admitted(&verdicts[40..]), 5, "in the middle it counts half");
    }

    #[test]
    fn a_bucket_never_admits_more_than_burst_and_rate() {
        let r = rule(Algorithm::Bucket, 60.0, 5.0);
        let times: Vec<u64> = (0..2000).map(|i| 1_000_000 + i * 50).collect();
        let verdicts = run(&r, times.iter().copied());
        let total = admitted(&verdicts);
        assert!((104..=105).contains(&total), "100 s at 1/s and a burst of 5: {total}");
        assert_eq!(admitted(&verdicts[..10]), 5);
        // A request that comes late, by another worker's older clock, drains nothing twice.
        let back = [2_000_000, 1_999_000, 2_000_000, 1_999_500, 2_000_000, 1_999_000, 2_000_000];
        assert_eq!(admitted(&run(&r, back)), 5);
    }

    #[test]
    fn a_queue_spaces_requests_out() {
        let r = rule(Algorithm::Bucket, 60.0, 2.0).with_burst(2.0, 3.0);
        let mut cell = Cell::default();
        let mut delays = Vec::new();
        for _ in 0..6 {
            cell = r.advance(cell, MINUTE);
            let usage = r.usage(cell, 1, MINUTE, false);
            if usage.exhausted {
                assert_eq!((delays.len(), usage.retry_ms), (5, Some(1000)));
                continue;
            }
            delays.push(usage.delay_ms);
            cell = r.charge(cell, 1.0);
        }
        assert_eq!(delays, [0, 0, 1000, 2000, 3000]);
    }

    /// Numbers that look random and are always the same.
    fn numbers() -> impl Iterator<Item = u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
    }

    /// Whoever waits as long as he is told and comes alone gets through; and a second earlier he would not have.
    #[test]
    fn waits_are_honest() {
        let mut random = numbers();
        let mut next = |n: u64| random.next().unwrap_or_default() % n;
        let mut checked = 0;
        for _ in 0..20_000 {
            let algorithm = [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket][next(3) as usize];
            let period = Period::ALL[next(7) as usize];
            let limit = [1.0, 1.5, 7.0, 60.0, 1000.0, 12_345.0][next(6) as usize];
            let burst = [1.0, 3.0, 50.0][next(3) as usize];
            let queue = [0.0, 0.0, 2.5][next(3) as usize];
            let r = Rule::new(algorithm, period, limit).with_burst(burst, queue);
            let (hits, count_rejected) = (1 + next(3) as u32, next(2) == 0);
            // Some years from 2026 on.
            let mut now = 1_767_225_600_000 + next(200_000_000_000);
            let mut cell = Cell::default();
            let mut refusal = None;
            for _ in 0..30_000 {
                cell = r.advance(cell, now);
                let usage = r.usage(cell, hits, now, count_rejected);
                if usage.exhausted {
                    refusal = Some(usage);
                    break;
                }
                cell = r.charge(cell, f64::from(hits));
                now += next(period.seconds()) / 40;
            }
            let Some(usage) = refusal else { continue };
            let what = format!("{r:?} {cell:?} {hits} {count_rejected} at {now}");
            if count_rejected {
                cell = r.charge(cell, f64::from(hits));
            }
            let refused = |at: u64| r.usage(r.advance(cell, at), hits, at, count_rejected).exhausted;
            let Some(wait_ms) = usage.retry_ms else {
                assert!(refused(now + 10 * period.longest_ms()), "{what}: it would have passed");
                continue;
            };
            checked += 1;
            let wait_s = seconds_up(wait_ms);
            assert!(!refused(now + wait_s * 1000), "{what}: {wait_s} s is too short");
            assert!(!refused(now + wait_ms), "{what}: {wait_ms} ms is too short");
            if wait_s > 1 {
                // What rounding forgives is a moment, even of a year.
                let moment = 1 + period.longest_ms() / 100_000_000;
                assert!(refused(now + (wait_s - 1) * 1000 - moment), "{what}: {wait_s} s is too long");
            }
        }
        assert!(checked > 5000, "{checked}");
    }

    #[test]
    fn who_was_refused_often_is_let_in_again_within_a_period() {
        let r = rule(Algorithm::Bucket, 60.0, 5.0);
        let mut cell = Cell { at_ms: MINUTE, count: 0.0, previous: 0.0 };
        for _ in 0..10_000 {
            cell = r.charge(cell, 1.0);
        }
        assert!(!r.usage(r.advance(cell, 2 * MINUTE + 1000), 1, 2 * MINUTE + 1000, true).exhausted);
    }
}
