//! The targets of one request: which comes next, and what became of each.

use std::net::SocketAddr;
use std::sync::Arc;

use super::dns::Lookup;
use crate::exchange::Exchange;
use crate::snapshot::{Service, ServiceId};
use crate::worker::context::Worker;

/// Where a request goes.
pub struct Target {
    pub addr: SocketAddr,
    /// The `Host` of a target of an upstream; a plain service's stands in the service.
    pub host: Option<String>,
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
#[derive(Default)]
pub struct Targets {
    tried: usize,
}

impl Targets {
    /// The next target to try.
    pub async fn next(&mut self, w: &Worker, id: ServiceId, service: &Service) -> Result<Target, NoTarget> {
        let addrs = match w.resolved(id) {
            Some(known) => known,
            None => look_up(w, id, service).await?,
        };
        let addr = *addrs.get(self.tried % addrs.len().max(1)).ok_or(NoTarget::Name)?;
        self.tried += 1;
        Ok(Target { addr, host: None, server_name: None })
    }

    /// Notes what became of a target: the status of its answer, or none.
    pub fn report(&self, _w: &Worker, _x: &Exchange, _target: &Target, _status: Option<u16>) {}
}

async fn look_up(w: &Worker, id: ServiceId, service: &Service) -> Result<Arc<[SocketAddr]>, NoTarget> {
    let resolver = &w.common.resolver;
    let version = resolver.version();
    let found = match resolver.lookup(&service.host, service.port) {
        Lookup::Pending => {
            Box::pin(resolver.resolve(&service.host, service.port, service.connect_timeout)).await
        }
        known => known,
    };
    let Lookup::Ready(addrs) = found else { return Err(NoTarget::Name) };
    w.remember(id, version, &addrs);
    Ok(addrs)
}

/// The `Host` to send: the client's where the route preserves it, else the target's or the service's.
pub fn host_header<'a>(x: &'a Exchange, service: &'a Service, target: &'a Target) -> &'a str {
    if let Some(host) = &x.upstream.host {
        return host;
    }
    let preserve = x.route.is_some_and(|r| x.snapshot.routes[r.0 as usize].preserve_host);
    if preserve && !x.request.host.is_empty() {
        return &x.request.host;
    }
    target.host.as_deref().unwrap_or(&service.authority)
}
