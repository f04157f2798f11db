//! Limits by calendar window.

use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::{Own, Row};
use crate::tally::{Event, Fate};

/// A period by the calendar of a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    pub period: Period,
    pub zone: TimeZone,
    pub week_start: Weekday,
}

impl Calendar {
    /// Beginning and end of the period around a moment, all in ms since 1970. Beyond the years that have a calendar, by UTC.
    pub fn around(&self, unix_ms: u64) -> (u64, u64) {
        self.civil(unix_ms).unwrap_or_else(|| self.period.around(unix_ms))
    }

    fn civil(&self, unix_ms: u64) -> Option<(u64, u64)> {
        let at = Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
        let date = self.zone.to_datetime(at).date();
        let (start, end) = match self.period {
            Period::Second | Period::Minute | Period::Hour => return None,
            Period::Day => (date, date.tomorrow().ok()?),
            Period::Week => {
                let start = date.checked_sub(i64::from(date.weekday().since(self.week_start)).days()).ok()?;
                (start, start.checked_add(7.days()).ok()?)
            }
            Period::Month => (date.first_of_month(), date.last_of_month().tomorrow().ok()?),
            Period::Year => (date.first_of_year(), date.last_of_year().tomorrow().ok()?),
        };
        let ms = |date: jiff::civil::Date| {
            let at = DateTime::from_parts(date, jiff::civil::Time::midnight());
            u64::try_from(self.zone.to_timestamp(at).ok()?.as_millisecond()).ok()
        };
        Some((ms(start)?, ms(end)?))
    }
}

/// A calendar period in UTC; weeks begin on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// All, shortest first.
    pub const ALL: [Self; 7] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// Beginning and end of the period around a moment, all in ms since 1970.
    pub fn around(self, unix_ms: u64) -> (u64, u64) {
        let fixed = |length: u64| (unix_ms - unix_ms % length, unix_ms - unix_ms % length + length);
        match self {
            Self::Second => fixed(1_000),
            Self::Minute => fixed(60_000),
            Self::Hour => fixed(3_600_000),
            Self::Day => fixed(86_400_000),
            Self::Week | Self::Month | Self::Year => {
                let calendar = Calendar { period: self, zone: TimeZone::UTC, week_start: Weekday::Monday };
                calendar.civil(unix_ms).unwrap_or_else(|| fixed(86_400_000))
            }
        }
    }
}

/// Rows for all windows that the run touches, and the refusals for which this limit had room.
pub fn check(
    own: &Own,
    limit: u64,
    around: &dyn Fn(u64) -> (u64, u64),
    judge_refusals: bool,
) -> (Vec<Row>, Vec<usize>) {
    let Some((first, last)) = own.span() else { return (Vec::new(), Vec::new()) };
    let clock = Clock::of(own);
    let mut rows = Vec::new();
    let mut at = clock.unix_ms(first);
    while at <= clock.unix_ms(last) {
        let window = around(at);
        rows.push(row(own, &clock, limit, window));
        at = window.1;
    }
    let room = |e: &Event| clock.windows(around, e).all(|window| had_room(own, &clock, limit, window, e));
    let had_room =
        own.rejected().filter(|(_, e)| judge_refusals && room(e)).map(|(index, _)| *index).collect();
    (rows, had_room)
}

fn row(own: &Own, clock: &Clock, limit: u64, window: (u64, u64)) -> Row {
    let sure = clock.surely(window);
    let mut row = Row {
        window: Some(window),
        offered: 0,
        admitted: 0,
        admitted_at_most: 0,
        rejected: 0,
        unknown: 0,
        allowed: limit,
        excess: 0,
        wrongly_rejected: 0,
        counts_rejected: own.counts_rejected,
        partial: !own.setting.fresh && window.0 <= clock.unix_ms(0),
        unprovable: sure.is_none(),
        outdone: false,
    };
    let (from, to) = clock.maybe(window);
    for (_, e) in own.around(from, to) {
        let began_here = (window.0..window.1).contains(&clock.unix_ms(e.sent));
        row.offered += u64::from(began_here);
        match e.fate {
            Fate::Admitted => {
                row.admitted += u64::from(sure.is_some_and(|(s, t)| e.sent >= s && e.received <= t));
                row.admitted_at_most += u64::from(e.received >= from && e.sent < to);
            }
            Fate::Rejected => row.rejected += u64::from(began_here),
            Fate::Unknown => row.unknown += u64::from(began_here),
        }
    }
    row.excess = row.admitted.saturating_sub(limit);
    row
}

/// Whether the counter of `window` was certainly below the limit when it decided on `e`.
fn had_room(own: &Own, clock: &Clock, limit: u64, window: (u64, u64), e: &Event) -> bool {
    let (from, to) = clock.maybe(window);
    if from == 0 && !own.setting.fresh {
        return false;
    }
    let counted = own.may_have_counted(from, e.received.min(to));
    // Where refusals count, this one is among them.
    counted - u64::from(own.counts_rejected).min(counted) < limit
}

/// Calendar windows in the run's own time.
struct Clock {
    started_ns: u64,
    tolerance_ns: u64,
}

impl Clock {
    fn of(own: &Own) -> Self {
        Self {
            started_ns: own.setting.started_unix_ns,
            tolerance_ns: u64::try_from(own.setting.tolerance.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    fn unix_ms(&self, at: u64) -> u64 {
        self.started_ns.saturating_add(at) / 1_000_000
    }

    /// Nanoseconds since the start of the run; the past is 0.
    fn at(&self, unix_ns: u64) -> u64 {
        unix_ns.saturating_sub(self.started_ns)
    }

    /// The time in which the limiter is certainly in the window, if there is any.
    fn surely(&self, (start, end): (u64, u64)) -> Option<(u64, u64)> {
        let from = self.at((start * 1_000_000).saturating_add(self.tolerance_ns));
        let end = (end * 1_000_000).saturating_sub(self.tolerance_ns);
        let to = end.checked_sub(self.started_ns)?;
        (from < to).then_some((from, to))
    }

    /// The time in which the limiter may be in the window; from 0 if the window began before the run.
    fn maybe(&self, (start, end): (u64, u64)) -> (u64, u64) {
        let from = self.at((start * 1_000_000).saturating_sub(self.tolerance_ns));
        (from, self.at((end * 1_000_000).saturating_add(self.tolerance_ns)))
    }

    /// The windows in which the limiter may have decided on a request.
    fn windows<'a>(
        &self,
        around: &'a dyn Fn(u64) -> (u64, u64),
        e: &Event,
    ) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let early = (self.started_ns + e.sent).saturating_sub(self.tolerance_ns) / 1_000_000;
        let late = (self.started_ns + e.received).saturating_add(self.tolerance_ns) / 1_000_000;
        let first = around(early);
        std::iter::successors(Some(first), move |w| Some(around(w.1))).take_while(move |w| w.0 <= late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_years_follow_the_calendar() {
        let check = |period: Period, at: &str, start: &str, end: &str| {
            let ms = |s: &str| s.parse::<Timestamp>().unwrap().as_millisecond() as u64;
            assert_eq!(period.around(ms(at)), (ms(start), ms(end)), "{period:?} {at}");
        };
        check(Period::Month, "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        check(Period::Month, "2023-12-31T23:59:59Z", "2023-12-01T00:00:00Z", "2024-01-01T00:00:00Z");
        check(Period::Year, "2024-07-01T00:00:00Z", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z");
        check(Period::Week, "2024-07-03T12:00:00Z", "2024-07-01T00:00:00Z", "2024-07-08T00:00:00Z");
        check(Period::Minute, "2024-07-01T00:00:59.999Z", "2024-07-01T00:00:00Z", "2024-07-01T00:01:00Z");
    }

    #[test]
    fn other_calendars_have_their_own_days_and_weeks() {
        let check = |period: Period, zone: &str, week_start: Weekday, at: &str, start: &str, end: &str| {
            let ms = |s: &str| s.parse::<Timestamp>().unwrap().as_millisecond() as u64;
            let calendar = Calendar { period, zone: TimeZone::get(zone).unwrap(), week_start };
            assert_eq!(calendar.around(ms(at)), (ms(start), ms(end)), "{calendar:?} {at}");
        };
        let berlin = "Europe/Berlin";
        // 23 hours, as clocks go forward.
        let (start, end) = ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(Period::Day, berlin, Weekday::Monday, "2026-03-29T12:00:00Z", start, end);
        let (start, end) = ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z");
        check(Period::Month, berlin, Weekday::Monday, "2026-11-30T22:59:59Z", start, end);
        let (start, end) = ("2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z");
        check(Period::Week, "UTC", Weekday::Sunday, "2026-11-24T00:00:00Z", start, end);
        check(
            Period::Minute,
            berlin,
            Weekday::Monday,
            "2026-11-24T00:00:59Z",
            "2026-11-24T00:00:00Z",
            "2026-11-24T00:01:00Z",
        );
    }
}
