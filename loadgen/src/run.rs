//! Running a plan: workers are started, watched and added up.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls_pki_types::ServerName;

use crate::connection::Connector;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::tally::{Class, Tally};
use crate::tls;
use crate::worker::{self, Live, Shared};

/// A run that is over.
#[derive(Debug)]
pub struct Outcome {
    pub tally: Tally,
    /// How long requests were to be sent: the schedule's length, or until the last request ended.
    pub duration: Duration,
    /// Requests that the schedule had due in that time; in a closed loop those that were sent.
    pub offered: u64,
    /// Ended by the user before its time.
    pub interrupted: bool,
    /// Wall clock of the start in nanoseconds since 1970.
    pub started_unix_ns: u64,
}

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot resolve `{host}`: {reason}")]
    Resolve { host: String, reason: String },
    #[error("cannot connect to {origin} ({addr}): {reason}")]
    Connect { origin: String, addr: SocketAddr, reason: String },
    #[error("{0}")]
    Tls(String),
    #[error("cannot start a worker: {0}")]
    Worker(#[from] std::io::Error),
}

/// How a run goes, for those who watch.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub elapsed: Duration,
    /// Planned length, if there is one.
    pub length: Option<Duration>,
    /// Planned number of requests, if there is one.
    pub requests: Option<u64>,
    /// Requests ended so far, by class.
    pub ended: [u64; Class::ALL.len()],
}

/// How often a watcher is told.
const WATCH: Duration = Duration::from_millis(100);
/// How long the first connection may take; without it there is nothing to measure.
const FIRST_CONNECTION: Duration = Duration::from_secs(5);

/// Runs a plan to its end, or until `stop` is set. `watch` is called about ten times a second.
pub fn run(plan: Plan, stop: Arc<AtomicBool>, watch: &mut dyn FnMut(&Progress)) -> Result<Outcome, RunError> {
    let addrs = reach(&plan)?;
    let tls = match plan.origin().tls {
        false => None,
        true => {
            let config = tls::config(&plan.tls, plan.http2).map_err(RunError::Tls)?;
            Some((config, server_name(&plan)?))
        }
    };
    let phases: Vec<_> = plan.phases.iter().map(|p| (p.pace, p.duration)).collect();
    let threads = plan.threads;
    let shared = Arc::new(Shared {
        schedule: Schedule::new(&phases, plan.requests),
        stop,
        live: std::iter::repeat_with(Live::default).take(threads).collect(),
        ready: Barrier::new(threads),
        start: OnceLock::new(),
        plan,
    });
    let mut workers = Vec::with_capacity(threads);
    for number in 0..threads {
        let shared = Arc::clone(&shared);
        let connections = share(shared.plan.connections, threads, number);
        let (addrs, tls) = (addrs.clone(), tls.clone());
        let work = move || {
            let connector = Connector::new(addrs, tls, shared.plan.http2, number);
            worker::run(&shared, number, connections, connector)
        };
        workers.push(std::thread::Builder::new().name(format!("bench-{number}")).spawn(work)?);
    }
    while !workers.iter().all(std::thread::JoinHandle::is_finished) {
        std::thread::park_timeout(WATCH);
        if let Some(start) = shared.start.get() {
            watch(&progress(&shared, *start));
        }
    }
    let mut tally = Tally::new(false);
    for worker in workers {
        let of_worker = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        tally.merge(of_worker);
    }
    Ok(outcome(&shared, tally))
}

fn outcome(shared: &Shared, mut tally: Tally) -> Outcome {
    let start = shared.start.get().copied().unwrap_or_else(Instant::now);
    let elapsed = start.elapsed();
    let interrupted = shared.stop.load(std::sync::atomic::Ordering::Relaxed);
    let duration = match (shared.schedule.end(), interrupted) {
        (_, true) => elapsed,
        (Some(end), _) if tally.last < end && shared.plan.requests.is_some() => tally.last,
        (Some(end), _) => end,
        (None, _) => tally.last,
    };
    let offered = match shared.schedule.is_open() {
        true if interrupted => shared.schedule.offered(elapsed),
        true => shared.schedule.offered(shared.schedule.end().unwrap_or(Duration::MAX)),
        false => tally.sent,
    };
    tally.events.sort_unstable_by_key(|e| e.sent);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started_unix_ns = now.saturating_sub(elapsed).as_nanos() as u64;
    Outcome { tally, duration, offered, interrupted, started_unix_ns }
}

fn progress(shared: &Shared, start: Instant) -> Progress {
    let ended = Class::ALL.map(|class| shared.live.iter().map(|l| l.of(class)).sum());
    Progress {
        elapsed: start.elapsed(),
        length: shared.schedule.end(),
        requests: shared.plan.requests,
        ended,
    }
}

/// The part of `all` that falls to one of `parts`; together they are all.
fn share(all: usize, parts: usize, number: usize) -> usize {
    all / parts + usize::from(number < all % parts)
}

/// The server's addresses, the ones that can be connected to. A server that cannot be reached is told before the run.
fn reach(plan: &Plan) -> Result<Vec<SocketAddr>, RunError> {
    let origin = plan.origin();
    let resolve = |reason: String| RunError::Resolve { host: origin.host.clone(), reason };
    let found = (origin.host.as_str(), origin.port).to_socket_addrs().map_err(|e| resolve(e.to_string()))?;
    let mut refused = None;
    let mut reached = Vec::new();
    for addr in found {
        match TcpStream::connect_timeout(&addr, FIRST_CONNECTION) {
            Ok(_) => reached.push(addr),
            Err(error) => {
                refused.get_or_insert((addr, error));
            }
        }
    }
    match (reached.is_empty(), refused) {
        (false, _) => Ok(reached),
        (true, Some((addr, error))) => {
            Err(RunError::Connect { origin: origin.to_string(), addr, reason: error.to_string() })
        }
        (true, None) => Err(resolve("it has no address".to_owned())),
    }
}

fn server_name(plan: &Plan) -> Result<ServerName<'static>, RunError> {
    // A Host header that was given says which site is meant, and so does the TLS server name.
    let given = plan.targets[0].headers.get(http::header::HOST).and_then(|h| h.to_str().ok());
    let host = given.and_then(|h| h.rsplit_once(':').map_or(Some(h), |(host, _)| Some(host)));
    let host = host.unwrap_or(&plan.origin().host);
    ServerName::try_from(host.to_owned())
        .map_err(|_| RunError::Tls(format!("`{host}` cannot be the name of a TLS server")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_belongs_to_one_worker() {
        for (all, parts) in [(10, 2), (10, 3), (1, 1), (7, 7), (64, 5)] {
            assert_eq!((0..parts).map(|n| share(all, parts, n)).sum::<usize>(), all);
            assert!((0..parts).all(|n| share(all, parts, n) >= 1));
        }
    }
}
