//! What reports say about limits, in words: the same at a terminal and on a page.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Report, show_moment};
use crate::limits::{Finding, Period, Row, Rule, Verdict};
use crate::units::show_count;

/// One limit of one sender, or of several who share it.
pub(super) struct Section {
    pub who: String,
    /// How much is allowed, and where the config says so.
    pub what: String,
    pub lines: Vec<Line>,
}

/// One window.
pub(super) struct Line {
    pub window: String,
    pub admitted: String,
    pub verdict: String,
    pub tone: Tone,
    /// Admitted against allowed, from 0 to 1 and a little more.
    pub share: f64,
    pub row: Row,
}

/// Whether a reader need worry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Plain,
    Doubtful,
    Bad,
}

/// All limits, those of one sender together.
pub(super) fn sections(report: &Report) -> Vec<Section> {
    let first = |f: &&Finding| report.limit(f).members.iter().map(|m| m.consumer).min();
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(first);
    findings.into_iter().map(|f| section(report, f)).collect()
}

fn section(report: &Report, finding: &Finding) -> Section {
    let limit = report.limit(finding);
    Section {
        who: report.members(limit).join(" + "),
        what: format!("{}, {}", show_rule(&limit.rule), limit.name),
        lines: finding.rows.iter().map(|row| line(&limit.rule, row)).collect(),
    }
}

fn line(rule: &Rule, row: &Row) -> Line {
    let admitted = match row.admitted == row.admitted_at_most {
        true => show_count(row.admitted),
        false => format!("{}–{}", show_count(row.admitted), show_count(row.admitted_at_most)),
    };
    let (tone, verdict) = match row.verdict() {
        Verdict::Held => (Tone::Good, "held".to_owned()),
        Verdict::NotReached => (Tone::Plain, "not reached".to_owned()),
        Verdict::OverAdmitted => (Tone::Bad, format!("OVER by at least {}", show_count(row.excess))),
        Verdict::UnderAdmitted => (
            Tone::Bad,
            format!("UNDER: {} refused although there was room", show_count(row.wrongly_rejected)),
        ),
        Verdict::Unknown => {
            (Tone::Doubtful, "the window is too short for how far the clocks may be apart".to_owned())
        }
    };
    Line {
        window: row.window.map_or_else(|| "whole run".to_owned(), |window| show_window(rule, window)),
        admitted,
        verdict,
        tone,
        share: row.admitted as f64 / row.allowed.max(1) as f64,
        row: row.clone(),
    }
}

/// What remains to be said below all limits: the whole in one sentence, and what marks mean.
pub(super) fn conclusion(report: &Report) -> Option<(Tone, String)> {
    let rows = || report.findings.iter().flat_map(|f| &f.rows);
    let of = |verdicts: &[Verdict]| rows().filter(|r| verdicts.contains(&r.verdict())).count();
    let broken = of(&[Verdict::OverAdmitted, Verdict::UnderAdmitted]);
    let held = of(&[Verdict::Held]);
    rows().next()?;
    Some(match (broken, held) {
        (0, 0) => (Tone::Plain, "no limit was reached, so nothing is proved about refusals".to_owned()),
        (0, _) => {
            (Tone::Good, "nobody was provably admitted beyond a limit, nor refused below one".to_owned())
        }
        (1, _) => (Tone::Bad, "a limit did not hold in 1 window".to_owned()),
        (n, _) => (Tone::Bad, format!("limits did not hold in {n} windows")),
    })
}

/// What [`PARTIAL`] means.
pub(super) const PARTIAL_NOTE: &str =
    "* began before the run, so what was used of it before is not known (--fresh-counters says: nothing)";
/// Marks windows that began before the run.
pub(super) const PARTIAL: &str = " *";

/// How a rule reads.
pub(super) fn show_rule(rule: &Rule) -> String {
    use crate::units::{show_duration, show_rate};
    match rule {
        Rule::FixedWindow { limit, period } => {
            format!("{} per {} (calendar windows)", show_count(*limit), period.name())
        }
        Rule::CalendarWindow { limit, calendar } => {
            let zone = calendar.zone.iana_name().unwrap_or("UTC");
            format!("{} per {} (calendar windows of {zone})", show_count(*limit), calendar.period.name())
        }
        Rule::SlidingCounter { limit, period } => {
            format!("{} per {} (sliding counter)", show_count(*limit), period.name())
        }
        Rule::SlidingLog { limit, window } => {
            format!("{} in any {}", show_count(*limit), show_duration(*window))
        }
        Rule::TokenBucket { per_second, burst } => {
            format!("{} and bursts of {burst} (token bucket)", show_rate(*per_second))
        }
        Rule::WaitingBucket { per_second, burst, waiting } => format!(
            "{} and bursts of {burst}, of which up to {waiting:.0} more wait (token bucket)",
            show_rate(*per_second)
        ),
    }
}

/// A window as people call it: days and longer by their date, shorter ones by the time of day.
fn show_window(rule: &Rule, (start, end): (u64, u64)) -> String {
    let utc = TimeZone::UTC;
    let (period, zone) = match rule {
        Rule::FixedWindow { period, .. } | Rule::SlidingCounter { period, .. } => (*period, &utc),
        Rule::CalendarWindow { calendar, .. } => (calendar.period, &calendar.zone),
        _ => return format!("{} – {}", show_moment(start), show_moment(end)),
    };
    let date = |ms: u64, format: &str| {
        let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        at.map_or_else(String::new, |at| zone.to_datetime(at).strftime(format).to_string())
    };
    match period {
        Period::Second | Period::Minute | Period::Hour => {
            format!("{} – {}", date(start, "%H:%M:%S"), date(end, "%H:%M:%S"))
        }
        Period::Day => date(start, "%Y-%m-%d"),
        Period::Week => format!("{} – {}", date(start, "%Y-%m-%d"), date(end.saturating_sub(1), "%m-%d")),
        Period::Month => date(start, "%Y-%m"),
        Period::Year => date(start, "%Y"),
    }
}
