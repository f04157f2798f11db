//! The report for programs: `gw.bench/1`. Times are in microseconds, rates per second, shares of 1.

use serde_json::{Map, Value, json};

use super::lines::show_rule;
use super::{Report, quantile};
use crate::histogram::Latencies;
use crate::limits::{Row, Verdict};
use crate::schedule::Pace;
use crate::tally::{Class, Failure};
use crate::validity::{achieved, cpu_share};

/// The whole report. `requests`, `rps`, `p50`, `p99` and `p999` at the top are the answered requests and the response times
/// of the 2xx answers, for scripts that want one line.
pub fn render(report: &Report) -> Value {
    let outcome = &report.outcome;
    let tally = &outcome.tally;
    let success = tally.class(Class::Success).response.as_deref();
    let headline = |q| success.and_then(|l| quantile(l, q)).map(us);
    json!({
        "schema": "gw.bench/1",
        "requests": tally.answered(),
        "rps": round(report.per_second(tally.answered())),
        "p50": headline(0.5),
        "p99": headline(0.99),
        "p999": headline(0.999),
        "run": run(report),
        "validity": {
            "status": if report.validity.is_valid() { "valid" } else { "invalid" },
            "reasons": report.validity.reasons,
            "warnings": report.validity.warnings,
            "achieved": round(achieved(outcome)),
            "generator_cpu": round(cpu_share(outcome, report.plan.threads)),
        },
        "load": {
            "offered": outcome.offered,
            "offered_per_s": round(report.per_second(outcome.offered)),
            "sent": tally.sent,
            "sent_per_s": round(report.per_second(tally.sent)),
            "answered": tally.answered(),
            "answered_per_s": round(report.per_second(tally.answered())),
            "body_bytes": tally.bytes,
            "warned": tally.warned,
        },
        "classes": classes(report),
        "statuses": statuses(&tally.statuses),
        "errors": errors(report),
        "queue_us": stats(Some(&tally.queue)),
        "generator_lag_us": stats(Some(&tally.lag)),
        "connections": {
            "opened": tally.connections.opened,
            "tls_resumed": tally.connections.resumed,
            "handshake_us": stats(tally.connections.handshake.as_deref()),
        },
        "limits": limits(report),
        "timeline": timeline(report),
        "assertions": report.assertions.iter().map(|a| json!({
            "expr": a.text, "value": a.value, "pass": a.pass,
        })).collect::<Vec<_>>(),
    })
}

fn run(report: &Report) -> Value {
    let plan = &report.plan;
    let phases = plan.phases.iter().map(|p| {
        let (from, to) = match p.pace {
            Pace::Rate { from, to } => (Some(from), Some(to)),
            Pace::Closed => (None, None),
        };
        let seconds = p.duration.map(|d| d.as_secs_f64());
        json!({ "name": p.name, "rate_from": from, "rate_to": to, "duration_s": seconds })
    });
    let started = i64::try_from(report.outcome.started_unix_ns / 1_000_000).ok();
    let started = started.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    json!({
        "gw_version": env!("CARGO_PKG_VERSION"),
        "started": started.map(|t| t.to_string()),
        "duration_s": report.outcome.duration.as_secs_f64(),
        "interrupted": report.outcome.interrupted,
        "origin": plan.origin().to_string(),
        "targets": plan.targets.iter().map(|t| &t.name).collect::<Vec<_>>(),
        "consumers": plan.consumers.iter().map(|c| &c.name).collect::<Vec<_>>(),
        "model": if plan.is_open() { "open" } else { "closed" },
        "phases": phases.collect::<Vec<_>>(),
        "protocol": if plan.http2 { "h2" } else { "http/1.1" },
        "tls": plan.origin().tls,
        "connections": plan.connections,
        "streams": plan.streams,
        "threads": plan.threads,
        "timeout_s": plan.timeout.as_secs_f64(),
        "seed": plan.seed,
    })
}

fn classes(report: &Report) -> Value {
    let tally = &report.outcome.tally;
    let class = |class: Class| {
        let of_class = tally.class(class);
        let share = if tally.sent == 0 { 0.0 } else { of_class.count as f64 / tally.sent as f64 };
        let value = json!({
            "count": of_class.count,
            "share": round(share),
            "response_us": stats(of_class.response.as_deref()),
            "service_us": stats(of_class.service.as_deref()),
        });
        (class.name().to_owned(), value)
    };
    Value::Object(Class::ALL.into_iter().map(class).collect())
}

fn statuses(statuses: &[u64]) -> Value {
    let seen = statuses.iter().enumerate().filter(|(_, n)| **n > 0);
    Value::Object(seen.map(|(status, n)| (status.to_string(), json!(n))).collect())
}

fn errors(report: &Report) -> Value {
    let tally = &report.outcome.tally;
    let mut out = Map::new();
    for failure in Failure::ALL {
        let (count, example) = (tally.failures[failure as usize], &tally.examples[failure as usize]);
        if count > 0 {
            out.insert(failure.name().to_owned(), json!({ "count": count, "example": example }));
        }
    }
    Value::Object(out)
}

fn limits(report: &Report) -> Value {
    let finding = |f| {
        let limit = report.limit(f);
        json!({
            "name": limit.name,
            "rule": show_rule(&limit.rule),
            "consumers": report.members(limit),
            "windows": f.rows.iter().map(row).collect::<Vec<_>>(),
        })
    };
    report.findings.iter().map(finding).collect()
}

fn row(row: &Row) -> Value {
    let moment = |ms: u64| {
        let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        at.map(|at| at.to_string())
    };
    json!({
        "start": row.window.and_then(|w| moment(w.0)),
        "end": row.window.and_then(|w| moment(w.1)),
        "offered": row.offered,
        "admitted": row.admitted,
        "admitted_at_most": row.admitted_at_most,
        "rejected": row.rejected,
        "unknown": row.unknown,
        "allowed": row.allowed,
        "excess": row.excess,
        "wrongly_rejected": row.wrongly_rejected,
        "began_before_run": row.partial,
        "verdict": verdict(row.verdict()),
    })
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "held",
        Verdict::NotReached => "not_reached",
        Verdict::OverAdmitted => "over_admitted",
        Verdict::UnderAdmitted => "under_admitted",
        Verdict::Unknown => "unknown",
    }
}

fn timeline(report: &Report) -> Value {
    let tick = |(second, tick): (usize, &crate::tally::Tick)| {
        let mut out = Map::new();
        out.insert("t".to_owned(), json!(second));
        out.insert("sent".to_owned(), json!(tick.sent));
        for class in Class::ALL {
            out.insert(class.name().to_owned(), json!(tick.ended[class as usize]));
        }
        out.insert("p50".to_owned(), json!(tick.success.quantile(0.5).map(us)));
        out.insert("p99".to_owned(), json!(tick.success.quantile(0.99).map(us)));
        Value::Object(out)
    };
    report.outcome.tally.timeline.iter().enumerate().map(tick).collect()
}

/// A distribution; null without samples. A percentile without enough samples beyond it is null.
fn stats(latencies: Option<&Latencies>) -> Value {
    let Some(l) = latencies.filter(|l| l.count() > 0) else { return Value::Null };
    let q = |q| quantile(l, q).map(us);
    json!({
        "n": l.count(),
        "min": l.min().map(us),
        "mean": l.mean().map(us),
        "p50": q(0.5),
        "p90": q(0.9),
        "p95": q(0.95),
        "p99": q(0.99),
        "p999": q(0.999),
        "p9999": q(0.9999),
        "max": l.max().map(us),
    })
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// Six digits after the point are more than any measurement has.
fn round(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}
