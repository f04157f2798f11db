//! Assertions about a run: `p99<50ms`, `status.429>0`, `errors==0`, `share.5xx<0.1%`, `limits.excess==0`.
//!
//! Every metric has a kind, and a value of another kind is refused before anything is sent.

use std::time::Duration;

use crate::histogram::Latencies;
use crate::limits::Finding;
use crate::run::Outcome;
use crate::tally::{Class, Failure};
use crate::units::{parse_duration, parse_rate, show_count, show_ns, show_rate};
use crate::validity::achieved;

/// What can be asserted, for help and error messages.
pub const METRICS: &str = "latency: `p50` to `p99.99`, `mean`, `min`, `max`, with `service.` or `queue.` before it and \
    `{class=429}` after it; counts: `requests`, `errors`, `errors.timeout`, `status.429`, `status.5xx`; `share.` and one \
    of the counts, as in `share.errors`; `rate`, `achieved`; `limits.excess`, `limits.wrongly_rejected`";

/// One assertion.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    /// As it was written.
    pub text: String,
    metric: Metric,
    op: Op,
    /// Nanoseconds, requests, a share of 1, or requests per second.
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    Latency { basis: Basis, statistic: Statistic, class: Class },
    Count(What),
    Share(What),
    Rate,
    Achieved,
    Excess,
    WronglyRejected,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Basis {
    Response,
    Service,
    Queue,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    Quantile(f64),
    Mean,
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Requests,
    Status(u16),
    Class(Class),
    /// All of 400 to 499, 429 among them.
    ClientErrors,
    Failure(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

/// What came of an assertion.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub text: String,
    pub pass: bool,
    /// The value that was measured, for people; or why there is none.
    pub value: String,
}

/// What assertions are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub outcome: &'a Outcome,
    /// None where no limits are known.
    pub findings: Option<&'a [Finding]>,
}

impl std::str::FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = |why: String| format!("assertion `{text}`: {why}");
        let (left, op, right) = split(text).ok_or_else(|| {
            fail("there is no comparison; write for example `p99<50ms` or `errors==0`".to_owned())
        })?;
        let metric = Metric::read(left.trim()).map_err(fail)?;
        let bound = metric.read_bound(right.trim()).map_err(fail)?;
        Ok(Self { text: text.trim().to_owned(), metric, op, bound })
    }
}

/// Splits at the first comparison. The longer operators come first, so that `<=` is not read as `<`.
fn split(text: &str) -> Option<(&str, Op, &str)> {
    const OPS: [(&str, Op); 7] = [
        ("<=", Op::LessOrEqual),
        (">=", Op::GreaterOrEqual),
        ("==", Op::Equal),
        ("!=", Op::NotEqual),
        ("<", Op::Less),
        (">", Op::Greater),
        ("=", Op::Equal),
    ];
    // An equals sign within `{class=2xx}` is none.
    let from = text.find('}').map_or(0, |i| i + 1);
    let found = OPS.iter().filter_map(|(sign, op)| Some((from + text[from..].find(sign)?, *sign, *op)));
    let (at, sign, op) = found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())))?;
    Some((&text[..at], op, &text[at + sign.len()..]))
}

impl Metric {
    fn read(text: &str) -> Result<Self, String> {
        let (name, class) = match text.split_once('{') {
            None => (text, None),
            Some((name, filter)) => (name, Some(read_filter(filter)?)),
        };
        let simple = match name {
            "rate" => Some(Self::Rate),
            "achieved" => Some(Self::Achieved),
            "limits.excess" => Some(Self::Excess),
            "limits.wrongly_rejected" => Some(Self::WronglyRejected),
            _ => What::read(name).map(Self::Count),
        };
        let share = name.strip_prefix("share.").and_then(What::read_any).map(Self::Share);
        if let Some(metric) = simple.or(share) {
            return match class {
                None => Ok(metric),
                Some(_) => Err(format!("`{name}` takes no `{{class=...}}`")),
            };
        }
        let (basis, statistic) = match name.split_once('.') {
            Some(("service", rest)) => (Basis::Service, rest),
            Some(("queue", rest)) => (Basis::Queue, rest),
            Some(("response", rest)) => (Basis::Response, rest),
            _ => (Basis::Response, name),
        };
        let statistic = Statistic::read(statistic)
            .ok_or_else(|| format!("there is no metric `{name}`; there are {METRICS}"))?;
        if basis == Basis::Queue && class.is_some() {
            return Err("the queue is the same for all classes; leave out `{class=...}`".to_owned());
        }
        Ok(Self::Latency { basis, statistic, class: class.unwrap_or(Class::Success) })
    }

    fn read_bound(self, text: &str) -> Result<f64, String> {
        let percent =
            |text: &str| text.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()).map(|n| n / 100.0);
        let bound = match self {
            Self::Latency { .. } => parse_duration(text)?.as_nanos() as f64,
            Self::Rate => parse_rate(text)?,
            Self::Share(_) | Self::Achieved => percent(text)
                .or_else(|| text.parse().ok().filter(|share| (0.0..=1.0).contains(share)))
                .ok_or_else(|| format!("`{text}` is not a share, write for example `99%`"))?,
            Self::Count(_) | Self::Excess | Self::WronglyRejected => text
                .parse::<u64>()
                .map_err(|_| format!("`{text}` is not a number of requests, write for example `0`"))?
                as f64,
        };
        if bound.is_finite() { Ok(bound) } else { Err(format!("`{text}` is no bound")) }
    }
}

fn read_filter(text: &str) -> Result<Class, String> {
    let wrong = || format!("`{{{text}` is not a class; write for example `{{class=2xx}}` or `{{class=429}}`");
    let inner = text.strip_suffix('}').ok_or_else(wrong)?;
    let (key, value) = inner.split_once('=').ok_or_else(wrong)?;
    if !matches!(key.trim(), "class" | "status") {
        return Err(wrong());
    }
    Class::ALL.into_iter().find(|c| c.name() == value.trim()).ok_or_else(wrong)
}

impl Statistic {
    fn read(text: &str) -> Option<Self> {
        match text {
            "mean" => Some(Self::Mean),
            "min" => Some(Self::Min),
            "max" => Some(Self::Max),
            _ => {
                let percent: f64 = text.strip_prefix('p')?.parse().ok()?;
                (0.0..100.0).contains(&percent).then_some(Self::Quantile(percent / 100.0))
            }
        }
    }

    fn of(self, latencies: &Latencies) -> Option<u64> {
        match self {
            Self::Quantile(q) => latencies.quantile(q),
            Self::Mean => latencies.mean(),
            Self::Min => latencies.min(),
            Self::Max => latencies.max(),
        }
    }
}

impl What {
    fn read(name: &str) -> Option<Self> {
        match name {
            "requests" => Some(Self::Requests),
            "errors" => Some(Self::Class(Class::Failed)),
            _ => {
                let (kind, which) = name.split_once('.')?;
                match kind {
                    "errors" => Failure::ALL.into_iter().find(|f| f.name() == which).map(Self::Failure),
                    "status" => Self::read_status(which),
                    _ => None,
                }
            }
        }
    }

    /// Also without `status.`, as in `share.429`.
    fn read_any(name: &str) -> Option<Self> {
        Self::read(name).or_else(|| Self::read_status(name))
    }

    fn read_status(text: &str) -> Option<Self> {
        if text == "4xx" {
            return Some(Self::ClientErrors);
        }
        let class = Class::ALL.into_iter().find(|c| c.name() == text && c.name().ends_with("xx"));
        let status = || text.parse().ok().filter(|s| (100..1000).contains(s)).map(Self::Status);
        class.map(Self::Class).or_else(status)
    }

    fn count(self, outcome: &Outcome) -> u64 {
        let tally = &outcome.tally;
        match self {
            Self::Requests => tally.sent,
            Self::Status(status) => tally.statuses[usize::from(status)],
            Self::Class(class) => tally.class(class).count,
            Self::ClientErrors => tally.class(Class::ClientError).count + tally.class(Class::Limited).count,
            Self::Failure(failure) => tally.failures[failure as usize],
        }
    }
}

impl Op {
    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Less => value < bound,
            Self::LessOrEqual => value <= bound,
            Self::Greater => value > bound,
            Self::GreaterOrEqual => value >= bound,
            Self::Equal => value == bound,
            Self::NotEqual => value != bound,
        }
    }
}

impl Assertion {
    /// Whether it holds. What was not measured fails, whatever was asserted of it.
    pub fn check(&self, facts: &Facts<'_>) -> Checked {
        let (pass, value) = match self.measure(facts) {
            Ok((value, shown)) => (self.op.holds(value, self.bound), shown),
            Err(why) => (false, why),
        };
        Checked { text: self.text.clone(), pass, value }
    }

    fn measure(&self, facts: &Facts<'_>) -> Result<(f64, String), String> {
        let outcome = facts.outcome;
        let tally = &outcome.tally;
        let share = |share: f64| (share, format!("{:.2} %", share * 100.0));
        let count = |n: u64| (n as f64, show_count(n));
        Ok(match self.metric {
            Metric::Latency { basis, statistic, class } => {
                let of_class = tally.class(class);
                let latencies = match basis {
                    Basis::Response => of_class.response.as_deref(),
                    Basis::Service => of_class.service.as_deref(),
                    Basis::Queue => Some(&tally.queue),
                };
                let none = || format!("there is no sample of class {}", class.name());
                let ns = latencies.and_then(|l| statistic.of(l)).ok_or_else(none)?;
                (ns as f64, show_ns(ns))
            }
            Metric::Count(what) => count(what.count(outcome)),
            Metric::Share(_) if tally.sent == 0 => return Err("no request was sent".to_owned()),
            Metric::Share(what) => share(what.count(outcome) as f64 / tally.sent as f64),
            Metric::Rate => {
                let rate =
                    tally.answered() as f64 / outcome.duration.max(Duration::from_nanos(1)).as_secs_f64();
                (rate, show_rate(rate))
            }
            Metric::Achieved => share(achieved(outcome)),
            Metric::Excess => count(sum(facts, |f| f.rows.iter().map(|r| r.excess).sum())?),
            Metric::WronglyRejected => {
                count(sum(facts, |f| f.rows.iter().map(|r| r.wrongly_rejected).sum())?)
            }
        })
    }
}

fn sum(facts: &Facts<'_>, of: impl Fn(&Finding) -> u64) -> Result<u64, String> {
    let findings = facts.findings.ok_or("no limits are known; name them with `--config` and `--consumer`")?;
    Ok(findings.iter().map(of).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{End, NOBODY, Sample, Tally};

    #[test]
    fn assertions_are_typed() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Assertion>().map(|_| ()).unwrap_err();
            assert!(error.contains(part) && error.contains(text), "{text}: {error}");
        };
        check("p99<50", "no unit");
        check("p99", "no comparison");
        check("p101<5ms", "no metric `p101`");
        check("latency<5ms", "no metric `latency`");
        check("errors==0ms", "not a number of requests");
        check("errors==-1", "not a number of requests");
        check("share.5xx<5ms", "not a share");
        check("status.4299>0", "no metric");
        check("p99{class=teapot}<5ms", "not a class");
        check("errors{class=2xx}==0", "takes no");
        check("rate>fast", "not a rate");
        check("achieved>=990", "not a share");
    }

    fn outcome() -> Outcome {
        let mut tally = Tally::new(false);
        for i in 0..100 {
            let status = if i < 90 { 200 } else { 429 };
            let (due, ms) = (Duration::from_millis(i), Duration::from_millis(1 + i));
            let end = End::Status(status);
            tally.record(&Sample {
                consumer: NOBODY,
                target: 0,
                due,
                sent: due,
                received: due + ms,
                end,
                bytes: 0,
            });
        }
        let duration = Duration::from_secs(1);
        Outcome { tally, duration, offered: 100, interrupted: false, started_unix_ns: 0 }
    }

    #[test]
    fn assertions_hold_or_fail() {
        let outcome = outcome();
        let check = |text: &str, pass: bool, value: &str| {
            let facts = Facts { outcome: &outcome, findings: None };
            let got = text.parse::<Assertion>().unwrap().check(&facts);
            assert_eq!((got.pass, got.value.contains(value)), (pass, true), "{got:?}");
        };
        check("p50<50ms", true, "ms");
        check("p99.9 <= 90ms", true, "90");
        check("max<50ms", false, "90");
        check("max{class=429}>=100ms", true, "100 ms");
        check("service.p50<1s", true, "ms");
        check("queue.max==0ns", true, "0 ns");
        check("errors==0", true, "0");
        check("errors.timeout=0", true, "0");
        check("status.429>0", true, "10");
        check("status.4xx==10", true, "10");
        check("share.429<=10%", true, "10.00 %");
        check("share.2xx>0.95", false, "90.00 %");
        check("requests==100", true, "100");
        check("rate>=100/s", true, "100/s");
        check("achieved>=99%", true, "100");
        // Nothing was measured, so nothing holds.
        check("p99{class=5xx}<5ms", false, "no sample");
        check("limits.excess==0", false, "no limits are known");
    }
}
