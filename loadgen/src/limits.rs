//! Proofs about rate limiters, from the outside.
//!
//! When a limiter decided on a request is unknown, but it was after the request was sent and before its answer was received.
//! Every verdict here holds for *each* choice of decision times within those bounds: a limiter that is correct is never
//! accused, whatever the network did, and one that lets through too much, or refuses what it should not, is found once there
//! are enough requests. What cannot be known (requests without an answer, use of a counter before the run) always counts in
//! favour of the limiter.

mod bucket;
mod maxtree;
mod windows;

use std::collections::HashSet;
use std::time::Duration;

use crate::tally::{Event, Fate};

pub use jiff::civil::Weekday;
pub use windows::{Calendar, Period};

/// A limit and who is counted together under it.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Where it comes from, for people.
    pub name: String,
    pub rule: Rule,
    /// Whose requests share one counter, and which requests of theirs.
    pub members: Vec<Member>,
    /// Refused requests count all the same.
    pub counts_rejected: bool,
}

/// The requests of one consumer for one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Index of the consumer.
    pub consumer: usize,
    /// Index of the target.
    pub target: usize,
}

impl Member {
    /// Whose and what an event is.
    fn of(event: &Event) -> Self {
        Self { consumer: event.consumer as usize, target: usize::from(event.target) }
    }
}

/// What a limiter promises.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// At most `limit` in each calendar period (UTC).
    FixedWindow { limit: u64, period: Period },
    /// The same by another calendar.
    CalendarWindow { limit: u64, calendar: Calendar },
    /// A counter of this period and a share of the last one: at most `limit` in each period from 1970 on. When it may refuse
    /// depends on more than can be seen from outside.
    SlidingCounter { limit: u64, period: Period },
    /// At most `limit` in any stretch of this length.
    SlidingLog { limit: u64, window: Duration },
    /// At most `burst + per_second × t` in any time `t`.
    TokenBucket { per_second: f64, burst: f64 },
    /// The same where requests beyond the burst may wait for their turn, so many of them: `burst + waiting + per_second × t`
    /// may be let in, but a refusal is wrong only if the bucket had room.
    WaitingBucket { per_second: f64, burst: f64, waiting: f64 },
}

/// What is known beside the events.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Wall clock at the start of the run, in nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// How far the limiter's clock may be from this machine's.
    pub tolerance: Duration,
    /// The counters had never been used before the run.
    pub fresh: bool,
}

/// What came of a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Index of the limit.
    pub limit: usize,
    /// One row for each window of a limit by calendar; one row for the whole run otherwise.
    pub rows: Vec<Row>,
    /// Requests whose refusal cannot be right as far as this limit goes, by their index in the events.
    had_room: Vec<usize>,
}

/// Admitted against allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The calendar window in ms since 1970; None for the whole run.
    pub window: Option<(u64, u64)>,
    /// Requests sent in it.
    pub offered: u64,
    /// Requests that were certainly admitted in it, and those that may have been.
    pub admitted: u64,
    pub admitted_at_most: u64,
    pub rejected: u64,
    /// Without an answer, or with one that does not tell.
    pub unknown: u64,
    /// What the rule allows: of a window its limit, of the whole run what a bucket or log can give in that time.
    pub allowed: u64,
    /// Provably admitted beyond what the rule allows.
    pub excess: u64,
    /// Provably refused although no limit of the consumer was reached.
    pub wrongly_rejected: u64,
    /// Refused requests count all the same.
    pub counts_rejected: bool,
    /// The window began before the run, so that its counter may have been used by others.
    pub partial: bool,
    /// The clocks are not close enough for this window to prove anything.
    pub unprovable: bool,
    /// Another limit of the same senders was used more.
    pub outdone: bool,
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Requests were refused, and neither too few nor too many.
    Held,
    /// The limit was never reached.
    NotReached,
    OverAdmitted,
    UnderAdmitted,
    /// Nothing can be said.
    Unknown,
}

impl Row {
    /// The verdict on this row.
    pub fn verdict(&self) -> Verdict {
        if self.excess > 0 {
            Verdict::OverAdmitted
        } else if self.wrongly_rejected > 0 {
            Verdict::UnderAdmitted
        } else if self.unprovable {
            Verdict::Unknown
        } else if self.was_reached() {
            Verdict::Held
        } else {
            Verdict::NotReached
        }
    }

    /// Whether this limit can be what refused requests, rather than another one of the same consumers.
    fn was_reached(&self) -> bool {
        let most =
            self.admitted_at_most + self.unknown + if self.counts_rejected { self.rejected } else { 0 };
        let full = most >= self.allowed || ((self.window.is_none() || self.partial) && !self.outdone);
        self.rejected > 0 && full
    }
}

/// Checks all limits against what happened. `events` are in order of their sending.
pub fn check(limits: &[Limit], events: &[Event], setting: &Setting) -> Vec<Finding> {
    let mut findings: Vec<Finding> = limits
        .iter()
        .enumerate()
        .map(|(index, limit)| {
            let own = Own::of(limit, events, setting);
            let (rows, had_room) = match &limit.rule {
                Rule::FixedWindow { limit: most, period } => {
                    windows::check(&own, *most, &|at| period.around(at), true)
                }
                Rule::CalendarWindow { limit: most, calendar } => {
                    windows::check(&own, *most, &|at| calendar.around(at), true)
                }
                Rule::SlidingCounter { limit: most, period } => {
                    windows::check(&own, *most, &|at| period.around(at), false)
                }
                Rule::SlidingLog { limit: most, window } => bucket::check_log(&own, *most, *window),
                Rule::TokenBucket { per_second, burst } => {
                    bucket::check_bucket(&own, *per_second, *burst, 0.0)
                }
                Rule::WaitingBucket { per_second, burst, waiting } => {
                    bucket::check_bucket(&own, *per_second, *burst, *waiting)
                }
            };
            Finding { limit: index, rows, had_room }
        })
        .collect();
    blame(limits, events, setting, &mut findings);
    attribute(limits, &mut findings);
    findings
}

/// Of a window that began before the run nobody knows how full it was. Where several limits of the same sender may have
/// refused a request, it is taken to be the one that the run itself used most of.
fn attribute(limits: &[Limit], findings: &mut [Finding]) {
    let share = |row: &Row| (row.admitted_at_most + row.unknown) as f64 / row.allowed.max(1) as f64;
    let together = |a: Option<(u64, u64)>, b: Option<(u64, u64)>| match (a, b) {
        (Some(a), Some(b)) => a.0 < b.1 && b.0 < a.1,
        _ => true,
    };
    let all: Vec<_> =
        findings.iter().flat_map(|f| f.rows.iter().map(|r| (f.limit, r.window, share(r)))).collect();
    for finding in findings {
        let members = &limits[finding.limit].members;
        for row in &mut finding.rows {
            row.outdone = all.iter().any(|(other, window, used)| {
                *other != finding.limit
                    && *used > share(row)
                    && together(*window, row.window)
                    && limits[*other].members.iter().any(|m| members.contains(m))
            });
        }
    }
}

/// A refusal is wrong only if every limit that its sender is under had room.
fn blame(limits: &[Limit], events: &[Event], setting: &Setting, findings: &mut [Finding]) {
    let mut innocent = vec![0usize; events.len()];
    for finding in findings.iter() {
        for &event in &finding.had_room {
            innocent[event] += 1;
        }
    }
    let over = |event: &Event| limits.iter().filter(|l| l.members.contains(&Member::of(event))).count();
    for finding in findings {
        for &index in &finding.had_room {
            let event = &events[index];
            if innocent[index] < over(event) {
                continue;
            }
            let at_ms = (setting.started_unix_ns + event.sent) / 1_000_000;
            let within = |r: &&mut Row| r.window.is_none_or(|(start, end)| (start..end).contains(&at_ms));
            if let Some(row) = finding.rows.iter_mut().find(within) {
                row.wrongly_rejected += 1;
            }
        }
    }
}

/// The events that count under one limit, prepared for the proofs. Times are nanoseconds since the start of the run.
struct Own {
    /// In order of sending, each with its index among all events.
    events: Vec<(usize, Event)>,
    /// Send times of all that the counter may have counted, and receive times of the same, each sorted.
    sent: Vec<u64>,
    received: Vec<u64>,
    /// The longest time between sending and answer.
    slowest: u64,
    counts_rejected: bool,
    setting: Setting,
}

impl Own {
    fn of(limit: &Limit, events: &[Event], setting: &Setting) -> Self {
        let members: HashSet<Member> = limit.members.iter().copied().collect();
        let member = |e: &Event| members.contains(&Member::of(e));
        let events: Vec<_> = events.iter().copied().enumerate().filter(|(_, e)| member(e)).collect();
        let may_count = |fate: Fate| fate != Fate::Rejected || limit.counts_rejected;
        let counted: Vec<_> = events.iter().map(|(_, e)| *e).filter(|e| may_count(e.fate)).collect();
        let sent = counted.iter().map(|e| e.sent).collect();
        let mut received: Vec<_> = counted.iter().map(|e| e.received).collect();
        received.sort_unstable();
        let answered = events.iter().filter(|(_, e)| e.received != u64::MAX);
        let slowest = answered.map(|(_, e)| e.received - e.sent).max().unwrap_or(0);
        Self { events, sent, received, slowest, counts_rejected: limit.counts_rejected, setting: *setting }
    }

    /// How many the counter may have held when it decided on a request answered at `decided`, counting only those whose own
    /// decision may have been at `since` or later.
    fn may_have_counted(&self, since: u64, decided: u64) -> u64 {
        let begun = self.sent.partition_point(|&t| t <= decided);
        let over = self.received.partition_point(|&t| t < since);
        begun.saturating_sub(over) as u64
    }

    /// The events that may have to do with a stretch of time: all that were sent in it, and all that were answered in it.
    fn around(&self, from: u64, to: u64) -> &[(usize, Event)] {
        let first = self.events.partition_point(|(_, e)| e.sent < from.saturating_sub(self.slowest));
        let end = self.events.partition_point(|(_, e)| e.sent < to);
        self.events.get(first..end).unwrap_or_default()
    }

    fn rejected(&self) -> impl Iterator<Item = &(usize, Event)> {
        self.events.iter().filter(|(_, e)| e.fate == Fate::Rejected)
    }

    fn admitted(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().map(|(_, e)| e).filter(|e| e.fate == Fate::Admitted)
    }

    /// A row over the whole run.
    fn whole(&self, allowed: u64, excess: u64) -> Row {
        let count = |fate| self.events.iter().filter(|(_, e)| e.fate == fate).count() as u64;
        let admitted = count(Fate::Admitted);
        Row {
            window: None,
            offered: self.events.len() as u64,
            admitted,
            admitted_at_most: admitted,
            rejected: count(Fate::Rejected),
            unknown: count(Fate::Unknown),
            allowed,
            excess,
            wrongly_rejected: 0,
            counts_rejected: self.counts_rejected,
            partial: false,
            unprovable: false,
            outdone: false,
        }
    }

    /// From the first request sent to the last answer.
    fn span(&self) -> Option<(u64, u64)> {
        let first = self.events.first()?.1.sent;
        let answered = |(_, e): &(usize, Event)| if e.received == u64::MAX { e.sent } else { e.received };
        Some((first, self.events.iter().map(answered).max()?))
    }
}

#[cfg(test)]
mod tests;
