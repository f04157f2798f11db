//! What a client is told about its limits.

use super::algorithm::seconds_up;
use super::{Algorithm, Outcome, Rule, Rules, Usage};
use crate::message::name::OTHER;
use crate::message::{Fields, names};

/// Limits and how they stood, of one key or of several.
#[derive(Clone, Copy)]
pub struct Standing<'a> {
    pub parts: &'a [(&'a Rules, &'a Outcome)],
    /// Whether all of them let the request pass.
    pub admitted: bool,
}

/// A limit of which the given share is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The limit's name.
    pub limit: std::borrow::Cow<'static, str>,
    /// Whole percent of the limit used, this request included; at most 100.
    pub used_percent: u8,
}

impl<'a> Standing<'a> {
    /// Of one key.
    pub fn of(part: &'a (&'a Rules, &'a Outcome)) -> Self {
        Self { parts: std::slice::from_ref(part), admitted: part.1.admitted }
    }

    fn each(self) -> impl Iterator<Item = (&'a Rule, &'a Usage)> {
        self.parts.iter().flat_map(|(rules, outcome)| rules.rules.iter().zip(outcome.usages()))
    }

    /// What is left of a limit after this request, as Kong shows it: while another limit refuses the request, this one is
    /// not charged for it.
    fn remaining(self, usage: &Usage) -> f64 {
        let charged = self.admitted || usage.exhausted;
        (if charged { usage.left - f64::from(usage.hits) } else { usage.left }).max(0.0)
    }

    /// The limit that binds: the one with the least left, of equal ones the last (of Kong's the longest).
    fn binding(self) -> Option<(&'a Rule, &'a Usage)> {
        let mut best: Option<(&Rule, &Usage)> = None;
        for (rule, usage) in self.each() {
            if best.is_none_or(|(_, b)| self.remaining(usage) <= self.remaining(b)) {
                best = Some((rule, usage));
            }
        }
        best
    }

    /// When a refused request passes if nobody else comes; None for an admitted one, and for one that asks for more than a
    /// whole limit.
    pub fn retry_after_s(self) -> Option<u64> {
        let mut longest = None;
        for (_, usage) in self.each().filter(|(_, u)| u.exhausted) {
            longest = longest.max(Some(seconds_up(usage.retry_ms?)));
        }
        longest
    }

    /// The limits that refuse the request.
    pub fn violated(self) -> impl Iterator<Item = &'a Rule> {
        self.each().filter(|(_, u)| u.exhausted).map(|(rule, _)| rule)
    }

    /// The limit that is nearest its end, if `percent` of it is used. A bucket that holds a single request is always
    /// either empty or full, so it says nothing.
    pub fn warning(self, percent: f64) -> Option<Warning> {
        let share = |(rule, u): &(&Rule, &Usage)| (1.0 - self.remaining(u) / rule.capacity()) * 100.0;
        let telling = |(rule, _): &(&Rule, &Usage)| rule.algorithm != Algorithm::Bucket || rule.burst > 1.0;
        let fullest = self.each().filter(telling).max_by(|a, b| share(a).total_cmp(&share(b)))?;
        let used = share(&fullest);
        let used_percent = used.clamp(0.0, 100.0).round() as u8;
        (used + 1e-9 >= percent).then(|| Warning { limit: fullest.0.label(), used_percent })
    }
}

/// Kong's fields: `X-RateLimit-Limit-Minute` and `-Remaining-`, `RateLimit-Limit`, `-Remaining`, `-Reset`; for a
/// refused request `Retry-After`.
pub fn write(fields: &mut Fields, standing: Standing<'_>) {
    let mut number = NumberText::default();
    for (rule, usage) in standing.each() {
        let (limit, left) = rule.fields();
        untagged(fields, limit, number.text(usage.limit, false));
        untagged(fields, left, number.text(standing.remaining(usage), is_whole(rule)));
    }
    let Some((rule, usage)) = standing.binding() else { return };
    untagged(fields, "RateLimit-Limit", number.text(usage.limit, false));
    untagged(fields, "RateLimit-Remaining", number.text(standing.remaining(usage), is_whole(rule)));
    untagged(fields, "RateLimit-Reset", number.text(usage.reset_s as f64, true));
    if let Some(seconds) = standing.retry_after_s() {
        fields.append(&names::RETRY_AFTER, number.text(seconds as f64, true));
    }
}

/// None of these names has a tag, so none is looked for.
#[inline]
fn untagged(fields: &mut Fields, name: &str, value: &[u8]) {
    fields.push_tagged(OTHER, name.as_bytes(), value);
}

/// Only Kong's own windows show fractions.
fn is_whole(rule: &Rule) -> bool {
    rule.algorithm != Algorithm::Fixed
}

/// The structured fields of the IETF's draft: `RateLimit-Policy` with quota `q` and window `w` of each limit, and
/// `RateLimit` with what is left (`r`) and in how many seconds there is more (`t`). A bucket's quota is what may come at
/// once, and its window the time in which that much comes again.
pub fn write_ietf(fields: &mut Fields, standing: Standing<'_>) {
    use std::fmt::Write as _;
    let (mut policy, mut state) = (String::new(), String::new());
    for (rule, usage) in standing.each() {
        if !policy.is_empty() {
            policy.push_str(", ");
            state.push_str(", ");
        }
        let (name, q, w) = (rule.name(), rule.capacity().floor(), rule.quota_window_s());
        let _ = write!(policy, "\"{name}\";q={q};w={w}");
        let r = if usage.exhausted { 0.0 } else { standing.remaining(usage).floor() };
        let _ = write!(state, "\"{name}\";r={r};t={}", usage.more_s);
    }
    untagged(fields, "RateLimit-Policy", policy.as_bytes());
    untagged(fields, "RateLimit", state.as_bytes());
}

/// `X-RateLimit-Warning: "minute";used=85`.
pub fn write_warning(fields: &mut Fields, warning: &Warning) {
    let text = format!("\"{}\";used={}", warning.limit, warning.used_percent);
    untagged(fields, "X-RateLimit-Warning", text.as_bytes());
}

/// Writes numbers without allocating for whole ones.
#[derive(Default)]
pub struct NumberText {
    digits: itoa::Buffer,
    fraction: String,
}

impl NumberText {
    /// A number as Kong prints it: whole without a point, else with up to 14 digits; `floor` cuts the fraction off.
    pub fn text(&mut self, number: f64, floor: bool) -> &[u8] {
        // Nearly always it is whole, and then there is nothing to round.
        let whole = number as i64;
        if whole as f64 == number && whole.unsigned_abs() < 1_000_000_000_000_000 {
            return self.digits.format(whole).as_bytes();
        }
        // Rounding errors must not show 3 where 4 are left.
        let number = if floor { (number + 1e-9).floor() } else { number };
        if number.fract() == 0.0 && number.abs() < 1e15 {
            return self.digits.format(number as i64).as_bytes();
        }
        let digits_before_point = number.abs().log10().max(0.0) as usize + 1;
        self.fraction = format!("{number:.*}", 14_usize.saturating_sub(digits_before_point));
        if self.fraction.contains('.') {
            let trimmed = self.fraction.trim_end_matches('0').trim_end_matches('.').len();
            self.fraction.truncate(trimmed);
        }
        self.fraction.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cell, Period};
    use super::*;

    const NOW: u64 = 30_000_000 * 60_000 + 10_000;

    fn fields(limits: &[(Period, f64, f64)]) -> Vec<(String, String)> {
        let rules = Rules {
            rules: limits
                .iter()
                .map(|&(period, limit, _)| Rule::new(Algorithm::Fixed, period, limit))
                .collect(),
            count_rejected: false,
        };
        let cells = limits.iter().map(|&(.., count)| Cell { at_ms: NOW, count, previous: 0.0 });
        let outcome = Outcome::of(&rules, cells, 1, NOW);
        let mut fields = Fields::default();
        let part = (&rules, &outcome);
        let standing = Standing::of(&part);
        write(&mut fields, standing);
        write_ietf(&mut fields, standing);
        if let Some(warning) = standing.warning(80.0) {
            write_warning(&mut fields, &warning);
        }
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        fields.iter().map(|(n, v)| (text(n), text(v))).collect()
    }

    #[track_caller]
    fn check(limits: &[(Period, f64, f64)], want: &[(&str, &str)]) {
        let got = fields(limits);
        for (name, value) in want {
            let found = got.iter().find(|(n, _)| n == name).map_or("absent", |(_, v)| v);
            assert_eq!(found, *value, "{name} of {limits:?}");
        }
    }

    #[test]
    fn the_fields_describe_every_limit_and_the_one_that_binds() {
        use Period::{Day, Hour, Minute};
        check(
            &[(Minute, 5.0, 0.0), (Hour, 10.0, 0.0)],
            &[
                ("X-RateLimit-Limit-Minute", "5"),
                ("X-RateLimit-Remaining-Minute", "4"),
                ("X-RateLimit-Remaining-Hour", "9"),
                ("RateLimit-Limit", "5"),
                ("RateLimit-Remaining", "4"),
                ("RateLimit-Reset", "50"),
                ("Retry-After", "absent"),
                ("RateLimit-Policy", "\"minute\";q=5;w=60, \"hour\";q=10;w=3600"),
                ("RateLimit", "\"minute\";r=4;t=50, \"hour\";r=9;t=3590"),
                ("X-RateLimit-Warning", "absent"),
            ],
        );
        // Of equal ones the longer window binds.
        check(&[(Minute, 5.0, 0.0), (Hour, 5.0, 0.0)], &[("RateLimit-Reset", "3590")]);
        // While one refuses, the others are not charged.
        check(
            &[(Minute, 2.0, 2.0), (Day, 9.0, 2.0)],
            &[
                ("X-RateLimit-Remaining-Minute", "0"),
                ("X-RateLimit-Remaining-Day", "7"),
                ("RateLimit-Limit", "2"),
                ("Retry-After", "50"),
            ],
        );
        check(&[(Minute, 1.5, 0.0)], &[("RateLimit-Limit", "1.5"), ("RateLimit-Remaining", "0.5")]);
        check(&[(Minute, 1.5, 1.0)], &[("RateLimit-Remaining", "0"), ("Retry-After", "absent")]);
        check(&[(Minute, 10.0, 6.0)], &[("X-RateLimit-Warning", "absent")]);
        check(&[(Minute, 10.0, 7.0), (Hour, 100.0, 7.0)], &[("X-RateLimit-Warning", "\"minute\";used=80")]);
        check(&[(Minute, 10.0, 70.0)], &[("X-RateLimit-Warning", "\"minute\";used=100")]);
    }

    #[test]
    fn numbers_are_printed_as_kong_prints_them() {
        let mut t = NumberText::default();
        for (n, want) in [(3.0, "3"), (0.0, "0"), (1.5, "1.5"), (0.1 + 0.2, "0.3"), (1e12, "1000000000000")] {
            assert_eq!(t.text(n, false), want.as_bytes());
        }
        assert_eq!(t.text(3.999_999_999_999, true), b"4");
        assert_eq!(t.text(3.9, true), b"3");
    }
}
