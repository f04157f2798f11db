//! `gw bench`: load-test a gateway and prove that its limits hold.

mod identity;
mod interrupt;
mod limits;
mod request;
mod scenario;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gw_loadgen::assert::{Assertion, METRICS};
use gw_loadgen::plan::{Draft, Phase, Plan, Target, TlsChoice};
use gw_loadgen::progress::Line;
use gw_loadgen::report::text::Style;
use gw_loadgen::report::{Report, html, json, text};
use gw_loadgen::run::{self, Outcome};
use gw_loadgen::schedule::Pace;
use gw_loadgen::units::{parse_duration, parse_rate};

use crate::exit::{Code, WithCode};
use crate::output::print;

/// Arguments of `gw bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
With `--rate` requests are due by the clock, whatever the target does, and latency counts from when they were due (open \
loop). Without it each connection sends as soon as it has its answer (closed loop).

With `--config` and `--consumer` requests carry credentials made from the config, and each rate limit that applies is \
proved to hold, or to be broken, from when requests were sent and answered.

Examples:
  gw bench http://127.0.0.1:8000/orders --rate 500/s --duration 30s --assert 'p99<50ms'
  gw bench http://127.0.0.1:8000/orders --config kong.yaml --consumer alice --rate 20/s

Metrics of --assert: {METRICS}.

Exit codes: 0 fine; 1 an assertion failed or a limit was broken; 2 wrong usage; 3 the target cannot be reached; 4 the run is \
invalid."))]
pub struct Args {
    /// A URL, or a scenario file (YAML; `-` is standard input)
    #[arg(value_name = "URL|SCENARIO.yaml")]
    what: String,
    /// The gateway's config: makes credentials for `--consumer` and names the limits to prove
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Send as this consumer of the config; may be repeated, requests are shared out evenly
    #[arg(long = "consumer", value_name = "NAME", requires = "config")]
    consumers: Vec<String>,
    /// Requests per second (`500/s`, `30/m`) by the clock; 0 or none is a closed loop
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long to send [default: 10s, unless --requests is given]
    #[arg(long, short = 'd', value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Stop after so many requests
    #[arg(long, short = 'n', value_name = "N")]
    requests: Option<u64>,
    /// Connections to keep open [default: 50]
    #[arg(long, short = 'c', value_name = "N")]
    connections: Option<usize>,
    /// Requests at once on an HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 1, requires = "http2")]
    streams: usize,
    /// Threads; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Method [default: GET, or POST with --body]
    #[arg(long, short = 'X', value_name = "METHOD", value_parser = request::parse_method)]
    method: Option<http::Method>,
    /// A header field `Name: value`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "FIELD", value_parser = request::parse_header)]
    headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Body to send; `@FILE` reads it from a file
    #[arg(long, value_name = "TEXT|@FILE")]
    body: Option<String>,
    /// How long an answer may take [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Speak HTTP/2 (over TLS by ALPN, else with prior knowledge)
    #[arg(long)]
    http2: bool,
    /// Believe any certificate
    #[arg(long, short = 'k')]
    insecure: bool,
    /// Believe certificates signed by these (PEM), not the system's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// What must hold, such as `p99<50ms`, `status.429>0` or `errors==0`; may be repeated
    #[arg(long = "assert", value_name = "EXPR")]
    asserts: Vec<Assertion>,
    /// How to report
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
    /// Also write the report as a page of its own
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Chooses among consumers and requests; one seed always makes the same choices [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How far this machine's clock and the limiter's may be apart [default: 2ms to this machine, else 500ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    clock_tolerance: Option<Duration>,
    /// Take it that nobody used the limits' counters before, which proves more
    #[arg(long)]
    fresh_counters: bool,
    /// Show no progress
    #[arg(long)]
    no_progress: bool,
}

/// Formats of the report.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Text,
    Json,
}

/// What is left open by neither flag nor scenario.
const CONNECTIONS: usize = 50;
const DURATION: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(10);
const SEED: u64 = 1;

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let (plan, assertions) = prepare(&args)?;
    more_files(plan.connections);
    let stop = interrupt::on_ctrl_c()?;
    let mut line = Line::new(args.no_progress);
    let outcome = run::run(plan.clone(), stop, &mut |progress| line.show(progress));
    line.finish();
    let outcome: Outcome = outcome.map_err(|e| WithCode(Code::Environment, e.to_string()))?;
    let report = Report::new(plan, outcome, &assertions);
    match args.format {
        OutputFormat::Text => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            print(&text::render(&report, Style { color: colour }))?;
        }
        OutputFormat::Json => print(&format!("{:#}\n", json::render(&report)))?,
    }
    if let Some(path) = &args.html {
        std::fs::write(path, html::render(&report))
            .map_err(|e| WithCode(Code::Environment, format!("cannot write `{}`: {e}", path.display())))?;
    }
    Ok(code(&report))
}

fn code(report: &Report) -> Code {
    if !report.validity.is_valid() {
        Code::Invalid
    } else if report.assertions_hold() && report.limits_hold() {
        Code::Ok
    } else {
        Code::Findings
    }
}

/// From flags, scenario and config to what will run.
fn prepare(args: &Args) -> anyhow::Result<(Plan, Vec<Assertion>)> {
    let (mut draft, config, consumers, mut assertions) = match Kind::of(&args.what)? {
        Kind::Url(url) => (from_flags(args, &url)?, args.config.clone(), args.consumers.clone(), Vec::new()),
        Kind::Scenario(path) => {
            refuse_flags(args)?;
            let scenario = scenario::read(&path)?;
            let config = args.config.clone().or(scenario.config);
            (scenario.draft, config, scenario.consumers, scenario.assertions)
        }
    };
    assertions.extend(args.asserts.iter().cloned());
    draft.connections =
        args.connections.or(Some(draft.connections).filter(|n| *n > 0)).unwrap_or(CONNECTIONS);
    draft.streams = if args.streams > 1 { args.streams } else { draft.streams.max(1) };
    draft.threads = args.threads;
    draft.timeout = args.timeout.or(Some(draft.timeout).filter(|t| !t.is_zero())).unwrap_or(TIMEOUT);
    draft.http2 |= args.http2;
    draft.tls = TlsChoice { insecure: args.insecure, cacert: args.cacert.clone() };
    draft.seed = args.seed.or(Some(draft.seed).filter(|s| *s > 0)).unwrap_or(SEED);
    draft.fresh_counters = args.fresh_counters;
    if let Some(config) = config {
        let known = identity::of_config(&config, &consumers, &draft)?;
        known.notes.iter().for_each(|note| eprintln!("note: {note}"));
        draft.consumers = known.consumers;
        draft.limits = known.limits;
        draft.refusals = known.refusals;
    }
    draft.clock_tolerance = args.clock_tolerance.unwrap_or_else(|| clock_tolerance(&draft.targets));
    Ok((draft.check()?, assertions))
}

/// The two things that can be run.
enum Kind {
    Url(http::Uri),
    Scenario(PathBuf),
}

impl Kind {
    fn of(text: &str) -> anyhow::Result<Self> {
        if text.contains("://") {
            let url = text.parse::<http::Uri>().map_err(|e| anyhow::anyhow!("`{text}` is not a URL: {e}"))?;
            return Ok(Self::Url(url));
        }
        let path = Path::new(text);
        let yaml = path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|y| e == *y));
        anyhow::ensure!(
            text == "-" || yaml || path.is_file(),
            "`{text}` is neither a URL nor a scenario file; a URL begins with `http://` or `https://`"
        );
        Ok(Self::Scenario(path.to_owned()))
    }
}

fn from_flags(args: &Args, url: &http::Uri) -> anyhow::Result<Draft> {
    let target = request::target(url, args.method.as_ref(), &args.headers, args.body.as_deref())?;
    let pace = match args.rate.filter(|rate| *rate > 0.0) {
        Some(rate) => Pace::Rate { from: rate, to: rate },
        None => Pace::Closed,
    };
    let duration = args.duration.or(args.requests.is_none().then_some(DURATION));
    anyhow::ensure!(duration != Some(Duration::ZERO), "a duration of nothing sends nothing");
    Ok(Draft {
        targets: vec![target],
        phases: vec![Phase { name: "run".to_owned(), pace, duration, mix: Vec::new() }],
        requests: args.requests,
        ..Draft::default()
    })
}

/// A scenario says what is sent; flags that would say it again are a mistake.
fn refuse_flags(args: &Args) -> anyhow::Result<()> {
    let given = [
        ("--rate", args.rate.is_some()),
        ("--duration", args.duration.is_some()),
        ("--requests", args.requests.is_some()),
        ("--method", args.method.is_some()),
        ("--header", !args.headers.is_empty()),
        ("--body", args.body.is_some()),
        ("--consumer", !args.consumers.is_empty()),
    ];
    let flags: Vec<_> =
        given.iter().filter(|(_, given)| *given).map(|(flag, _)| format!("`{flag}`")).collect();
    let given = flags.join(", ");
    anyhow::ensure!(flags.is_empty(), "{given} cannot go with a scenario, which says so itself");
    Ok(())
}

/// On one machine there is one clock; a limiter may round it to milliseconds.
fn clock_tolerance(targets: &[Target]) -> Duration {
    let host = targets.first().and_then(|t| t.uri.host()).unwrap_or("");
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|a| a.is_loopback());
    if here { Duration::from_millis(2) } else { Duration::from_millis(500) }
}

/// Lets the process open as many connections as it may.
fn more_files(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections as u64 + 64;
    if limit.current.is_some_and(|current| current < wanted) {
        let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        // If not, connections fail one by one and are counted.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    }
}

#[cfg(test)]
mod tests;
