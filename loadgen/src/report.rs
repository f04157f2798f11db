//! What a run came to, as data. [`text`], [`json`] and [`html`] show it.

pub mod html;
pub mod json;
mod lines;
mod svg;
pub mod text;

use crate::assert::{Assertion, Checked, Facts};
use crate::histogram::Latencies;
use crate::limits::{self, Finding, Limit, Setting, Verdict};
use crate::plan::Plan;
use crate::run::Outcome;
use crate::validity::{self, Validity};

/// A run, judged.
#[derive(Debug)]
pub struct Report {
    pub plan: Plan,
    pub outcome: Outcome,
    pub validity: Validity,
    /// One for each limit of the plan.
    pub findings: Vec<Finding>,
    pub assertions: Vec<Checked>,
}

impl Report {
    /// Judges a run.
    pub fn new(plan: Plan, outcome: Outcome, assertions: &[Assertion]) -> Self {
        let validity = validity::judge(&outcome, plan.is_open(), plan.threads);
        let setting = Setting {
            started_unix_ns: outcome.started_unix_ns,
            tolerance: plan.clock_tolerance,
            fresh: plan.fresh_counters,
        };
        let mut findings = limits::check(&plan.limits, &outcome.tally.events, &setting);
        if outcome.tally.events_lost > 0 {
            // Admissions that were not kept would make refusals look wrong.
            findings.iter_mut().flat_map(|f| &mut f.rows).for_each(|r| r.wrongly_rejected = 0);
        }
        let known = (!plan.limits.is_empty()).then_some(findings.as_slice());
        let facts = Facts { outcome: &outcome, findings: known };
        let assertions = assertions.iter().map(|a| a.check(&facts)).collect();
        Self { plan, outcome, validity, findings, assertions }
    }

    /// Whether every assertion held.
    pub fn assertions_hold(&self) -> bool {
        self.assertions.iter().all(|a| a.pass)
    }

    /// Whether no limit was found broken.
    pub fn limits_hold(&self) -> bool {
        let broken = |v: Verdict| matches!(v, Verdict::OverAdmitted | Verdict::UnderAdmitted);
        !self.findings.iter().flat_map(|f| &f.rows).any(|r| broken(r.verdict()))
    }

    /// Requests per second over the run.
    fn per_second(&self, n: u64) -> f64 {
        n as f64 / self.outcome.duration.as_secs_f64().max(1e-9)
    }

    /// The limit of a finding.
    fn limit(&self, finding: &Finding) -> &Limit {
        &self.plan.limits[finding.limit]
    }

    /// The names of those who share a limit.
    fn members(&self, limit: &Limit) -> Vec<&str> {
        let mut indices: Vec<_> = limit.members.iter().map(|m| m.consumer).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.into_iter().filter_map(|i| self.plan.consumers.get(i)).map(|c| c.name.as_str()).collect()
    }
}

/// The quantiles of reports.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A quantile, if there are enough samples to speak of it.
fn quantile(latencies: &Latencies, q: f64) -> Option<u64> {
    latencies.quantile(q).filter(|_| latencies.supports(q))
}

/// A moment in ms since 1970, as a time of day or, at midnight, as a date too. UTC.
fn show_moment(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let format = if unix_ms.is_multiple_of(86_400_000) { "%Y-%m-%d %H:%M:%S" } else { "%H:%M:%S" };
    at.map_or_else(String::new, |at| at.strftime(format).to_string())
}

#[cfg(test)]
mod tests;
