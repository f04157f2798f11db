//! Upstreams as the config describes them: pure values, compared to tell whether a reload changed anything.

use std::time::Duration;

use crate::message::FieldName;

/// An upstream and its targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamConfig {
    pub id: String,
    pub name: String,
    pub algorithm: Algorithm,
    pub hash_on: HashInput,
    /// What is hashed where `hash_on` finds nothing.
    pub hash_fallback: HashInput,
    /// Path of the cookie that `hash_on: cookie` sets.
    pub cookie_path: String,
    /// Places on the hash ring.
    pub slots: u32,
    /// The `Host` that targets get instead of their own name.
    pub host_header: Option<String>,
    /// A target whose address comes from an SRV record is called by the name in it.
    pub use_srv_name: bool,
    pub active: ActiveChecks,
    pub passive: PassiveChecks,
    /// Least share of weight that must be available, in percent; below it the whole upstream is out.
    pub threshold: f64,
    /// How long the weight of a target that is new or recovered takes to ramp up; zero is not at all.
    pub slow_start: Duration,
    pub outlier: Option<Outlier>,
    pub breaker: Breaker,
    /// How long a target that answers 429 or 503 with `Retry-After` is let alone at most; zero is not at all.
    pub retry_after: Duration,
    /// Targets with weight above 0.
    pub targets: Box<[TargetConfig]>,
}

/// When a target is ejected because its answers are worse than those of its siblings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlier {
    /// Gateway errors in a row; 0 is never.
    pub consecutive_errors: u32,
    /// Standard deviations below the mean success rate; 0 is never.
    pub stdev_factor: f64,
    /// Targets that must have `requests_min` answers in the interval for rates to be compared.
    pub hosts_min: u32,
    pub requests_min: u32,
    /// How often rates are compared.
    pub interval: Duration,
    /// How long the first ejection is; each further one is longer by as much, up to `max`.
    pub base: Duration,
    pub max: Duration,
    /// Most of the targets that may be out at the same time, in percent; one may be in any case.
    pub max_percent: u32,
}

/// Bounds on what an upstream gets at the same time; 0 is no bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Breaker {
    /// Requests in flight at all targets.
    pub requests: u32,
    /// Connections in use at any one target.
    pub connections: u32,
    /// Requests that may wait for room, where 0 is none, and how long.
    pub pending: u32,
    pub wait: Duration,
}

impl Breaker {
    /// Whether anything is bounded.
    pub fn is_on(&self) -> bool {
        self.requests > 0 || self.connections > 0
    }
}

/// How a target is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    #[default]
    RoundRobin,
    ConsistentHashing,
    LeastConnections,
    Latency,
}

/// What of a request is hashed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum HashInput {
    #[default]
    None,
    Consumer,
    Ip,
    Header(FieldName),
    /// A cookie of this name; one is made for a client that has none.
    Cookie(String),
    Path,
    QueryArg(String),
    /// A group of the route's regex path, by name or number.
    UriCapture(String),
}

/// A target: one host, which may have several addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetConfig {
    pub host: String,
    pub port: u16,
    pub weight: u32,
}

/// What a probe is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeKind {
    #[default]
    Http,
    Https,
    /// A connection that comes about is a success; so it is for gRPC.
    Tcp,
}

/// Counts in a row that change a target's state; 0 never does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    pub successes: u32,
    pub http_failures: u32,
    pub tcp_failures: u32,
    pub timeouts: u32,
    /// Statuses that count as a success, and as a failure; others count as nothing.
    pub healthy_statuses: Vec<u16>,
    pub unhealthy_statuses: Vec<u16>,
}

impl Thresholds {
    /// Whether anything can make a target unhealthy or healthy again.
    pub fn any(&self) -> bool {
        self.successes > 0 || self.http_failures > 0 || self.tcp_failures > 0 || self.timeouts > 0
    }
}

/// Probes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActiveChecks {
    pub kind: ProbeKind,
    pub timeout: Duration,
    /// Most probes of the upstream at the same time.
    pub concurrency: usize,
    pub http_path: String,
    pub https_sni: Option<String>,
    pub https_verify: bool,
    pub headers: Vec<(String, String)>,
    /// Time between probes of healthy and of unhealthy targets; zero is no probes.
    pub healthy_interval: Duration,
    pub unhealthy_interval: Duration,
    pub thresholds: Thresholds,
}

impl ActiveChecks {
    /// Whether anything is probed at all.
    pub fn on(&self) -> bool {
        !self.healthy_interval.is_zero() || !self.unhealthy_interval.is_zero()
    }

    /// Whether probes can put an unhealthy target back.
    pub fn recovers(&self) -> bool {
        !self.unhealthy_interval.is_zero() && self.thresholds.successes > 0
    }
}

/// What real responses tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassiveChecks {
    pub thresholds: Thresholds,
    /// Where probes cannot put a target back: how long it rests before one request tries it. Zero is never.
    pub recover_after: Duration,
}

impl UpstreamConfig {
    /// Whether health is watched in any way.
    pub fn watched(&self) -> bool {
        self.active.on() || self.passive.thresholds.any()
    }

    /// How long an unhealthy target rests before a request tries it; `None` where only probes may put it back.
    pub fn trial_after(&self) -> Option<Duration> {
        let trial = !self.active.recovers() && !self.passive.recover_after.is_zero();
        trial.then_some(self.passive.recover_after)
    }
}
