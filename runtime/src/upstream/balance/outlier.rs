//! Outlier ejection: a peer whose answers are worse than its siblings' is let alone for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::breaker::Gate;
use super::standing::outliers;
use super::{PeerState, Ring};
use crate::snapshot::upstream::Outlier;

/// What is known of an upstream as a whole. Outlives rings and reloads.
#[derive(Debug, Default)]
pub struct Known {
    pub gate: Arc<Gate>,
    /// When success rates were last compared.
    compared: Mutex<Option<Instant>>,
    pub ejections: AtomicU64,
    /// How often a target was let alone because it asked for it.
    pub rests: AtomicU64,
}

/// How an answer, or its absence, speaks for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// An error of the application: a 5xx of another kind.
    Error,
    /// The peer was not reached or did not answer, or answered 502, 503 or 504.
    GatewayError,
}

impl Verdict {
    /// What a status says.
    pub fn of(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            500.. => Self::Error,
            _ => Self::Good,
        }
    }

    /// What the status of a gRPC call says that ended without a message. A deadline is the client's own, and no other
    /// status than these is the server's fault.
    pub fn of_call(status: &str) -> Self {
        match status {
            // UNAVAILABLE
            "14" => Self::GatewayError,
            // UNKNOWN, INTERNAL, DATA_LOSS
            "2" | "13" | "15" => Self::Error,
            _ => Self::Good,
        }
    }
}

impl Ring {
    /// Counts a verdict about a peer, and ejects whom the rules say.
    pub fn judge(&self, peer: &PeerState, verdict: Verdict, now: Instant) {
        let Some(rules) = &self.upstream.outlier else { return };
        let (gateway_error, error) = (verdict == Verdict::GatewayError, verdict != Verdict::Good);
        if peer.standing.count(gateway_error, error, rules) {
            self.eject(peer, rules, now);
        }
        if rules.stdev_factor > 0.0 {
            self.compare(rules, now);
        }
    }

    /// Lets a peer alone that asked for it, for no longer than the config allows.
    pub fn rest(&self, peer: &PeerState, time: Duration, now: Instant) {
        let time = time.min(self.upstream.retry_after);
        if !time.is_zero() {
            self.known.rests.fetch_add(1, Ordering::Relaxed);
            peer.standing.rest(time, now);
        }
    }

    fn eject(&self, peer: &PeerState, rules: &Outlier, now: Instant) {
        let n = self.peers.len();
        let out = self.peers.iter().filter(|p| p.state.standing.is_ejected(now)).count();
        // One at least, or small upstreams would never eject; but never the last.
        let most = (n * rules.max_percent as usize / 100).max(1).min(n.saturating_sub(1));
        if out < most && !peer.standing.is_ejected(now) {
            self.known.ejections.fetch_add(1, Ordering::Relaxed);
            peer.standing.eject(rules, now);
        }
    }

    /// Once an interval, ejects the peers whose success rate is far below the mean.
    fn compare(&self, rules: &Outlier, now: Instant) {
        {
            let mut compared = self.known.compared.lock().unwrap_or_else(PoisonError::into_inner);
            let since = compared.get_or_insert(now);
            if now.saturating_duration_since(*since) < rules.interval {
                return;
            }
            *compared = Some(now);
        }
        let (mut judged, mut rates) = (Vec::new(), Vec::new());
        for peer in &self.peers {
            let (answers, successes) = peer.state.standing.take_counts();
            if answers >= rules.requests_min.max(1) {
                judged.push(&peer.state);
                rates.push(f64::from(successes) / f64::from(answers));
            }
        }
        if rates.len() >= rules.hosts_min as usize {
            for i in outliers(&rates, rules.stdev_factor) {
                self.eject(judged[i], rules, now);
            }
        }
    }
}
