//! What is told about requests: counts and times ([`metrics`]), one JSON line each ([`access_log`]).

pub mod access_log;
pub mod certificates;
pub mod metrics;
pub mod process;

use std::sync::Arc;

use crate::exchange::Exchange;
use crate::worker::proxy::ProxyError;
use crate::worker::proxy_status::Cause;
use crate::worker::respond::Ending;

/// Why the gateway could not get an answer, kept in the exchange for the log.
pub struct Why(pub String);

/// Where one worker reports to.
pub struct Sink {
    pub metrics: Arc<metrics::Slab>,
    pub log: Option<access_log::Writer>,
}

impl Sink {
    /// Counts and logs a request that is over.
    pub fn request(&self, x: &Exchange, ending: &Ending) {
        let took = x.ended.duration_since(x.now.instant);
        self.metrics.request(x, ending, took);
        if let Some(log) = &self.log {
            log.request(x, ending, took);
        }
    }

    /// Keeps why a request failed at the upstream, for its log line.
    pub fn proxy_error(&self, x: &mut Exchange, error: &ProxyError) {
        x.keep(Why(error.reason()));
        if x.snapshot.gateway.proxy_status {
            x.keep(Cause::of(error));
        }
    }
}
