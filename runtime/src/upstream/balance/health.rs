//! Whether a peer is fit to get requests: counts of outcomes in a row, and the trials of one that is out.
//!
//! A success clears the counts of failures and a failure that of successes; probes and real responses count into the
//! same counts, each with its own thresholds. A peer that only real responses watch could never come back, since it
//! gets none; it rests instead, and then one request tries it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::snapshot::upstream::Thresholds;

/// Longest rest between trials, unless the config's own is longer.
const REST_MAX: Duration = Duration::from_secs(60);

/// What became of a request or a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    /// The connection failed, or broke, or brought no valid answer.
    TcpFailure,
    Timeout,
    /// A probe by connection alone came about.
    Connected,
}

/// One peer's counts. Time is passed in.
#[derive(Clone, Debug)]
struct Counts {
    healthy: bool,
    successes: u32,
    http_failures: u32,
    tcp_failures: u32,
    timeouts: u32,
    /// Since when it is out, or was last tried; and how many trials in a row failed.
    rests_from: Option<Instant>,
    failed_trials: u32,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            healthy: true,
            successes: 0,
            http_failures: 0,
            tcp_failures: 0,
            timeouts: 0,
            rests_from: None,
            failed_trials: 0,
        }
    }
}

impl Counts {
    fn report(&mut self, outcome: Outcome, limits: &Thresholds, trial: bool, now: Instant) {
        let trial = trial && !self.healthy;
        let (count, limit) = match outcome {
            Outcome::Connected => return self.success(limits, trial),
            Outcome::Status(s) if limits.unhealthy_statuses.contains(&s) => {
                (&mut self.http_failures, limits.http_failures)
            }
            // What is no failure is good enough for a trial.
            Outcome::Status(s) if trial || limits.healthy_statuses.contains(&s) => {
                return self.success(limits, trial);
            }
            Outcome::Status(_) => return,
            Outcome::TcpFailure => (&mut self.tcp_failures, limits.tcp_failures),
            Outcome::Timeout => (&mut self.timeouts, limits.timeouts),
        };
        self.successes = 0;
        *count += 1;
        if self.healthy && limit > 0 && *count >= limit {
            *self = Self { healthy: false, rests_from: Some(now), ..Self::default() };
        } else if trial {
            self.failed_trials += 1;
            self.rests_from = Some(now);
        }
    }

    fn success(&mut self, limits: &Thresholds, trial: bool) {
        (self.http_failures, self.tcp_failures, self.timeouts) = (0, 0, 0);
        if self.healthy {
            return;
        }
        self.successes += 1;
        let enough = match limits.successes {
            0 => trial,
            n => self.successes >= n,
        };
        if enough {
            *self = Self::default();
        } else if trial {
            // Well so far: the next request may try at once.
            self.failed_trials = 0;
            self.rests_from = None;
        }
    }

    fn claim_trial(&mut self, rest: Duration, now: Instant) -> bool {
        let rest = (rest * 2_u32.pow(self.failed_trials.min(10))).min(rest.max(REST_MAX));
        let due =
            !self.healthy && self.rests_from.is_none_or(|from| now.saturating_duration_since(from) >= rest);
        if due {
            // One at a time; if it is never heard of again, another follows after as long.
            self.rests_from = Some(now);
        }
        due
    }
}

/// A peer's health, shared by all workers and the probes.
#[derive(Default)]
pub struct Health {
    /// The one thing that is looked at for every request.
    out: AtomicBool,
    counts: Mutex<Counts>,
}

impl Health {
    /// Whether requests may go to the peer.
    #[inline]
    pub fn is_healthy(&self) -> bool {
        !self.out.load(Ordering::Relaxed)
    }

    /// Counts an outcome. `trial`: of the request that [`Health::claim_trial`] let through. Gives the new state if it
    /// changed.
    pub fn report(&self, outcome: Outcome, limits: &Thresholds, trial: bool, now: Instant) -> Option<bool> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = counts.healthy;
        counts.report(outcome, limits, trial, now);
        let after = counts.healthy;
        self.out.store(!after, Ordering::Relaxed);
        (before != after).then_some(after)
    }

    /// Whether a peer that is out has rested for `rest` (longer after trials that failed), so that one request may try
    /// it. True once for each rest.
    pub fn claim_trial(&self, rest: Duration, now: Instant) -> bool {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).claim_trial(rest, now)
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Connected, Status, TcpFailure, Timeout};
    use super::*;

    fn limits(successes: u32, http: u32, tcp: u32, timeouts: u32) -> Thresholds {
        Thresholds {
            successes,
            http_failures: http,
            tcp_failures: tcp,
            timeouts,
            healthy_statuses: vec![200, 302],
            unhealthy_statuses: vec![429, 500, 503],
        }
    }

    /// The state after each outcome: `+` healthy, `-` out.
    fn check(limits: &Thresholds, outcomes: &[Outcome], want: &str) {
        let (health, now) = (Health::default(), Instant::now());
        let mut got = String::new();
        for o in outcomes {
            health.report(*o, limits, false, now);
            got.push(if health.is_healthy() { '+' } else { '-' });
        }
        assert_eq!(got, want, "{limits:?} {outcomes:?}");
    }

    #[test]
    fn thresholds_count_in_a_row() {
        let (ok, bad, odd) = (Status(200), Status(500), Status(404));
        // Each kind of failure has its own count and its own threshold.
        check(&limits(0, 3, 0, 0), &[bad, bad, bad, ok, ok], "++---");
        check(&limits(0, 0, 2, 0), &[TcpFailure, TcpFailure], "+-");
        check(&limits(0, 0, 0, 2), &[Timeout, Timeout], "+-");
        check(&limits(0, 2, 2, 2), &[bad, TcpFailure, Timeout, bad], "+++-");
        check(&limits(0, 1, 0, 0), &[Status(429)], "-");
        // 0 is never.
        check(&limits(0, 0, 0, 0), &[bad, bad, TcpFailure, Timeout, Timeout], "+++++");
        check(&limits(1, 2, 0, 0), &[TcpFailure, TcpFailure, TcpFailure], "+++");
        // A success clears the failures, also where successes have no threshold.
        check(&limits(0, 2, 0, 0), &[bad, ok, bad, ok, bad, bad], "+++++-");
        check(&limits(1, 2, 2, 0), &[bad, TcpFailure, ok, bad, TcpFailure, bad], "+++++-");
        // A status of neither list counts as nothing.
        check(&limits(0, 2, 0, 0), &[bad, odd, bad], "++-");
        check(&limits(2, 1, 0, 0), &[bad, ok, odd, ok], "---+");
        // A failure clears the successes.
        check(&limits(2, 1, 0, 0), &[bad, ok, bad, ok, ok], "----+");
        check(&limits(2, 1, 1, 1), &[bad, ok, Timeout, ok, ok], "----+");
        check(&limits(1, 0, 1, 0), &[TcpFailure, Connected, TcpFailure], "-+-");
        // The counts start anew with the state.
        check(&limits(1, 2, 0, 0), &[bad, bad, ok, bad, bad], "+-++-");
    }

    #[test]
    fn one_request_tries_a_peer_that_has_rested() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let rest = Duration::from_secs(10);
        let (h, l) = (Health::default(), limits(0, 1, 1, 1));
        assert!(!h.claim_trial(rest, start), "a healthy one needs no trial");
        assert_eq!(h.report(Status(500), &l, false, start), Some(false));
        assert!(!h.claim_trial(rest, at(9)));
        assert!(h.claim_trial(rest, at(10)));
        assert!(!h.claim_trial(rest, at(11)), "one at a time");
        // Answers to requests from before do not count as the trial's.
        assert_eq!(h.report(Status(200), &l, false, at(11)), None);
        assert_eq!(h.report(TcpFailure, &l, true, at(11)), None);
        assert!(!h.claim_trial(rest, at(30)), "the rest is doubled");
        assert!(h.claim_trial(rest, at(31)));
        // That one is never heard of again.
        assert!(h.claim_trial(rest, at(51)));
        assert_eq!(h.report(Status(404), &l, true, at(52)), Some(true), "anything but a failure will do");
        assert!(h.is_healthy());
    }

    #[test]
    fn trials_go_on_at_once_until_successes_suffice() {
        let start = Instant::now();
        let rest = Duration::from_secs(10);
        let (h, l) = (Health::default(), limits(2, 1, 1, 1));
        h.report(Timeout, &l, false, start);
        let later = start + rest;
        assert!(h.claim_trial(rest, later));
        assert_eq!(h.report(Status(200), &l, true, later), None);
        assert!(h.claim_trial(rest, later));
        assert_eq!(h.report(Status(200), &l, true, later), Some(true));
    }

    #[test]
    fn rests_are_bounded() {
        let start = Instant::now();
        let rest = Duration::from_secs(10);
        let (h, l) = (Health::default(), limits(0, 1, 1, 1));
        h.report(Timeout, &l, false, start);
        let mut now = start;
        for _ in 0..50 {
            now += REST_MAX;
            assert!(h.claim_trial(rest, now));
            h.report(Timeout, &l, true, now);
        }
    }
}
