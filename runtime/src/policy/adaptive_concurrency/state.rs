//! How the limit is learnt. Knows no clock: times are handed in.

use std::time::{Duration, Instant};

use crate::diag::codes;
use crate::model::schema::Record;
use crate::policy::Cx;

/// The least answers that an average is made of.
const ENOUGH: u32 = 10;
/// How much of the way to the newly found limit is gone at once.
const STEP: f64 = 0.3;
/// What a window with failures leaves of the limit.
const BACKOFF: f64 = 0.9;

/// What the config says.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub initial: f64,
    pub min: f64,
    pub max: f64,
    pub tolerance: f64,
    pub window: Duration,
    pub probe_interval: Duration,
}

impl Settings {
    pub(super) fn read(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let count = |name: &str| config.int(name).unwrap_or(1) as f64;
        let (initial, min, max) = (count("initial"), count("min"), count("max"));
        let millis = |name: &str| config.int(name).and_then(|n| u64::try_from(n).ok());
        if min > max {
            let message = format!("`min` {min} is more than `max` {max}");
            cx.report(&codes::CONFLICTING_FIELDS, config.span_of("min"), message);
            return None;
        }
        // A default is no contradiction.
        if !(min..=max).contains(&initial) && config.given("initial") {
            let message = format!("`initial` {initial} is not between `min` {min} and `max` {max}");
            cx.report(&codes::CONFLICTING_FIELDS, config.span_of("initial"), message);
            return None;
        }
        Some(Self {
            initial: initial.clamp(min, max),
            min,
            max,
            tolerance: config.num("tolerance").unwrap_or(1.5),
            window: Duration::from_millis(millis("window").unwrap_or(250)),
            probe_interval: Duration::from_secs(millis("probe_interval").unwrap_or(60)),
        })
    }
}

/// What is known of one service.
#[derive(Debug)]
pub(super) struct State {
    limit: f64,
    in_flight: usize,
    /// The best average of a window, in seconds.
    best: Option<f64>,
    /// A quarter of the limit is in force until this window ends, to find out what is the best now: few enough that none
    /// of them waits for another.
    probing: bool,
    probed: Instant,
    window: Window,
}

/// What was seen since a moment.
#[derive(Debug)]
struct Window {
    since: Instant,
    answers: u32,
    seconds: f64,
    failures: u32,
    most_in_flight: usize,
}

impl Window {
    fn new(since: Instant) -> Self {
        Self { since, answers: 0, seconds: 0.0, failures: 0, most_in_flight: 0 }
    }
}

impl State {
    pub(super) fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            limit: settings.initial,
            in_flight: 0,
            best: None,
            probing: false,
            probed: now,
            window: Window::new(now),
        }
    }

    /// The limit, in whole requests.
    pub(super) fn limit(&self) -> usize {
        (self.limit as usize).max(1)
    }

    /// Takes a place, if there is one: which it is.
    pub(super) fn enter(&mut self, settings: &Settings) -> Option<usize> {
        // A reload may have changed the bounds.
        self.limit = self.limit.clamp(settings.min, settings.max);
        let limit = if self.probing { self.probe_limit(settings) } else { self.limit() };
        self.window.most_in_flight = self.window.most_in_flight.max(self.in_flight + 1);
        if self.in_flight >= limit {
            return None;
        }
        self.in_flight += 1;
        Some(self.in_flight)
    }

    fn probe_limit(&self, settings: &Settings) -> usize {
        (self.limit / 4.0).max(settings.min) as usize
    }

    pub(super) fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The service answered a request that had this place.
    pub(super) fn answered(&mut self, settings: &Settings, place: usize, took: Duration) {
        // A probe must not measure the queue that was there before it.
        if self.probing && place > self.probe_limit(settings) {
            return;
        }
        self.window.answers += 1;
        self.window.seconds += took.as_secs_f64();
    }

    pub(super) fn failed(&mut self) {
        self.window.failures += 1;
    }

    /// Learns from the window, if it is over.
    pub(super) fn conclude(&mut self, settings: &Settings, now: Instant) {
        let seen = self.window.answers + self.window.failures;
        if now.saturating_duration_since(self.window.since) < settings.window || seen < ENOUGH {
            return;
        }
        let window = std::mem::replace(&mut self.window, Window::new(now));
        self.window.most_in_flight = self.in_flight;
        if window.failures > 0 {
            self.limit *= BACKOFF;
        } else {
            let average = window.seconds / f64::from(window.answers);
            if self.probing {
                (self.best, self.probing, self.probed) = (Some(average), false, now);
            } else {
                let best = self.best.map_or(average, |b| b.min(average));
                self.best = Some(best);
                let in_use = window.most_in_flight as f64 * 2.0 >= self.limit;
                if in_use {
                    let gradient = (best * settings.tolerance / average).clamp(0.5, 1.0);
                    let found = self.limit * gradient + self.limit.sqrt();
                    self.limit += (found - self.limit) * STEP;
                    self.probing = now.saturating_duration_since(self.probed) >= settings.probe_interval;
                }
            }
        }
        self.limit = self.limit.clamp(settings.min, settings.max);
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    fn settings() -> Settings {
        Settings {
            initial: 20.0,
            min: 2.0,
            max: 500.0,
            tolerance: 1.5,
            window: Duration::from_millis(250),
            probe_interval: Duration::from_secs(20),
        }
    }

    /// A service with so many places, each busy for `work`; others queue. Clients ask `clients` at a time, and who is
    /// refused comes again after a moment.
    struct Simulation {
        state: State,
        at: Duration,
        start: Instant,
        /// When each request ends, when it began, and which place it has.
        running: BinaryHeap<Reverse<(Duration, Duration, usize)>>,
        /// When each of the service's places is free again.
        places: BinaryHeap<Reverse<Duration>>,
    }

    impl Simulation {
        fn new() -> Self {
            let start = crate::clock::monotonic();
            Self {
                state: State::new(&settings(), start),
                at: Duration::ZERO,
                start,
                running: BinaryHeap::new(),
                places: BinaryHeap::new(),
            }
        }

        /// Lets time pass; returns the average limit of the last five seconds.
        fn run(
            &mut self,
            seconds: u64,
            clients: usize,
            capacity: usize,
            work: Duration,
            failing: bool,
        ) -> f64 {
            let end = self.at + Duration::from_secs(seconds);
            self.places.clear();
            (0..capacity).for_each(|_| self.places.push(Reverse(self.at)));
            let (mut sum, mut steps) = (0.0, 0.0);
            while self.at < end {
                self.at += Duration::from_millis(1);
                while let Some(Reverse((done, began, place))) = self.running.peek().copied() {
                    if done > self.at {
                        break;
                    }
                    self.running.pop();
                    match failing {
                        true => self.state.failed(),
                        false => self.state.answered(&settings(), place, done - began),
                    }
                    self.state.conclude(&settings(), self.start + self.at);
                    self.state.leave();
                }
                while self.running.len() < clients
                    && let Some(place) = self.state.enter(&settings())
                {
                    let free = self.places.pop().map_or(self.at, |Reverse(free)| free);
                    let done = free.max(self.at) + work;
                    self.places.push(Reverse(done));
                    self.running.push(Reverse((done, self.at, place)));
                }
                assert!(self.state.in_flight <= self.state.limit() + self.running.len());
                if end - self.at < Duration::from_secs(5) {
                    (sum, steps) = (sum + self.state.limit, steps + 1.0);
                }
            }
            sum / steps
        }
    }

    #[test]
    fn the_limit_finds_what_a_service_can_take_and_follows_it() {
        let mut s = Simulation::new();
        let ms = Duration::from_millis;
        let forty = s.run(60, 400, 40, ms(20), false);
        assert!((36.0..90.0).contains(&forty), "40 places: {forty}");
        let ten = s.run(120, 400, 10, ms(20), false);
        assert!((8.0..30.0).contains(&ten), "10 places: {ten}");
        let eighty = s.run(60, 400, 80, ms(20), false);
        assert!((72.0..180.0).contains(&eighty), "80 places: {eighty}");
        // The work itself takes longer: that is no queue.
        let slower = s.run(120, 400, 80, ms(60), false);
        assert!((60.0..180.0).contains(&slower), "slower work: {slower}");
        let failing = s.run(30, 400, 80, ms(60), true);
        assert!(failing < slower / 2.0, "failures: {failing}");
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let mut s = Simulation::new();
        let limit = s.run(30, 5, 100, Duration::from_millis(10), false);
        assert!((limit - 20.0).abs() < 1e-9, "{limit}");
    }
}
