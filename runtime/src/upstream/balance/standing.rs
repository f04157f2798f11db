//! Whether a peer is let alone for a while, and how much of its weight counts once it is back.
//!
//! Health is a state that checks change; a peer is away until a moment in time: ejected because its answers are worse
//! than those of its siblings, or resting because it asked for it with `Retry-After`. What nobody else can serve is
//! sent to peers that are away, too: being away never makes an upstream fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::snapshot::upstream::Outlier;

/// A whole weight, in the unit of [`Standing::share`].
pub const WHOLE: u32 = 1000;
/// The share that a ramp begins with: less would tell nothing about the peer.
const SHARE_MIN: u32 = WHOLE / 10;

#[derive(Debug, Default)]
struct Inner {
    /// Away until then.
    until: Option<Instant>,
    /// Away because it was ejected.
    ejected: bool,
    /// Ejections that count for how long the next one is, and when the last one ended.
    ejections: u32,
    back: Option<Instant>,
    /// Errors in a row.
    errors: u32,
    /// Answers of the interval, and how many of them were no errors.
    answers: u32,
    successes: u32,
    /// Since when the weight ramps up.
    ramp: Option<Instant>,
}

/// One peer's standing, shared by all workers.
#[derive(Debug, Default)]
pub struct Standing {
    /// The two things that are looked at for every request.
    away: AtomicBool,
    ramping: AtomicBool,
    inner: Mutex<Inner>,
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer is let alone at `now`. One whose time is over comes back, with its weight ramping up.
    #[inline]
    pub fn is_away(&self, now: Instant) -> bool {
        self.away.load(Ordering::Relaxed) && self.still_away(now)
    }

    #[cold]
    fn still_away(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        if inner.until.is_some_and(|until| now < until) {
            return true;
        }
        if std::mem::take(&mut inner.ejected) {
            inner.back = inner.until;
        }
        inner.until = None;
        inner.ramp = Some(now);
        self.away.store(false, Ordering::Relaxed);
        self.ramping.store(true, Ordering::Relaxed);
        false
    }

    /// Whether the peer is away because it was ejected.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.is_away(now) && self.lock().ejected
    }

    /// Lets the peer alone for as long as it asked. Never shortens what there is.
    pub fn rest(&self, time: Duration, now: Instant) {
        let mut inner = self.lock();
        inner.until = inner.until.max(Some(now + time));
        self.away.store(true, Ordering::Relaxed);
    }

    /// Ejects the peer, longer each time; good conduct of as long as [`Outlier::base`] makes up for one ejection.
    pub fn eject(&self, rules: &Outlier, now: Instant) {
        let mut inner = self.lock();
        let good = inner.back.map_or(Duration::ZERO, |back| now.saturating_duration_since(back));
        let made_up = good.as_secs_f64() / rules.base.as_secs_f64().max(0.001);
        inner.ejections = inner.ejections.saturating_sub(made_up as u32).saturating_add(1);
        let time = rules.base.saturating_mul(inner.ejections).min(rules.max.max(rules.base));
        inner.until = inner.until.max(Some(now + time));
        inner.ejected = true;
        (inner.errors, inner.answers, inner.successes) = (0, 0, 0);
        self.away.store(true, Ordering::Relaxed);
    }

    /// Counts an answer; true if it makes the row of errors long enough for an ejection. `gateway_error`: the peer
    /// could not be reached, or says that it cannot serve.
    pub fn count(&self, gateway_error: bool, error: bool, rules: &Outlier) -> bool {
        let mut inner = self.lock();
        inner.answers = inner.answers.saturating_add(1);
        inner.successes = inner.successes.saturating_add(u32::from(!error));
        inner.errors = if gateway_error { inner.errors.saturating_add(1) } else { 0 };
        rules.consecutive_errors > 0 && inner.errors >= rules.consecutive_errors
    }

    /// Takes the interval's counts: answers, and successes among them.
    pub fn take_counts(&self) -> (u32, u32) {
        let mut inner = self.lock();
        (std::mem::take(&mut inner.answers), std::mem::take(&mut inner.successes))
    }

    /// Begins a ramp: the peer is new, or was out.
    pub fn start_ramp(&self, now: Instant) {
        self.lock().ramp = Some(now);
        self.ramping.store(true, Ordering::Relaxed);
    }

    /// How much of its weight counts, in thousandths, where weights take `over` to ramp up.
    #[inline]
    pub fn share(&self, over: Duration, now: Instant) -> u32 {
        if self.ramping.load(Ordering::Relaxed) { self.ramp(over, now) } else { WHOLE }
    }

    #[cold]
    fn ramp(&self, over: Duration, now: Instant) -> u32 {
        let mut inner = self.lock();
        let past = inner.ramp.map_or(over, |from| now.saturating_duration_since(from));
        if past >= over {
            inner.ramp = None;
            self.ramping.store(false, Ordering::Relaxed);
            return WHOLE;
        }
        let share = past.as_secs_f64() / over.as_secs_f64() * f64::from(WHOLE);
        (share as u32).clamp(SHARE_MIN, WHOLE)
    }
}

/// Which of these success rates are outliers: lower than the mean by more than `factor` standard deviations.
pub fn outliers(rates: &[f64], factor: f64) -> impl Iterator<Item = usize> {
    let n = rates.len().max(1) as f64;
    let mean = rates.iter().sum::<f64>() / n;
    let deviation = (rates.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n).sqrt();
    let least = mean - factor * deviation;
    rates.iter().enumerate().filter(move |(_, r)| deviation > 0.0 && **r < least).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn rules() -> Outlier {
        Outlier { consecutive_errors: 3, base: 10 * S, max: 25 * S, ..Outlier::default() }
    }

    #[test]
    fn ejections_grow_up_to_a_bound_and_good_conduct_makes_up_for_them() {
        let (s, t) = (Standing::default(), Instant::now());
        let mut now = t;
        for want in [10, 20, 25, 25] {
            s.eject(&rules(), now);
            assert!(s.is_ejected(now + want * S - S / 10) && !s.is_away(now + want * S), "{want}");
            now += want * S;
        }
        // Four ejections; after 30 seconds of good conduct it is the second.
        s.eject(&rules(), now + 30 * S);
        assert!(s.is_away(now + 49 * S) && !s.is_away(now + 50 * S));
    }

    #[test]
    fn a_rest_is_no_ejection_and_never_shortens_one() {
        let (s, t) = (Standing::default(), Instant::now());
        s.rest(5 * S, t);
        assert!(s.is_away(t) && !s.is_ejected(t));
        s.rest(S, t);
        assert!(s.is_away(t + 4 * S) && !s.is_away(t + 5 * S));
        s.eject(&rules(), t);
        s.rest(S, t);
        assert!(s.is_ejected(t + 9 * S) && !s.is_away(t + 10 * S));
    }

    #[test]
    fn only_errors_in_a_row_count() {
        let s = Standing::default();
        let got: String = "xx.xxex"
            .chars()
            .map(|c| if s.count(c == 'x', c != '.', &rules()) { '!' } else { '-' })
            .collect();
        assert_eq!(got, "-------", "an error that is no gateway error ends the row");
        assert_eq!(s.take_counts(), (7, 1));
        assert!(!s.count(true, true, &rules()) && s.count(true, true, &rules()));
        let off = Outlier { consecutive_errors: 0, ..rules() };
        assert!(!s.count(true, true, &off), "0 is never");
    }

    #[test]
    fn the_weight_ramps_up() {
        let (s, t) = (Standing::default(), Instant::now());
        assert_eq!(s.share(10 * S, t), WHOLE);
        s.start_ramp(t);
        for (after, want) in [(0, 100), (1, 100), (5, 500), (9, 900), (10, 1000), (0, 1000)] {
            assert_eq!(s.share(10 * S, t + after * S), want, "{after}");
        }
        s.rest(S, t);
        assert!(!s.is_away(t + S));
        assert_eq!(s.share(10 * S, t + 2 * S), 100, "who was away begins anew");
    }

    #[test]
    fn an_outlier_is_far_below_the_mean() {
        let check = |rates: &[f64], factor, want: &[usize]| {
            assert_eq!(outliers(rates, factor).collect::<Vec<_>>(), want, "{rates:?}");
        };
        check(&[1.0, 1.0, 1.0, 1.0, 0.5], 1.9, &[4]);
        check(&[1.0, 1.0, 0.9, 1.0, 0.95], 1.9, &[]);
        check(&[0.5, 0.5, 0.5], 0.0, &[]);
        check(&[1.0, 0.0], 0.5, &[1]);
        check(&[], 1.0, &[]);
    }
}
