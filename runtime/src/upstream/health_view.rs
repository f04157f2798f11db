//! The health of targets as metrics and the admin listener tell it.

use std::sync::Arc;

use super::unix;
use crate::clock;
use crate::model::rules::is_socket;
use crate::snapshot::upstream::UpstreamConfig;
use crate::worker::context::Common;

/// Every state that a target can be in, in Kong's words.
pub const STATES: [&str; 4] = ["healthchecks_off", "healthy", "unhealthy", "dns_error"];

/// One address of a target, or a target whose name has none.
pub struct TargetView {
    /// `host:port`, or `unix:` and a path.
    pub target: String,
    /// Where it is: for a Unix socket, its path.
    pub address: Option<String>,
    pub weight: u32,
    /// One of [`STATES`].
    pub state: &'static str,
}

/// The targets of an upstream, in the order of the config.
pub fn view(common: &Common, upstream: &Arc<UpstreamConfig>) -> Vec<TargetView> {
    let ring = common.rings.get(upstream, &common.resolver).ring;
    let now = clock::monotonic();
    let mut all = Vec::with_capacity(ring.peers.len());
    for (i, t) in upstream.targets.iter().enumerate() {
        let seen = |address, state| TargetView {
            target: match is_socket(&t.host) {
                true => t.host.clone(),
                false => format!("{}:{}", t.host, t.port),
            },
            address,
            weight: t.weight,
            state,
        };
        let mut peers = ring.peers.iter().filter(|p| p.target == i).peekable();
        if peers.peek().is_none() {
            all.push(seen(None, "dns_error"));
        }
        all.extend(peers.map(|p| {
            let state = match (ring.is_unwatched(), ring.is_available(p, now)) {
                (true, _) => "healthchecks_off",
                (false, true) => "healthy",
                (false, false) => "unhealthy",
            };
            seen(Some(unix::shown(p.addr)), state)
        }));
    }
    all
}
