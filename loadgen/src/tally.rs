//! What happened: counts and latencies of one worker, added up over all of them.

use std::time::Duration;

use crate::histogram::{Coarse, Latencies};

/// Kinds of outcome whose latencies are never mixed: a refusal takes no time and would make any average look good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Success,
    Redirect,
    Limited,
    ClientError,
    ServerError,
    Failed,
}

impl Class {
    /// In the order of reports.
    pub const ALL: [Self; 6] =
        [Self::Success, Self::Redirect, Self::Limited, Self::ClientError, Self::ServerError, Self::Failed];

    /// The class of a status.
    pub fn of(status: u16) -> Self {
        match status {
            429 => Self::Limited,
            200..300 => Self::Success,
            0..400 => Self::Redirect,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// As reports and assertions name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::Limited => "429",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Failed => "errors",
        }
    }
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No TCP connection.
    Connect,
    /// No TLS session.
    Tls,
    /// Not within the time allowed.
    Timeout,
    /// The connection ended before the response's head was complete.
    Reset,
    /// The connection ended within the response's body.
    Body,
    /// What came is not HTTP.
    Protocol,
    /// Still on its way when the run ended.
    Unresolved,
}

impl Failure {
    /// In the order of reports.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Tls, Self::Timeout, Self::Reset, Self::Body, Self::Protocol, Self::Unresolved];

    /// As reports and assertions name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Body => "body",
            Self::Protocol => "protocol",
            Self::Unresolved => "unresolved",
        }
    }
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Status(u16),
    Failed(Failure),
}

impl End {
    /// Its class.
    pub fn class(self) -> Class {
        match self {
            Self::Status(status) => Class::of(status),
            Self::Failed(_) => Class::Failed,
        }
    }
}

/// One request, timed. All times are since the start of the run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Index of the consumer, or [`NOBODY`].
    pub consumer: u32,
    /// Index of the target.
    pub target: u16,
    /// When the schedule wanted it sent; in a closed loop, when it was sent.
    pub due: Duration,
    pub sent: Duration,
    pub received: Duration,
    pub end: End,
    /// Bytes of the response's body.
    pub bytes: u64,
}

/// The consumer of requests that are sent as nobody.
pub const NOBODY: u32 = u32::MAX;

/// What the proofs need to know of a request. Nanoseconds since the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub consumer: u32,
    pub target: u16,
    pub sent: u64,
    /// `u64::MAX` for one that was never answered.
    pub received: u64,
    pub fate: Fate,
}

/// What a limiter did with a request, as far as a client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Admitted,
    Rejected,
    /// Another status or no answer: it may have been counted or not.
    Unknown,
}

/// Count and latencies of one class.
#[derive(Clone, Debug, Default)]
pub struct ClassTally {
    pub count: u64,
    /// From when each was due to its end.
    pub response: Option<Box<Latencies>>,
    /// From when each was sent to its end.
    pub service: Option<Box<Latencies>>,
}

/// One second of the run.
#[derive(Clone, Debug, Default)]
pub struct Tick {
    /// Requests sent in it.
    pub sent: u64,
    /// Requests that ended in it, by class.
    pub ended: [u64; Class::ALL.len()],
    /// Response times of the successes that ended in it.
    pub success: Coarse,
}

/// Connections of a run.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    pub opened: u64,
    /// TLS sessions that were resumed.
    pub resumed: u64,
    /// From the beginning of the TCP handshake to the end of the last one.
    pub handshake: Option<Box<Latencies>>,
}

/// Everything a worker counts.
#[derive(Clone, Debug)]
pub struct Tally {
    pub classes: [ClassTally; Class::ALL.len()],
    /// By status.
    pub statuses: Vec<u64>,
    pub failures: [u64; Failure::ALL.len()],
    /// What was said at the first failure of each kind.
    pub examples: [Option<String>; Failure::ALL.len()],
    /// Time between due and sent.
    pub queue: Latencies,
    /// How late this program was to wake up for a request that it waited for: the generator's own fault.
    pub lag: Latencies,
    pub sent: u64,
    pub bytes: u64,
    /// Answers with `X-RateLimit-Warning`: a limit is nearly used up.
    pub warned: u64,
    pub timeline: Vec<Tick>,
    pub connections: Connections,
    pub events: Vec<Event>,
    /// Events that were dropped because there were too many to keep.
    pub events_lost: u64,
    keep_events: bool,
    /// Statuses by which limits refuse.
    refusals: Vec<u16>,
    /// When the last request ended.
    pub last: Duration,
    /// Processor time of the worker's thread over the run.
    pub cpu: Duration,
}

/// Events that one worker keeps, 24 bytes each.
const MOST_EVENTS: usize = 8_000_000;
/// Seconds of timeline; a longer run puts its rest into the last one.
const MOST_TICKS: usize = 24 * 3600;
/// Statuses are three digits.
const STATUSES: usize = 1000;

impl Tally {
    /// An empty one; with `keep_events` it also keeps what the proofs of limits need.
    pub fn new(keep_events: bool) -> Self {
        Self {
            classes: Default::default(),
            statuses: vec![0; STATUSES],
            failures: [0; Failure::ALL.len()],
            examples: Default::default(),
            queue: Latencies::default(),
            lag: Latencies::default(),
            sent: 0,
            bytes: 0,
            warned: 0,
            timeline: Vec::new(),
            connections: Connections::default(),
            events: Vec::new(),
            events_lost: 0,
            keep_events,
            refusals: vec![429],
            last: Duration::ZERO,
            cpu: Duration::ZERO,
        }
    }

    /// The same, with the statuses by which limits refuse; without any it is 429.
    #[must_use]
    pub fn refused_by(mut self, statuses: &[u16]) -> Self {
        if !statuses.is_empty() {
            statuses.clone_into(&mut self.refusals);
        }
        self
    }

    /// Counts a request that ended.
    pub fn record(&mut self, sample: &Sample) {
        let response = ns(sample.received.saturating_sub(sample.due));
        let service = ns(sample.received.saturating_sub(sample.sent));
        let class = sample.end.class();
        let of_class = &mut self.classes[class as usize];
        of_class.count += 1;
        of_class.response.get_or_insert_default().record(response);
        of_class.service.get_or_insert_default().record(service);
        match sample.end {
            End::Status(status) => self.statuses[usize::from(status).min(STATUSES - 1)] += 1,
            End::Failed(failure) => self.failures[failure as usize] += 1,
        }
        self.sent += 1;
        self.bytes += sample.bytes;
        self.queue.record(ns(sample.sent.saturating_sub(sample.due)));
        self.last = self.last.max(sample.received);
        self.tick(sample.sent).sent += 1;
        let tick = self.tick(sample.received);
        tick.ended[class as usize] += 1;
        if class == Class::Success {
            tick.success.record(response);
        }
        if self.keep_events {
            self.keep(sample);
        }
    }

    /// Remembers what a failure said, if it is the first of its kind.
    pub fn example(&mut self, failure: Failure, text: String) {
        self.examples[failure as usize].get_or_insert(text);
    }

    fn keep(&mut self, sample: &Sample) {
        if self.events.len() == MOST_EVENTS {
            self.events_lost += 1;
            return;
        }
        let (fate, received) = match sample.end {
            End::Status(200..400) => (Fate::Admitted, ns(sample.received)),
            End::Status(status) if self.refusals.contains(&status) => (Fate::Rejected, ns(sample.received)),
            End::Status(_) => (Fate::Unknown, ns(sample.received)),
            End::Failed(_) => (Fate::Unknown, u64::MAX),
        };
        self.events.push(Event {
            consumer: sample.consumer,
            target: sample.target,
            sent: ns(sample.sent),
            received,
            fate,
        });
    }

    fn tick(&mut self, at: Duration) -> &mut Tick {
        let second = (at.as_secs() as usize).min(MOST_TICKS);
        if self.timeline.len() <= second {
            self.timeline.resize_with(second + 1, Tick::default);
        }
        &mut self.timeline[second]
    }

    /// Adds another worker's.
    pub fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.classes.iter_mut().zip(other.classes) {
            mine.count += theirs.count;
            add(&mut mine.response, theirs.response);
            add(&mut mine.service, theirs.service);
        }
        for (mine, theirs) in self.statuses.iter_mut().zip(other.statuses) {
            *mine += theirs;
        }
        for (mine, theirs) in self.failures.iter_mut().zip(other.failures) {
            *mine += theirs;
        }
        for (mine, theirs) in self.examples.iter_mut().zip(other.examples) {
            *mine = mine.take().or(theirs);
        }
        self.queue.merge(&other.queue);
        self.lag.merge(&other.lag);
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.warned += other.warned;
        if self.timeline.len() < other.timeline.len() {
            self.timeline.resize_with(other.timeline.len(), Tick::default);
        }
        for (mine, theirs) in self.timeline.iter_mut().zip(other.timeline) {
            mine.sent += theirs.sent;
            for (m, t) in mine.ended.iter_mut().zip(theirs.ended) {
                *m += t;
            }
            mine.success.merge(&theirs.success);
        }
        self.connections.opened += other.connections.opened;
        self.connections.resumed += other.connections.resumed;
        add(&mut self.connections.handshake, other.connections.handshake);
        self.events.extend(other.events);
        self.events_lost += other.events_lost;
        self.last = self.last.max(other.last);
        self.cpu += other.cpu;
    }

    /// Requests that were answered, whatever the status.
    pub fn answered(&self) -> u64 {
        self.sent - self.classes[Class::Failed as usize].count
    }

    /// The tally of a class.
    pub fn class(&self, class: Class) -> &ClassTally {
        &self.classes[class as usize]
    }
}

fn add(mine: &mut Option<Box<Latencies>>, theirs: Option<Box<Latencies>>) {
    match (mine.as_mut(), theirs) {
        (Some(mine), Some(theirs)) => mine.merge(&theirs),
        (None, theirs) => *mine = theirs,
        (Some(_), None) => {}
    }
}

/// Whole nanoseconds; 584 years are not exceeded.
pub(crate) fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, took_ms: u64, end: End) -> Sample {
        let ms = Duration::from_millis;
        Sample {
            consumer: NOBODY,
            target: 0,
            due: ms(at_ms),
            sent: ms(at_ms),
            received: ms(at_ms + took_ms),
            end,
            bytes: 1,
        }
    }

    #[test]
    fn a_flood_of_fast_refusals_does_not_move_the_latency_of_what_was_admitted() {
        let mut tally = Tally::new(false);
        for i in 0..100 {
            tally.record(&sample(i, 5, End::Status(200)));
            for _ in 0..50 {
                tally.record(&sample(i, 0, End::Status(429)));
            }
        }
        let p50 = tally.class(Class::Success).response.as_ref().unwrap().quantile(0.5).unwrap();
        assert!(p50.abs_diff(5_000_000) < 10_000, "{p50}");
        assert_eq!(tally.class(Class::Limited).count, 5000);
        assert_eq!(tally.answered(), 5100);
    }

    #[test]
    fn every_status_and_failure_has_its_class() {
        let check = |end: End, name: &str| assert_eq!(end.class().name(), name, "{end:?}");
        check(End::Status(204), "2xx");
        check(End::Status(304), "3xx");
        check(End::Status(401), "4xx");
        check(End::Status(429), "429");
        check(End::Status(503), "5xx");
        check(End::Status(999), "5xx");
        check(End::Failed(Failure::Timeout), "errors");
    }

    #[test]
    fn workers_add_up() {
        let (mut a, mut b) = (Tally::new(true), Tally::new(true));
        a.record(&sample(0, 1, End::Status(200)));
        b.record(&sample(2500, 1, End::Status(429)));
        b.record(&sample(2600, 1, End::Failed(Failure::Reset)));
        a.merge(b);
        assert_eq!((a.sent, a.answered(), a.timeline.len(), a.events.len()), (3, 2, 3, 3));
        assert_eq!(a.events[2].received, u64::MAX);
        assert_eq!(a.timeline[2].sent, 2);
    }
}
