//! Counters and histograms under Kong's names. Each worker has a slab of its own; they are added up when scraped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ahash::AHashMap;

use crate::exchange::Exchange;
use crate::overload;
use crate::policy::limit_notes::Verdict;
use crate::policy::{Step, mirror};
use crate::provider::{Provider, Providers};
use crate::snapshot::Labels;
use crate::snapshot::upstream::UpstreamConfig;
use crate::worker::respond::Ending;

/// Bounds in ms of the time spent in the gateway.
const GATEWAY_MS: &[u64] = &[1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000];
/// Bounds in ms of the time spent waiting for upstreams, and of the whole.
const REQUEST_MS: &[u64] = &[25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000];

#[derive(Clone, Default)]
struct Histogram {
    buckets: [u64; 18],
    sum_us: u64,
    count: u64,
}

impl Histogram {
    fn add(&mut self, bounds: &[u64], took: Duration) {
        let us = took.as_micros() as u64;
        let at = bounds.iter().position(|b| us <= b * 1000).unwrap_or(bounds.len());
        self.buckets[at] += 1;
        self.sum_us += us;
        self.count += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (a, b) in self.buckets.iter_mut().zip(other.buckets) {
            *a += b;
        }
        self.sum_us += other.sum_us;
        self.count += other.count;
    }

    fn write(&self, out: &mut String, name: &str, labels: &str, bounds: &[u64]) {
        let mut below = 0;
        for (i, bound) in bounds.iter().enumerate() {
            below += self.buckets[i];
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(out, "{name}_count{{{labels}}} {}", self.count);
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum_us as f64 / 1000.0);
    }
}

#[derive(Clone, Default)]
struct Row {
    /// By status, and whether the service (true) or the gateway answered.
    codes: Vec<(u16, bool, u64)>,
    gateway: Histogram,
    upstream: Histogram,
    request: Histogram,
    ingress: u64,
    egress: u64,
    /// What limits did, by their names, which come from configs and so are few.
    limits: Vec<(String, Verdict, u64)>,
}

impl Row {
    fn merge(&mut self, other: &Self) {
        for (code, service, n) in &other.codes {
            *self.code(*code, *service) += n;
        }
        self.gateway.merge(&other.gateway);
        self.upstream.merge(&other.upstream);
        self.request.merge(&other.request);
        self.ingress += other.ingress;
        self.egress += other.egress;
        for (limit, verdict, n) in &other.limits {
            *self.limit(limit, *verdict) += n;
        }
    }

    fn code(&mut self, code: u16, service: bool) -> &mut u64 {
        let at = self.codes.iter().position(|(c, s, _)| *c == code && *s == service).unwrap_or_else(|| {
            self.codes.push((code, service, 0));
            self.codes.len() - 1
        });
        &mut self.codes[at].2
    }

    fn limit(&mut self, limit: &str, verdict: Verdict) -> &mut u64 {
        let at = self.limits.iter().position(|(l, v, _)| l == limit && *v == verdict).unwrap_or_else(|| {
            self.limits.push((limit.to_owned(), verdict, 0));
            self.limits.len() - 1
        });
        &mut self.limits[at].2
    }
}

#[derive(Default)]
struct Rows {
    /// By the address of the labels, which are interned for the life of the process.
    by_route: AHashMap<usize, (Arc<Labels>, Row)>,
    unmatched: Row,
}

/// One worker's numbers. The lock is only contended while somebody scrapes.
#[derive(Default)]
pub struct Slab(Mutex<Rows>);

impl Slab {
    /// Counts a request.
    pub fn request(&self, x: &Exchange, ending: &Ending, took: Duration) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = match x.route.map(|r| &x.snapshot.routes[r.0 as usize].labels) {
            Some(labels) => {
                let key = Arc::as_ptr(labels) as usize;
                &mut rows.by_route.entry(key).or_insert_with(|| (Arc::clone(labels), Row::default())).1
            }
            None => &mut rows.unmatched,
        };
        *row.code(x.response.status, !x.local_response) += 1;
        for note in &x.limit_notes {
            *row.limit(&note.limit, note.verdict) += 1;
        }
        row.ingress += ending.request_bytes;
        row.egress += ending.response_bytes;
        row.request.add(REQUEST_MS, took);
        let mut gateway = took;
        if let Some(began) = x.upstream.began {
            let waited = x.upstream.first_byte.map_or(Duration::ZERO, |f| f.duration_since(began));
            row.upstream.add(REQUEST_MS, waited);
            gateway = began.duration_since(x.now.instant);
        }
        row.gateway.add(GATEWAY_MS, gateway);
    }
}

/// All workers' slabs, and what else is worth a number.
pub struct Metrics {
    pub slabs: Vec<Arc<Slab>>,
    pub common: Arc<crate::worker::context::Common>,
    pub started: std::time::Instant,
    /// Lines that the access log had to leave out, where there is a log.
    pub log_dropped: Option<Arc<AtomicU64>>,
}

pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Metrics {
    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let mut all: BTreeMap<(String, String), Row> = BTreeMap::new();
        let mut unmatched = Row::default();
        for slab in &self.slabs {
            let rows = slab.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (labels, row) in rows.by_route.values() {
                all.entry((escape(&labels.service), escape(&labels.route))).or_default().merge(row);
            }
            unmatched.merge(&rows.unmatched);
        }
        let mut out = String::new();
        self.process(&mut out);
        head(&mut out, "kong_http_requests_total", "counter", "requests by service, route and status");
        for ((service, route), row) in &all {
            let mut codes = row.codes.clone();
            codes.sort_unstable();
            for (code, by_service, n) in codes {
                let source = if by_service { "service" } else { "kong" };
                let _ = writeln!(
                    out,
                    "kong_http_requests_total{{service=\"{service}\",route=\"{route}\",code=\"{code}\",\
                     source=\"{source}\",workspace=\"default\",consumer=\"\"}} {n}"
                );
            }
        }
        head(&mut out, "gw_unmatched_requests_total", "counter", "requests that matched no route, by status");
        for (code, _, n) in &unmatched.codes {
            let _ = writeln!(out, "gw_unmatched_requests_total{{code=\"{code}\"}} {n}");
        }
        if all.values().any(|row| !row.limits.is_empty()) {
            head(
                &mut out,
                "gw_rate_limit_total",
                "counter",
                "what limits did to requests, by limit and result",
            );
        }
        for ((service, route), row) in &all {
            for (limit, verdict, n) in &row.limits {
                let (limit, result) = (escape(limit), verdict.name());
                let _ = writeln!(
                    out,
                    "gw_rate_limit_total{{service=\"{service}\",route=\"{route}\",limit=\"{limit}\",\
                     result=\"{result}\"}} {n}"
                );
            }
        }
        histograms(&mut out, &all);
        head(&mut out, "kong_bandwidth_bytes", "counter", "bytes of bodies");
        for ((service, route), row) in &all {
            for (direction, n) in [("ingress", row.ingress), ("egress", row.egress)] {
                let _ = writeln!(
                    out,
                    "kong_bandwidth_bytes{{service=\"{service}\",route=\"{route}\",direction=\"{direction}\",\
                     workspace=\"default\",consumer=\"\"}} {n}"
                );
            }
        }
        self.targets(&mut out);
        self.upstreams(&mut out);
        self.mirrors(&mut out);
        self.providers(&mut out);
        out
    }

    /// What became of copies of requests, where any plugin makes some.
    fn mirrors(&self, out: &mut String) {
        let snapshot = self.common.publisher.current();
        if !snapshot.steps.iter().any(|s| matches!(s, Step::Mirror(_))) {
            return;
        }
        let counts = snapshot.shared.get::<mirror::Counts>();
        let name = "gw_mirrored_requests_total";
        head(out, name, "counter", "copies of requests to other services, by result");
        for (result, n) in [
            ("answered", &counts.answered),
            ("failed", &counts.failed),
            ("dropped", &counts.dropped),
            ("uncopied", &counts.uncopied),
        ] {
            let _ = writeln!(out, "{name}{{result=\"{result}\"}} {}", n.load(Ordering::Relaxed));
        }
    }

    /// What became of asking identity providers for their keys.
    fn providers(&self, out: &mut String) {
        let providers = self.common.publisher.current().shared.get::<Providers>().all();
        if providers.is_empty() {
            return;
        }
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let source = |p: &Provider| escape(p.source.url());
        let series: [(&str, &str, &str, fn(&Provider) -> &AtomicU64); 2] = [
            ("asked", "counter", "tokens that named a key which was not in the set", |p| &p.counts.asked),
            ("unavailable", "counter", "requests answered 503 for want of keys", |p| &p.counts.unavailable),
        ];
        head(out, "gw_identity_provider_fetches_total", "counter", "rounds of fetching keys, by result");
        for p in &providers {
            for (result, n) in [("ok", &p.counts.succeeded), ("failed", &p.counts.failed)] {
                let (source, n) = (source(p), load(n));
                let _ = writeln!(
                    out,
                    "gw_identity_provider_fetches_total{{source=\"{source}\",result=\"{result}\"}} {n}"
                );
            }
        }
        for (name, kind, help, pick) in series {
            let name = format!("gw_identity_provider_{name}_total");
            head(out, &name, kind, help);
            for p in &providers {
                let _ = writeln!(out, "{name}{{source=\"{}\"}} {}", source(p), load(pick(p)));
            }
        }
        head(out, "gw_identity_provider_age_seconds", "gauge", "since the keys in force were fetched");
        for (p, age) in providers.iter().filter_map(|p| Some((p, p.age()?))) {
            let _ = writeln!(
                out,
                "gw_identity_provider_age_seconds{{source=\"{}\"}} {}",
                source(p),
                age.as_secs()
            );
        }
    }

    /// The health of every target, one series a state, of which one is 1.
    fn targets(&self, out: &mut String) {
        use crate::upstream::health_view::{STATES, view};
        let snapshot = self.common.publisher.current();
        if snapshot.upstreams.is_empty() {
            return;
        }
        head(out, "kong_upstream_target_health", "gauge", "the state of each address of a target");
        for upstream in &snapshot.upstreams {
            let name = escape(&upstream.name);
            for t in view(&self.common, upstream) {
                let (target, address) = (escape(&t.target), escape(t.address.as_deref().unwrap_or("")));
                for state in STATES {
                    let _ = writeln!(
                        out,
                        "kong_upstream_target_health{{upstream=\"{name}\",target=\"{target}\",\
                         address=\"{address}\",state=\"{state}\",subsystem=\"http\"}} {}",
                        u8::from(t.state == state)
                    );
                }
            }
        }
    }

    /// What circuit breakers and ejections did, for upstreams that have any.
    fn upstreams(&self, out: &mut String) {
        let snapshot = self.common.publisher.current();
        let known = |u| self.common.rings.get(u, &self.common.resolver).ring;
        let with = |holds: fn(&UpstreamConfig) -> bool| {
            snapshot
                .upstreams
                .iter()
                .filter(|u| holds(u))
                .map(|u| (escape(&u.name), known(u)))
                .collect::<Vec<_>>()
        };
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let breakers = with(|u| u.breaker.is_on());
        if !breakers.is_empty() {
            head(out, "gw_upstream_requests", "gauge", "requests that a circuit breaker counts");
            for (name, ring) in &breakers {
                let (in_flight, pending) = ring.known.gate.load();
                for (state, n) in [("in_flight", in_flight), ("pending", pending)] {
                    let _ =
                        writeln!(out, "gw_upstream_requests{{upstream=\"{name}\",state=\"{state}\"}} {n}");
                }
            }
            let name = "gw_upstream_refused_total";
            head(out, name, "counter", "requests that a circuit breaker refused, by the limit");
            for (upstream, ring) in &breakers {
                let gate = &ring.known.gate;
                for (limit, n) in [
                    ("requests", &gate.refused_requests),
                    ("connections", &gate.refused_connections),
                    ("pending", &gate.refused_pending),
                ] {
                    let _ = writeln!(out, "{name}{{upstream=\"{upstream}\",limit=\"{limit}\"}} {}", load(n));
                }
            }
        }
        let alone = with(|u| u.outlier.is_some() || !u.retry_after.is_zero());
        if !alone.is_empty() {
            let name = "gw_upstream_let_alone_total";
            head(out, name, "counter", "targets let alone for a while, by the reason");
            for (upstream, ring) in &alone {
                for (reason, n) in [("ejected", &ring.known.ejections), ("retry_after", &ring.known.rests)] {
                    let _ =
                        writeln!(out, "{name}{{upstream=\"{upstream}\",reason=\"{reason}\"}} {}", load(n));
                }
            }
        }
    }

    fn process(&self, out: &mut String) {
        head(out, "kong_node_info", "gauge", "the version that runs");
        let _ = writeln!(out, "kong_node_info{{node_id=\"\",version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        head(out, "gw_connections", "gauge", "client connections open now");
        let _ = writeln!(out, "gw_connections {}", self.common.connections.load(Ordering::Relaxed));
        head(out, "gw_config_generation", "gauge", "counts published configs");
        let _ = writeln!(out, "gw_config_generation {}", self.common.publisher.generation());
        super::certificates::render(&self.common.publisher.current(), out);
        let state = self.common.reloads.state();
        head(out, "gw_config_reloads_total", "counter", "attempts to put another config in force");
        for (result, n) in [("ok", state.succeeded), ("failed", state.failed)] {
            let _ = writeln!(out, "gw_config_reloads_total{{result=\"{result}\"}} {n}");
        }
        let fine = u8::from(state.last_error.is_none());
        let loaded = state.loaded_ms as f64 / 1000.0;
        let alive = self.common.publisher.alive() as u64;
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let over = load(&self.common.over_limit);
        let over_ip = load(&self.common.over_ip_limit);
        let no_proxy = load(&self.common.proxy_refused);
        simple(out, "gw_config_last_reload_success", "gauge", "whether the last attempt succeeded", fine);
        simple(
            out,
            "gw_config_loaded_seconds",
            "gauge",
            "when the config was put in force (Unix time)",
            loaded,
        );
        simple(out, "gw_live_snapshots", "gauge", "compiled configs in memory", alive);
        head(
            out,
            "gw_connections_refused_total",
            "counter",
            "client connections closed at once, by the reason",
        );
        for (limit, n) in
            [("connections", over), ("connections_per_ip", over_ip), ("proxy_protocol", no_proxy)]
        {
            let _ = writeln!(out, "gw_connections_refused_total{{limit=\"{limit}\"}} {n}");
        }
        simple(
            out,
            "gw_requests_shed_total",
            "counter",
            "requests answered with 503 for want of memory",
            overload::shed_count(),
        );
        simple(
            out,
            "gw_overloaded",
            "gauge",
            "whether requests are turned away for want of memory",
            u8::from(overload::is_full()),
        );
        if overload::limit() > 0 {
            simple(
                out,
                "gw_memory_limit_bytes",
                "gauge",
                "memory that the process may use",
                overload::limit(),
            );
        }
        simple(out, "gw_panics_total", "counter", "bugs that ended a request", crate::panics::count());
        if let Some(n) = &self.log_dropped {
            simple(
                out,
                "gw_access_log_dropped_total",
                "counter",
                "lines left out for want of a fast disk",
                load(n),
            );
        }
        if let Some(n) = super::process::resident_bytes() {
            simple(out, "process_resident_memory_bytes", "gauge", "memory in use", n);
        }
        if let Some(n) = super::process::open_files() {
            simple(out, "process_open_fds", "gauge", "open files and sockets", n);
        }
        head(out, "gw_uptime_seconds", "gauge", "time since the start");
        let _ = writeln!(out, "gw_uptime_seconds {}", self.started.elapsed().as_secs());
    }
}

pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A metric without labels.
fn simple(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

type Pick = fn(&Row) -> &Histogram;

fn histograms(out: &mut String, all: &BTreeMap<(String, String), Row>) {
    let rows: [(&str, &str, &[u64], Pick); 3] = [
        ("kong_kong_latency_ms", "time spent in the gateway", GATEWAY_MS, |r| &r.gateway),
        ("kong_upstream_latency_ms", "time until the upstream's answer began", REQUEST_MS, |r| &r.upstream),
        ("kong_request_latency_ms", "time of the whole request", REQUEST_MS, |r| &r.request),
    ];
    for (name, help, bounds, pick) in rows {
        head(out, name, "histogram", help);
        for ((service, route), row) in all {
            let labels = format!("service=\"{service}\",route=\"{route}\",workspace=\"default\"");
            pick(row).write(out, name, &labels, bounds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let mut h = Histogram::default();
        for ms in [1, 30, 30, 100_000] {
            h.add(REQUEST_MS, Duration::from_millis(ms));
        }
        let mut out = String::new();
        h.write(&mut out, "x", "a=\"b\"", REQUEST_MS);
        assert!(out.contains("x_bucket{a=\"b\",le=\"25\"} 1\n"), "{out}");
        assert!(out.contains("x_bucket{a=\"b\",le=\"50\"} 3\n"), "{out}");
        assert!(out.contains("x_bucket{a=\"b\",le=\"60000\"} 3\n"), "{out}");
        assert!(out.contains("x_bucket{a=\"b\",le=\"+Inf\"} 4\n"), "{out}");
    }
}
