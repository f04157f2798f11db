//! Kong's fixed windows: calendar periods in UTC. Pure arithmetic on milliseconds since 1970.

/// The periods that a limit can have, shortest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    /// From Monday on. Kong does not have it.
    Week,
    Month,
    Year,
}

const DAY: u64 = 86_400;

impl Period {
    /// All of them, shortest first.
    pub const ALL: [Self; 7] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// Those that Kong knows, shortest first.
    pub const KONG: [Self; 6] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Month, Self::Year];

    /// The period of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// As a config names it.
    pub const fn name(self) -> &'static str {
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

    /// As a header field names it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Second => "Second",
            Self::Minute => "Minute",
            Self::Hour => "Hour",
            Self::Day => "Day",
            Self::Week => "Week",
            Self::Month => "Month",
            Self::Year => "Year",
        }
    }

    /// Seconds. A month counts 30 days and a year 365, as Kong counts them.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
            Self::Year => 365 * DAY,
        }
    }

    /// When the calendar period around `now_ms` began.
    pub fn start_ms(self, now_ms: u64) -> u64 {
        let days = now_ms / (DAY * 1000);
        match self {
            // 1970 began on a Thursday.
            Self::Week => days.saturating_sub((days + 3) % 7) * DAY * 1000,
            Self::Month => (days - (civil(days).day - 1)) * DAY * 1000,
            Self::Year => (days - civil(days).day_of_year) * DAY * 1000,
            _ => now_ms - now_ms % (self.seconds() * 1000),
        }
    }

    /// When the calendar period around `now_ms` ends and the next begins.
    pub fn end_ms(self, now_ms: u64) -> u64 {
        let start = self.start_ms(now_ms);
        match self {
            // Some day of the next one, and from there to its start.
            Self::Month => self.start_ms(start + 32 * DAY * 1000),
            Self::Year => self.start_ms(start + 370 * DAY * 1000),
            _ => start + self.seconds() * 1000,
        }
    }

    /// No calendar period of this kind is longer, in ms: months have up to 31 days, years 366, and days up to 25 hours.
    pub const fn longest_ms(self) -> u64 {
        match self {
            Self::Second | Self::Minute | Self::Hour => self.seconds() * 1000,
            _ => (self.seconds() + 2 * DAY) * 1000,
        }
    }

    /// Whole seconds until the period ends by Kong's reckoning: its nominal length less what has passed, at least 1.
    pub fn reset_s(self, now_ms: u64) -> u64 {
        let elapsed = (now_ms - self.start_ms(now_ms)) / 1000;
        self.seconds().saturating_sub(elapsed).max(1)
    }
}

struct Civil {
    /// Day of the month, from 1.
    day: u64,
    /// Days since the first of January.
    day_of_year: u64,
}

/// The Gregorian date of a day since 1970. Counts years from March, so that the leap day comes last.
fn civil(days: u64) -> Civil {
    let z = days + 719_468;
    let era_day = z % 146_097;
    let year_of_era = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let day_of_year = era_day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let leap = year_of_era.is_multiple_of(4) && (!year_of_era.is_multiple_of(100) || year_of_era == 0);
    Civil {
        day: day_of_year - (153 * month + 2) / 5 + 1,
        // March to December lie in the year that `year_of_era` names, January and February in the next.
        day_of_year: if month < 10 { day_of_year + 59 + u64::from(leap) } else { day_of_year - 306 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64
    }

    #[test]
    fn windows_follow_the_calendar() {
        for (now, starts) in [
            (
                "2024-02-29T23:59:59.999Z",
                [
                    "2024-02-29T23:59:59Z",
                    "2024-02-29T23:59:00Z",
                    "2024-02-29T23:00:00Z",
                    "2024-02-29T00:00:00Z",
                    "2024-02-26T00:00:00Z",
                    "2024-02-01T00:00:00Z",
                    "2024-01-01T00:00:00Z",
                ],
            ),
            (
                "2026-12-31T13:14:15.161Z",
                [
                    "2026-12-31T13:14:15Z",
                    "2026-12-31T13:14:00Z",
                    "2026-12-31T13:00:00Z",
                    "2026-12-31T00:00:00Z",
                    "2026-12-28T00:00:00Z",
                    "2026-12-01T00:00:00Z",
                    "2026-01-01T00:00:00Z",
                ],
            ),
        ] {
            for (period, start) in Period::ALL.iter().zip(starts) {
                assert_eq!(period.start_ms(ms(now)), ms(start), "{period:?} of {now}");
            }
        }
    }

    #[test]
    fn every_day_of_a_century_lies_in_its_month_and_year() {
        let mut date = jiff::civil::date(1970, 1, 1);
        for day in 0..47_482 {
            let now = day * DAY * 1000 + 5;
            let first = |d: jiff::civil::Date| {
                jiff::tz::TimeZone::UTC.to_timestamp(d.at(0, 0, 0, 0)).unwrap().as_millisecond() as u64
            };
            assert_eq!(Period::Month.start_ms(now), first(date.first_of_month()), "{date}");
            assert_eq!(Period::Year.start_ms(now), first(date.first_of_year()), "{date}");
            let next = |d: jiff::civil::Date| first(d.tomorrow().unwrap());
            assert_eq!(Period::Month.end_ms(now), next(date.last_of_month()), "{date}");
            assert_eq!(Period::Year.end_ms(now), next(date.last_of_year()), "{date}");
            if day > 3 {
                let weekday = i64::from(date.weekday().to_monday_zero_offset());
                let monday = date.checked_sub(jiff::Span::new().days(weekday)).unwrap();
                assert_eq!(Period::Week.start_ms(now), first(monday), "{date}");
            }
            date = date.tomorrow().unwrap();
        }
    }

    #[test]
    fn resets_count_thirty_days_to_the_month_and_are_never_zero() {
        for (period, now, want) in [
            (Period::Second, "2026-01-01T00:00:00.999Z", 1),
            (Period::Minute, "2026-01-01T00:00:59.999Z", 1),
            (Period::Minute, "2026-01-01T00:00:00Z", 60),
            (Period::Hour, "2026-01-01T00:10:00Z", 3000),
            (Period::Month, "2026-01-31T12:00:00Z", 1),
            (Period::Month, "2026-02-28T00:00:00Z", 3 * DAY),
            (Period::Year, "2024-12-31T00:00:00Z", 1),
        ] {
            assert_eq!(period.reset_s(ms(now)), want, "{period:?} {now}");
        }
    }
}
