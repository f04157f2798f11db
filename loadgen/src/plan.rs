//! What to run. A [`Plan`] is made by [`Draft::check`] alone, so that workers never meet a plan that makes no sense.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::limits::Limit;
use crate::schedule::Pace;

/// A run as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// At least one; all of one origin (scheme, host and port).
    pub targets: Vec<Target>,
    /// Who sends. Without any, requests go out as they are.
    pub consumers: Vec<Consumer>,
    /// At least one.
    pub phases: Vec<Phase>,
    /// Ends the run after so many requests.
    pub requests: Option<u64>,
    /// Connections of the whole run. Each worker thread has its share.
    pub connections: usize,
    /// Requests at once on an HTTP/2 connection.
    pub streams: usize,
    /// Threads; 0 is one per core.
    pub threads: usize,
    /// From the first byte sent to the last byte received.
    pub timeout: Duration,
    pub http2: bool,
    pub tls: TlsChoice,
    /// Chooses consumers and targets; two runs with one seed send the same sequence.
    pub seed: u64,
    /// The limits to prove, by index into `consumers`.
    pub limits: Vec<Limit>,
    /// Statuses by which the limits refuse; none is 429.
    pub refusals: Vec<u16>,
    /// How far apart this machine's clock and the limiter's may be, in the proofs about calendar windows.
    pub clock_tolerance: Duration,
    /// Nobody used the limits' counters before the run.
    pub fresh_counters: bool,
}

/// One kind of request.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub method: Method,
    /// Absolute.
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// One sender: the headers that make its requests its own.
#[derive(Clone, Debug)]
pub struct Consumer {
    pub name: String,
    /// Sensitive values; never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A stretch of the run.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: String,
    pub pace: Pace,
    /// None: until the number of requests is reached.
    pub duration: Option<Duration>,
    /// What is sent, drawn by weight. Empty: every consumer with every target, equally.
    pub mix: Vec<Share>,
}

/// One entry of a mix.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Index into the consumers; None sends as nobody.
    pub consumer: Option<usize>,
    pub target: usize,
    pub weight: u32,
}

/// Whose certificates to believe.
#[derive(Clone, Debug, Default)]
pub struct TlsChoice {
    /// Anybody's.
    pub insecure: bool,
    /// Those signed by the certificates in this PEM file; without it the system's roots.
    pub cacert: Option<PathBuf>,
}

/// A run that makes sense.
#[derive(Clone, Debug)]
pub struct Plan {
    draft: Draft,
    origin: Origin,
}

/// Where all requests of a run go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// Why a run makes no sense. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("there is no URL to send requests to")]
    NoTarget,
    #[error("`{0}` is not an absolute `http://` or `https://` URL")]
    BadUrl(String),
    #[error(
        "`{other}` is on another origin than `{origin}`; one run measures one server, start a second run for the other"
    )]
    Origins { origin: String, other: String },
    #[error("phase `{phase}` has neither a duration nor a number of requests, so it would never end")]
    Endless { phase: String },
    #[error(
        "phase `{phase}` has no rate while others have one; a run is either an open loop (each phase with a rate) or a closed loop (none)"
    )]
    MixedLoops { phase: String },
    #[error("no phase has a rate above 0, so nothing would be sent")]
    NoRate,
    #[error("there are no phases")]
    NoPhase,
    #[error("`{what}` must be at least 1")]
    Zero { what: &'static str },
    #[error("{asked} connections are more than this tool opens; the most is {most}")]
    TooMany { asked: usize, most: usize },
    #[error("{asked} kinds of requests are more than one run tells apart; the most is {most}")]
    TooManyTargets { asked: usize, most: usize },
    #[error("every weight of phase `{phase}` is 0, so nothing would be sent")]
    Weightless { phase: String },
}

/// More would meet the limit on file descriptors first.
const MOST_CONNECTIONS: usize = 100_000;

impl Draft {
    /// Checks the run as a whole and fills in what was left open.
    pub fn check(mut self) -> Result<Plan, PlanError> {
        let first = self.targets.first().ok_or(PlanError::NoTarget)?;
        let origin = origin(&first.uri)?;
        for target in &self.targets[1..] {
            if self::origin(&target.uri)? != origin {
                return Err(PlanError::Origins { origin: origin.to_string(), other: target.uri.to_string() });
            }
        }
        let most = usize::from(u16::MAX);
        if self.targets.len() > most {
            return Err(PlanError::TooManyTargets { asked: self.targets.len(), most });
        }
        for (what, n) in [("connections", self.connections), ("streams", self.streams)] {
            if n == 0 {
                return Err(PlanError::Zero { what });
            }
            if n > MOST_CONNECTIONS {
                return Err(PlanError::TooMany { asked: n, most: MOST_CONNECTIONS });
            }
        }
        if self.requests == Some(0) {
            return Err(PlanError::Zero { what: "requests" });
        }
        if !self.http2 {
            self.streams = 1;
        }
        self.check_phases()?;
        if self.threads == 0 {
            self.threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        }
        self.threads = self.threads.min(self.connections);
        Ok(Plan { draft: self, origin })
    }

    fn check_phases(&mut self) -> Result<(), PlanError> {
        let Some(last) = self.phases.len().checked_sub(1) else { return Err(PlanError::NoPhase) };
        let open = self.phases.iter().any(|p| p.pace != Pace::Closed);
        let all = every_pair(self.consumers.len(), self.targets.len());
        let mut any_rate = false;
        for (i, phase) in self.phases.iter_mut().enumerate() {
            if phase.duration.is_none() && (i < last || self.requests.is_none()) {
                return Err(PlanError::Endless { phase: phase.name.clone() });
            }
            match phase.pace {
                Pace::Closed if open => return Err(PlanError::MixedLoops { phase: phase.name.clone() }),
                Pace::Closed => {}
                Pace::Rate { from, to } => any_rate |= from + to > 0.0,
            }
            if phase.mix.is_empty() {
                phase.mix.clone_from(&all);
            }
            phase.mix.retain(|s| s.weight > 0);
            if phase.mix.is_empty() {
                return Err(PlanError::Weightless { phase: phase.name.clone() });
            }
        }
        if open && !any_rate { Err(PlanError::NoRate) } else { Ok(()) }
    }
}

fn every_pair(consumers: usize, targets: usize) -> Vec<Share> {
    let senders: Vec<_> = if consumers == 0 { vec![None] } else { (0..consumers).map(Some).collect() };
    let with = |consumer| (0..targets).map(move |target| Share { consumer, target, weight: 1 });
    senders.into_iter().flat_map(with).collect()
}

/// The origin of an absolute URL.
pub fn origin(uri: &Uri) -> Result<Origin, PlanError> {
    let bad = || PlanError::BadUrl(uri.to_string());
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(bad()),
    };
    let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(bad)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Origin { tls, host, port })
}

impl std::ops::Deref for Plan {
    type Target = Draft;
    fn deref(&self) -> &Draft {
        &self.draft
    }
}

impl Plan {
    /// Where all requests go.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether requests are due by a schedule.
    pub fn is_open(&self) -> bool {
        self.phases.iter().any(|p| p.pace != Pace::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(urls: &[&str]) -> Draft {
        let target = |url: &&str| Target {
            name: (*url).to_owned(),
            method: Method::GET,
            uri: url.parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let pace = Pace::Rate { from: 10.0, to: 10.0 };
        let duration = Some(Duration::from_secs(1));
        Draft {
            targets: urls.iter().map(target).collect(),
            phases: vec![Phase { name: "1".into(), pace, duration, mix: Vec::new() }],
            connections: 10,
            streams: 1,
            ..Draft::default()
        }
    }

    #[test]
    fn a_run_that_makes_no_sense_is_refused_with_its_reason() {
        let check = |change: &dyn Fn(&mut Draft), want: &str| {
            let mut draft = draft(&["http://a:1/x", "http://a:1/y"]);
            change(&mut draft);
            let error = draft.check().map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        };
        check(&|d| d.targets.clear(), "no URL");
        check(&|d| d.targets[0].uri = "/only/path".parse().unwrap(), "not an absolute");
        check(&|d| d.targets[1].uri = "https://a:1/y".parse().unwrap(), "another origin");
        check(&|d| d.phases[0].duration = None, "never end");
        check(
            &|d| d.phases.push(Phase { pace: Pace::Closed, name: "two".into(), ..d.phases[0].clone() }),
            "phase `two`",
        );
        check(&|d| d.phases[0].pace = Pace::Rate { from: 0.0, to: 0.0 }, "nothing would be sent");
        check(&|d| d.phases.clear(), "no phases");
        check(&|d| d.connections = 0, "`connections` must be at least 1");
        check(&|d| d.requests = Some(0), "`requests`");
        check(&|d| d.connections = 1_000_000, "the most is 100000");
        check(&|d| d.phases[0].mix = vec![Share { consumer: None, target: 0, weight: 0 }], "every weight");
    }

    #[test]
    fn what_was_left_open_is_filled_in() {
        let plan = draft(&["http://[::1]/x"]).check().unwrap();
        assert_eq!(*plan.origin(), Origin { tls: false, host: "::1".into(), port: 80 });
        assert_eq!(plan.phases[0].mix.len(), 1);
        assert!(plan.threads >= 1);
        assert_eq!(plan.origin().to_string(), "http://[::1]:80");
    }
}
