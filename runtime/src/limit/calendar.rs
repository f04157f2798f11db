//! Calendar windows in a time zone: days, weeks, months and years as people there count them, daylight saving included.

use std::sync::Arc;

use arc_swap::ArcSwap;
pub use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::window::Period;

/// The calendar of one limit.
#[derive(Debug)]
pub struct Calendar {
    period: Period,
    zone: TimeZone,
    week_start: Weekday,
    /// The window that was asked for last: nearly always the next request falls into it, too.
    last: ArcSwap<Window>,
}

/// A stretch of time in ms since 1970: `start` belongs to it, `end` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub start_ms: u64,
    pub end_ms: u64,
}

/// Calendars of one period, zone and start of the week are equal, whatever they were last asked.
impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        (self.period, &self.zone, self.week_start) == (other.period, &other.zone, other.week_start)
    }
}

impl Calendar {
    /// The calendar of a period: `Day` or longer.
    pub fn new(period: Period, zone: TimeZone, week_start: Weekday) -> Self {
        Self { period, zone, week_start, last: ArcSwap::from_pointee(Window::default()) }
    }

    /// The zone of this IANA name, such as `Europe/Berlin`, from the database that the binary carries; that of the system
    /// is not looked at, so that the same config means the same everywhere.
    pub fn zone(name: &str) -> Option<TimeZone> {
        TimeZone::get(name).ok()
    }

    /// Names of all zones.
    pub fn zones() -> Vec<String> {
        jiff::tz::db().available().map(|n| n.to_string()).collect()
    }

    /// The window around `now_ms`.
    pub fn window(&self, now_ms: u64) -> Window {
        let last = **self.last.load();
        if (last.start_ms..last.end_ms).contains(&now_ms) {
            return last;
        }
        // Without a civil date (beyond the year 9999) windows fall back to UTC.
        let found = self.reckon(now_ms).unwrap_or_else(|| Window {
            start_ms: self.period.start_ms(now_ms),
            end_ms: self.period.end_ms(now_ms),
        });
        self.last.store(Arc::new(found));
        found
    }

    fn reckon(&self, now_ms: u64) -> Option<Window> {
        let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
        let today = self.zone.to_datetime(now).date();
        let (first, length) = match self.period {
            Period::Week => {
                let passed = self.week_start.until(today.weekday());
                (today.checked_sub(Span::new().days(passed)).ok()?, Span::new().weeks(1))
            }
            Period::Month => (today.first_of_month(), Span::new().months(1)),
            Period::Year => (today.first_of_year(), Span::new().years(1)),
            _ => (today, Span::new().days(1)),
        };
        let next = first.checked_add(length).ok()?;
        Some(Window { start_ms: self.begin(first)?, end_ms: self.begin(next)? })
    }

    /// When a civil day begins in this zone: where midnight is skipped, the first moment after it; where it comes twice,
    /// the first time.
    fn begin(&self, day: jiff::civil::Date) -> Option<u64> {
        let midnight = self.zone.to_ambiguous_timestamp(day.at(0, 0, 0, 0)).compatible().ok()?;
        u64::try_from(midnight.as_millisecond()).ok()
    }

    /// Bounds of windows around `now_ms`, in Unix seconds, for a store whose clock is a little off: begin of the last one,
    /// of the present one, of the next, and of the one after.
    pub fn edges_s(&self, now_ms: u64) -> [u64; 4] {
        let here = self.window(now_ms);
        let before = self.reckon(here.start_ms.saturating_sub(1)).unwrap_or(here);
        let after = self.reckon(here.end_ms).unwrap_or(here);
        [before.start_ms, here.start_ms, here.end_ms, after.end_ms].map(|ms| ms / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    #[track_caller]
    fn check(zone: &str, period: Period, now: &str, start: &str, end: &str) {
        let calendar = Calendar::new(period, Calendar::zone(zone).unwrap(), Weekday::Monday);
        let want = Window { start_ms: ms(start), end_ms: ms(end) };
        assert_eq!(calendar.window(ms(now)), want, "{period:?} of {now} in {zone}");
        // The same again, from what it remembers, and at its edges.
        assert_eq!(calendar.window(want.end_ms - 1), want);
        assert_eq!(calendar.window(want.start_ms), want);
        assert_eq!(calendar.window(want.end_ms).start_ms, want.end_ms, "no gap after {now}");
        assert_eq!(calendar.window(want.start_ms - 1).end_ms, want.start_ms, "no gap before {now}");
    }

    #[test]
    fn windows_are_those_of_the_people_there() {
        use Period::{Day, Month, Week, Year};
        for (zone, period, now, start, end) in [
            ("UTC", Month, "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("UTC", Month, "2026-01-31T23:59:59.999Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("UTC", Year, "2024-12-31T23:59:59Z", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            ("Europe/Berlin", Day, "2026-07-01T22:30:00Z", "2026-07-01T22:00:00Z", "2026-07-02T22:00:00Z"),
            // Clocks go forward: a day of 23 hours; and back: one of 25.
            ("Europe/Berlin", Day, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("Europe/Berlin", Day, "2026-10-25T00:30:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            ("Europe/Berlin", Month, "2026-03-31T22:30:00Z", "2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z"),
            (
                "America/New_York",
                Month,
                "2026-11-15T00:00:00Z",
                "2026-11-01T04:00:00Z",
                "2026-12-01T05:00:00Z",
            ),
            (
                "America/New_York",
                Week,
                "2026-11-01T12:00:00Z",
                "2026-10-26T04:00:00Z",
                "2026-11-02T05:00:00Z",
            ),
            // Midnight does not exist on this day.
            ("America/Asuncion", Day, "2022-10-02T12:00:00Z", "2022-10-02T04:00:00Z", "2022-10-03T03:00:00Z"),
            // A whole day was left out when the date line was moved.
            ("Pacific/Apia", Day, "2011-12-30T09:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
            ("Asia/Kathmandu", Day, "2026-05-05T18:14:00Z", "2026-05-04T18:15:00Z", "2026-05-05T18:15:00Z"),
        ] {
            check(zone, period, now, start, end);
        }
    }

    #[test]
    fn weeks_begin_when_the_config_says() {
        for (first, start) in [
            (Weekday::Monday, "2026-11-23T00:00:00Z"),
            (Weekday::Sunday, "2026-11-22T00:00:00Z"),
            (Weekday::Tuesday, "2026-11-24T00:00:00Z"),
            (Weekday::Wednesday, "2026-11-18T00:00:00Z"),
        ] {
            let calendar = Calendar::new(Period::Week, TimeZone::UTC, first);
            assert_eq!(calendar.window(ms("2026-11-24T14:00:00Z")).start_ms, ms(start), "{first:?}");
        }
    }

    #[test]
    fn windows_of_twenty_years_follow_on_each_other() {
        for (zone, period) in [
            ("Europe/Berlin", Period::Day),
            ("America/Sao_Paulo", Period::Week),
            ("Australia/Lord_Howe", Period::Month),
            ("Africa/Casablanca", Period::Day),
        ] {
            let calendar = Calendar::new(period, Calendar::zone(zone).unwrap(), Weekday::Monday);
            let mut at = ms("2015-06-15T12:00:00Z");
            while at < ms("2035-01-01T00:00:00Z") {
                let window = calendar.window(at);
                assert!(window.start_ms <= at && at < window.end_ms, "{zone} {at}");
                assert!(window.end_ms - window.start_ms <= period.longest_ms(), "{zone} {window:?}");
                let next = calendar.window(window.end_ms);
                assert_eq!(next.start_ms, window.end_ms, "{zone}");
                at = window.end_ms;
            }
        }
    }

    #[test]
    fn edges_surround_the_present() {
        let calendar = Calendar::new(Period::Day, Calendar::zone("Europe/Berlin").unwrap(), Weekday::Monday);
        let at = |text: &str| ms(text) / 1000;
        assert_eq!(
            calendar.edges_s(ms("2026-03-29T12:00:00Z")),
            [
                at("2026-03-27T23:00:00Z"),
                at("2026-03-28T23:00:00Z"),
                at("2026-03-29T22:00:00Z"),
                at("2026-03-30T22:00:00Z")
            ]
        );
    }

    #[test]
    fn zones_are_known_by_name() {
        assert!(Calendar::zone("Europe/Berlni").is_none());
        assert!(Calendar::zones().iter().any(|z| z == "Europe/Berlin"));
    }
}
