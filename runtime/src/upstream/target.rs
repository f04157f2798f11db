//! The targets of one request: which comes next, and what became of each.

use std::net::SocketAddr;
use std::sync::Arc;

use super::dns::Lookup;
use crate::exchange::Exchange;
use crate::snapshot::Service;
use crate::worker::context::Worker;
use crate::worker::pipeline::default_port;

/// Where a request goes.
pub struct Target {
    pub addr: SocketAddr,
    /// The `Host` to send.
    pub host: String,
    /// The name for TLS where it is not the service's host.
    pub server_name: Option<Arc<str>>,
}

/// Why there is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// The upstream has no target that is available.
    NoPeer,
    /// The host name cannot be resolved.
    Name,
}

/// The choice of targets for one request.
pub struct Targets {
    tried: usize,
}

impl Targets {
    /// No target was tried yet.
    pub fn new(_service: &Service) -> Self {
        Self { tried: 0 }
    }

    /// The next target to try.
    pub async fn next(&mut self, w: &Worker, x: &Exchange, service: &Service) -> Result<Target, NoTarget> {
        let resolver = &w.common.resolver;
        let found = match resolver.lookup(&service.host, service.port) {
            Lookup::Pending => resolver.resolve(&service.host, service.port, service.connect_timeout).await,
            known => known,
        };
        let Lookup::Ready(addrs) = found else { return Err(NoTarget::Name) };
        let addr = *addrs.get(self.tried % addrs.len().max(1)).ok_or(NoTarget::Name)?;
        self.tried += 1;
        Ok(Target { addr, host: host_header(x, service), server_name: None })
    }

    /// Notes what became of a target: the status of its answer, or none.
    pub fn report(&self, _w: &Worker, _x: &Exchange, _target: &Target, _status: Option<u16>) {}
}

/// The `Host` for a service that is no upstream: the client's where the route preserves it, else the service's.
fn host_header(x: &Exchange, service: &Service) -> String {
    let preserve = x.route.is_some_and(|r| x.snapshot.routes[r.0 as usize].preserve_host);
    if preserve && !x.request.host.is_empty() {
        return x.request.host.clone();
    }
    with_port(&service.host, service.port, default_port(service.scheme))
}

/// `host`, and `port` unless it is the scheme's own.
pub fn with_port(host: &str, port: u16, default: u16) -> String {
    if port == default {
        return host.to_owned();
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(port);
    let mut text = String::with_capacity(host.len() + 1 + digits.len());
    text.push_str(host);
    text.push(':');
    text.push_str(digits);
    text
}
