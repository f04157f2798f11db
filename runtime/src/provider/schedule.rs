//! When a provider is asked. Time is passed in.

use std::time::{Duration, Instant};

/// Between two rounds that fail: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A round that is due by then is waited for.
const SOON: Duration = Duration::from_secs(2);
/// Rounds in a row that tokens with unknown keys may bring about at once although they change nothing.
const USELESS_FREE: u32 = 4;
/// After so long without such a round they are forgiven.
const FORGIVEN: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Debug)]
pub struct Schedule {
    /// Rounds begun and rounds ended.
    begun: u64,
    ended: u64,
    /// Whether the last round that ended was good.
    good: bool,
    /// The next regular round.
    due: Instant,
    /// A round is wanted at once.
    asked: bool,
    /// The running round was asked for.
    running_asked: bool,
    failures: u32,
    useless: u32,
    last_useless: Option<Instant>,
    /// Why the last round failed, if it did.
    pub last_error: Option<String>,
}

impl Schedule {
    /// The first round is due now.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: 0,
            ended: 0,
            good: false,
            due: now,
            asked: false,
            running_asked: false,
            failures: 0,
            useless: 0,
            last_useless: None,
            last_error: None,
        }
    }

    fn running(&self) -> bool {
        self.begun > self.ended
    }

    /// The round to wait for: the one that runs, else the next one; the last one where the next is far away.
    pub fn next_round(&self, now: Instant) -> u64 {
        match (self.running(), self.rests_long(now)) {
            (true, _) => self.begun,
            (false, true) => self.ended,
            (false, false) => self.ended + 1,
        }
    }

    /// Whether the provider failed and will not be asked soon.
    fn rests_long(&self, now: Instant) -> bool {
        self.failures > 0 && !self.running() && self.due.saturating_duration_since(now) > SOON
    }

    /// Asks for a round that begins from now on; its number. While the provider rests from failing that is the round
    /// that failed.
    pub fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.rests_long(now) {
            return Some(self.ended);
        }
        if self.asked {
            return Some(self.begun + 1);
        }
        if now < self.may_ask_at(now) {
            return None;
        }
        self.asked = true;
        Some(self.begun + 1)
    }

    /// Rounds that change nothing make the next one wait: 2, 4, 8 and at most 30 s after the last.
    fn may_ask_at(&self, now: Instant) -> Instant {
        match self.last_useless {
            Some(last) if self.useless >= USELESS_FREE && now.duration_since(last) < FORGIVEN => {
                let power = (self.useless - USELESS_FREE + 1).min(5);
                last + Duration::from_secs(1 << power).min(RETRY_MAX)
            }
            _ => now,
        }
    }

    /// Begins a round if it is time, else says when to look again.
    pub fn begin(&mut self, now: Instant) -> Result<(), Duration> {
        if self.running() {
            // Its end is told.
            return Err(RETRY_MAX);
        }
        // A provider that fails is not asked faster than that, whoever wants it.
        let resting = self.failures > 0 && now < self.due;
        if now < self.due && (!self.asked || resting) {
            return Err(self.due - now);
        }
        self.begun += 1;
        self.running_asked = std::mem::take(&mut self.asked);
        Ok(())
    }

    /// A round ended well; what it brought is good for `lifetime`.
    pub fn succeeded(&mut self, now: Instant, lifetime: Duration, changed: bool) {
        self.ended = self.begun;
        self.good = true;
        self.failures = 0;
        self.last_error = None;
        // Early enough that a provider which fails once is asked again before the end.
        self.due = now + lifetime.mul_f64(0.8);
        if changed {
            self.useless = 0;
        } else if self.running_asked {
            let forgiven = self.last_useless.is_none_or(|last| now.duration_since(last) >= FORGIVEN);
            self.useless = if forgiven { 1 } else { self.useless.saturating_add(1) };
            self.last_useless = Some(now);
        }
    }

    /// A round failed.
    pub fn failed(&mut self, now: Instant, why: String) {
        self.ended = self.begun;
        self.good = false;
        self.last_error = Some(why);
        let wait = RETRY_MIN * (1 << self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        self.due = now + wait.min(RETRY_MAX);
        // Those who asked are told that it failed; nobody waits for a round that is far away.
        self.asked = false;
    }

    /// Whether the round has ended, and if so whether well. A provider that failed and rests ends every round.
    pub fn is_over(&self, round: u64) -> Option<bool> {
        match self.ended >= round {
            true => Some(self.good),
            false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, s: f64) -> Instant {
        start + Duration::from_secs_f64(s)
    }

    #[test]
    fn refreshes_come_before_the_end_and_failures_back_off() {
        let start = crate::clock::monotonic();
        let mut s = Schedule::new(start);
        assert_eq!((s.next_round(start), s.begin(start)), (1, Ok(())));
        assert_eq!((s.next_round(start), s.begin(start)), (1, Err(RETRY_MAX)), "single flight");
        assert_eq!(s.is_over(1), None);
        s.succeeded(start, Duration::from_secs(100), true);
        assert_eq!((s.is_over(1), s.is_over(2)), (Some(true), None));
        assert_eq!(s.begin(start), Err(Duration::from_secs(80)));
        let mut now = at(start, 80.0);
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(s.begin(now), Ok(()), "{wait}");
            s.failed(now, "down".into());
            assert_eq!(s.begin(now), Err(Duration::from_secs(wait)));
            let (ended, soon) = (s.ended, wait <= 2);
            assert_eq!(
                s.ask(now),
                Some(ended + u64::from(soon)),
                "{wait}: nobody waits for what is far away"
            );
            assert_eq!(s.next_round(now), ended + u64::from(soon));
            assert_eq!(s.begin(now), Err(Duration::from_secs(wait)));
            now += Duration::from_secs(wait);
        }
        assert_eq!(s.begin(now), Ok(()));
        s.succeeded(now, Duration::from_secs(100), false);
        assert_eq!((s.failures, s.last_error.clone()), (0, None));
    }

    #[test]
    fn whoever_sends_unknown_keys_does_not_decide_how_often_is_asked() {
        let start = crate::clock::monotonic();
        let mut s = Schedule::new(start);
        s.begin(start).unwrap();
        s.succeeded(start, Duration::from_secs(3600), true);
        let (mut rounds, mut now) = (0, start);
        // A token every 10 ms for a minute.
        for _ in 0..6000 {
            now += Duration::from_millis(10);
            if s.ask(now).is_some() && s.begin(now).is_ok() {
                rounds += 1;
                s.succeeded(now, Duration::from_secs(3600), false);
            }
        }
        // Four at once, then after 2, 4, 8 and 16 s; the next would be after 30.
        assert_eq!(rounds, 4 + 4);
        // A change of keys is as good as new.
        now += Duration::from_secs(30);
        assert!(s.ask(now).is_some() && s.begin(now).is_ok());
        s.succeeded(now, Duration::from_secs(3600), true);
        assert!(s.ask(now).is_some());
    }

    #[test]
    fn a_round_that_began_before_is_not_enough() {
        let start = crate::clock::monotonic();
        let mut s = Schedule::new(start);
        s.begin(start).unwrap();
        let round = s.ask(start);
        assert_eq!((round, s.ask(start)), (Some(2), Some(2)), "all who ask share one round");
        s.succeeded(start, Duration::from_secs(100), true);
        assert_eq!(s.is_over(2), None);
        assert_eq!(s.begin(start), Ok(()));
        s.succeeded(start, Duration::from_secs(100), true);
        assert_eq!(s.is_over(2), Some(true));
    }
}
