//! Upstreams with their targets.

use std::sync::Arc;
use std::time::Duration;

use crate::check::Checked;
use crate::message::FieldName;
use crate::model::rules::is_socket;
use crate::model::schema::{Record, Val};
use crate::model::{Model, Upstream};
use crate::snapshot::upstream::{
    ActiveChecks, Algorithm, Breaker, HashInput, Outlier, PassiveChecks, ProbeKind, TargetConfig, Thresholds,
    UpstreamConfig,
};

/// Makes the table of upstreams. Targets of weight 0 are left out: they get no requests.
pub fn build(model: &Checked<Model>) -> Box<[Arc<UpstreamConfig>]> {
    let mut all: Vec<UpstreamConfig> = model.upstreams.iter().map(upstream).collect();
    let mut targets = vec![Vec::new(); all.len()];
    for (t, &upstream) in model.targets.iter().zip(&model.links().target_upstream) {
        if t.weight > 0 {
            targets[upstream].push(TargetConfig {
                // Names know no case, paths do.
                host: match is_socket(&t.host.value) {
                    true => t.host.value.clone(),
                    false => t.host.value.to_ascii_lowercase(),
                },
                port: t.port,
                weight: t.weight,
            });
        }
    }
    for (u, targets) in all.iter_mut().zip(targets) {
        u.targets = targets.into();
    }
    all.into_iter().map(Arc::new).collect()
}

fn upstream(u: &Upstream) -> UpstreamConfig {
    let r = &u.record;
    let none = Record::default();
    let checks = r.record("healthchecks").unwrap_or(&none);
    UpstreamConfig {
        id: u.id.clone(),
        name: u.name.value.clone(),
        algorithm: match r.str("algorithm") {
            Some("consistent-hashing") => Algorithm::ConsistentHashing,
            Some("least-connections") => Algorithm::LeastConnections,
            Some("latency") => Algorithm::Latency,
            _ => Algorithm::RoundRobin,
        },
        hash_on: hash_input(r, "hash_on", "hash_on"),
        hash_fallback: hash_input(r, "hash_fallback", "hash_fallback"),
        cookie_path: r.str("hash_on_cookie_path").unwrap_or("/").to_owned(),
        slots: r.int("slots").and_then(|n| u32::try_from(n).ok()).unwrap_or(10_000),
        host_header: r.str("host_header").map(str::to_owned),
        use_srv_name: r.bool("use_srv_name"),
        active: active(checks.record("active").unwrap_or(&none)),
        passive: passive(checks.record("passive").unwrap_or(&none)),
        threshold: checks.num("threshold").unwrap_or(0.0),
        slow_start: seconds(r, "slow_start").unwrap_or_default(),
        // Defaults of a record are there even where the record is not.
        outlier: r.record("outlier_ejection").filter(|_| r.given("outlier_ejection")).map(outlier),
        breaker: r.record("circuit_breaker").map(breaker).unwrap_or_default(),
        retry_after: seconds(r, "retry_after_max").unwrap_or_default(),
        targets: Box::default(),
    }
}

/// There is one `hash_on_cookie` for both places; every other input has a field for each.
fn hash_input(r: &Record, selector: &str, prefix: &str) -> HashInput {
    let field = |suffix: &str| r.str(&format!("{prefix}_{suffix}")).map(str::to_owned);
    let found = match r.str(selector) {
        Some("consumer") => Some(HashInput::Consumer),
        Some("ip") => Some(HashInput::Ip),
        Some("path") => Some(HashInput::Path),
        Some("header") => field("header").map(|h| HashInput::Header(FieldName::new(&h))),
        Some("cookie") => r.str("hash_on_cookie").map(|c| HashInput::Cookie(c.to_owned())),
        Some("query_arg") => field("query_arg").map(HashInput::QueryArg),
        Some("uri_capture") => field("uri_capture").map(HashInput::UriCapture),
        _ => None,
    };
    found.unwrap_or_default()
}

fn active(r: &Record) -> ActiveChecks {
    let none = Record::default();
    let (healthy, unhealthy) = (r.record("healthy").unwrap_or(&none), r.record("unhealthy").unwrap_or(&none));
    let mut headers = Vec::new();
    for (name, values) in r.map("headers") {
        if let Val::List(values) = &values.value {
            let texts = values.iter().filter_map(|v| match &v.value {
                Val::Str(s) => Some(s.clone()),
                _ => None,
            });
            headers.extend(texts.map(|v| (name.value.clone(), v)));
        }
    }
    ActiveChecks {
        // A gRPC server is probed by connecting, as Kong does.
        kind: match r.str("type") {
            Some("https") => ProbeKind::Https,
            Some("tcp" | "grpc" | "grpcs") => ProbeKind::Tcp,
            _ => ProbeKind::Http,
        },
        timeout: seconds(r, "timeout").unwrap_or(Duration::from_secs(1)),
        concurrency: r.int("concurrency").and_then(|n| usize::try_from(n).ok()).unwrap_or(10),
        http_path: r.str("http_path").unwrap_or("/").to_owned(),
        https_sni: r.str("https_sni").map(str::to_owned),
        https_verify: r.bool_opt("https_verify_certificate").unwrap_or(true),
        headers,
        healthy_interval: seconds(healthy, "interval").unwrap_or_default(),
        unhealthy_interval: seconds(unhealthy, "interval").unwrap_or_default(),
        thresholds: thresholds(healthy, unhealthy),
    }
}

fn passive(r: &Record) -> PassiveChecks {
    let none = Record::default();
    let (healthy, unhealthy) = (r.record("healthy").unwrap_or(&none), r.record("unhealthy").unwrap_or(&none));
    PassiveChecks {
        thresholds: thresholds(healthy, unhealthy),
        recover_after: seconds(r, "recover_after").unwrap_or_default(),
    }
}

fn whole(r: &Record, name: &str) -> u32 {
    r.int(name).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

fn outlier(r: &Record) -> Outlier {
    Outlier {
        consecutive_errors: whole(r, "consecutive_errors"),
        stdev_factor: r.num("success_rate_deviations").unwrap_or(0.0),
        hosts_min: whole(r, "success_rate_targets"),
        requests_min: whole(r, "success_rate_requests"),
        interval: seconds(r, "interval").unwrap_or_default(),
        base: seconds(r, "time").unwrap_or_default(),
        max: seconds(r, "max_time").unwrap_or_default(),
        max_percent: whole(r, "max_percent"),
    }
}

fn breaker(r: &Record) -> Breaker {
    Breaker {
        requests: whole(r, "max_requests"),
        connections: whole(r, "max_connections"),
        pending: whole(r, "max_pending"),
        wait: seconds(r, "pending_timeout").unwrap_or_default(),
    }
}

fn seconds(r: &Record, name: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(r.num(name)?).ok()
}

fn thresholds(healthy: &Record, unhealthy: &Record) -> Thresholds {
    let count = whole;
    let statuses = |r: &Record| {
        let int = |v: &Val| match v {
            Val::Int(n) => u16::try_from(*n).ok(),
            _ => None,
        };
        r.list("http_statuses").iter().filter_map(|v| int(&v.value)).collect()
    };
    Thresholds {
        successes: count(healthy, "successes"),
        http_failures: count(unhealthy, "http_failures"),
        tcp_failures: count(unhealthy, "tcp_failures"),
        timeouts: count(unhealthy, "timeouts"),
        healthy_statuses: statuses(healthy),
        unhealthy_statuses: statuses(unhealthy),
    }
}
