//! When requests are due.
//!
//! In an open loop the due time of request `i` is a closed formula of `i`: it never depends on how the target behaves, so
//! a target that stalls cannot slow the clock that it is measured by. One schedule serves all connections: whichever is
//! free first takes the next request. (A schedule of its own for each connection would invent latency.)

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How requests follow one another within a phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Open loop: requests per second at the beginning and at the end of the phase, linear in between.
    Rate { from: f64, to: f64 },
    /// Closed loop: each connection sends as soon as its last request was answered.
    Closed,
}

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    /// Counts from 0 through the run.
    pub index: u64,
    /// Index of the phase.
    pub phase: usize,
    /// Since the start of the run. None: now.
    pub due: Option<Duration>,
}

/// The whole run's schedule, shared by all workers.
#[derive(Debug)]
pub struct Schedule {
    phases: Vec<PhaseTimes>,
    next: AtomicU64,
    /// Ends the run after so many requests.
    most: u64,
    open: bool,
}

#[derive(Clone, Copy, Debug)]
struct PhaseTimes {
    /// Seconds since the start of the run.
    start: f64,
    length: f64,
    from: f64,
    to: f64,
    /// Requests due before this phase, and in it.
    first: u64,
    count: u64,
}

impl Schedule {
    /// A schedule of these phases, one after another. `None` as a length means without end. All are of one kind of pace
    /// (a [`crate::plan::Plan`] makes sure of it).
    pub fn new(phases: &[(Pace, Option<Duration>)], most: Option<u64>) -> Self {
        let (mut start, mut first) = (0.0, 0u64);
        let mut out = Vec::with_capacity(phases.len());
        for &(pace, length) in phases {
            let length = length.map_or(f64::INFINITY, |d| d.as_secs_f64());
            let (from, to) = match pace {
                Pace::Rate { from, to } => (from, to),
                Pace::Closed => (0.0, 0.0),
            };
            let due = (from + to) / 2.0 * length;
            // Rounded to a millionth of a request, so that 0.1 + 0.2 does not make one request more.
            let count = if due.is_finite() { (due - 1e-6).ceil().max(0.0) as u64 } else { u64::MAX };
            out.push(PhaseTimes { start, length, from, to, first, count });
            start += length;
            first = first.saturating_add(count);
        }
        let open = phases.iter().any(|(pace, _)| matches!(pace, Pace::Rate { .. }));
        Self { phases: out, next: AtomicU64::new(0), most: most.unwrap_or(u64::MAX), open }
    }

    /// Whether due times are fixed beforehand.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// When the last phase ends; None if only a number of requests ends the run.
    pub fn end(&self) -> Option<Duration> {
        let last = self.phases.last()?;
        Duration::try_from_secs_f64(last.start + last.length).ok()
    }

    /// The next request for whoever is free; `elapsed` is the time since the start. None: there is nothing more to send.
    pub fn claim(&self, elapsed: Duration) -> Option<Job> {
        if !self.open {
            let now = elapsed.as_secs_f64();
            let phase = self.phases.iter().position(|p| now < p.start + p.length)?;
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            return (index < self.most).then_some(Job { index, phase, due: None });
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        self.job(index)
    }

    /// Request `index` of an open loop.
    pub fn job(&self, index: u64) -> Option<Job> {
        if index >= self.most {
            return None;
        }
        let phase = self.phases.iter().rposition(|p| p.count > 0 && p.first <= index)?;
        let times = &self.phases[phase];
        let offset = index - times.first;
        (offset < times.count).then(|| Job {
            index,
            phase,
            due: Some(Duration::from_secs_f64(times.start + times.due(offset as f64))),
        })
    }

    /// How many requests of an open loop are due before `elapsed`.
    pub fn offered(&self, elapsed: Duration) -> u64 {
        let now = elapsed.as_secs_f64();
        let due = |p: &PhaseTimes| {
            let t = (now - p.start).clamp(0.0, p.length);
            if t >= p.length { p.count } else { (p.expected(t) - 1e-6).ceil().max(0.0) as u64 }
        };
        self.phases.iter().map(due).sum::<u64>().min(self.most)
    }
}

impl PhaseTimes {
    /// Requests due within the phase's first `t` seconds.
    fn expected(&self, t: f64) -> f64 {
        if t <= 0.0 { 0.0 } else { self.from * t + (self.to - self.from) / (2.0 * self.length) * t * t }
    }

    /// The inverse: seconds into the phase at which `k` requests were due before.
    fn due(&self, k: f64) -> f64 {
        let slope = (self.to - self.from) / self.length;
        if slope == 0.0 || !slope.is_finite() {
            return k / self.from;
        }
        // The stable root of slope/2 t² + from t - k = 0.
        let root = (self.from * self.from + 2.0 * slope * k).max(0.0).sqrt();
        if k == 0.0 { 0.0 } else { 2.0 * k / (self.from + root) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(from: f64, to: f64, seconds: u64) -> (Pace, Option<Duration>) {
        (Pace::Rate { from, to }, Some(Duration::from_secs(seconds)))
    }

    fn all(schedule: &Schedule) -> Vec<(usize, f64)> {
        std::iter::from_fn(|| schedule.claim(Duration::ZERO))
            .map(|j| (j.phase, j.due.unwrap().as_secs_f64()))
            .collect()
    }

    #[test]
    fn a_constant_rate_is_due_at_equal_intervals_from_zero() {
        let due = all(&Schedule::new(&[rate(500.0, 500.0, 2)], None));
        assert_eq!(due.len(), 1000);
        for (i, (_, t)) in due.iter().enumerate() {
            assert!((t - i as f64 / 500.0).abs() < 1e-8, "{i}: {t}");
        }
    }

    #[test]
    fn a_ramp_follows_its_integral() {
        let schedule = Schedule::new(&[rate(0.0, 100.0, 10)], None);
        let due = all(&schedule);
        assert_eq!(due.len(), 500);
        // Half of the time sees a quarter of the requests.
        let early = due.iter().filter(|(_, t)| *t < 5.0).count();
        assert!((124..=126).contains(&early), "{early}");
        assert!(due.windows(2).all(|w| w[0].1 <= w[1].1), "due times never go back");
        assert!(due.iter().all(|(_, t)| *t < 10.0));
        let down = all(&Schedule::new(&[rate(100.0, 0.0, 10)], None));
        assert!(down.iter().all(|(_, t)| t.is_finite() && *t <= 10.0));
    }

    #[test]
    fn phases_follow_one_another_and_a_pause_sends_nothing() {
        let due = all(&Schedule::new(&[rate(10.0, 10.0, 1), rate(0.0, 0.0, 5), rate(20.0, 20.0, 1)], None));
        assert_eq!(due.len(), 30);
        assert_eq!(due[9].0, 0);
        assert_eq!(due[10], (2, 6.0));
    }

    #[test]
    fn a_number_of_requests_ends_the_run() {
        assert_eq!(all(&Schedule::new(&[rate(10.0, 10.0, 100)], Some(7))).len(), 7);
        let endless = Schedule::new(&[(Pace::Rate { from: 10.0, to: 10.0 }, None)], Some(5));
        assert_eq!(all(&endless).len(), 5);
        let closed = Schedule::new(&[(Pace::Closed, None)], Some(5));
        assert_eq!(std::iter::from_fn(|| closed.claim(Duration::from_secs(1))).count(), 5);
    }

    #[test]
    fn a_closed_loop_ends_by_the_clock() {
        let closed = Schedule::new(&[(Pace::Closed, Some(Duration::from_secs(1)))], None);
        assert!(closed.claim(Duration::from_millis(999)).is_some());
        assert!(closed.claim(Duration::from_millis(1000)).is_none());
    }

    #[test]
    fn offered_counts_what_was_due() {
        let schedule = Schedule::new(&[rate(100.0, 100.0, 10)], None);
        assert_eq!(schedule.offered(Duration::from_secs(5)), 500);
        assert_eq!(schedule.offered(Duration::from_secs(60)), 1000);
        assert_eq!(schedule.offered(Duration::ZERO), 0);
    }
}
