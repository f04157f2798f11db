//! The circuit breaker: bounds on what an upstream gets at the same time, over all workers. What is beyond them is
//! refused at once, or waits where the config has room for some to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::snapshot::upstream::Breaker;

/// What is counted of one upstream. Outlives rings and reloads.
#[derive(Debug, Default)]
pub struct Gate {
    in_flight: AtomicU32,
    pending: AtomicU32,
    /// Told whenever a request ends.
    ended: Notify,
    /// Requests refused because too many were in flight, because all targets were full, and because too many waited or
    /// one had waited for too long.
    pub refused_requests: AtomicU64,
    pub refused_connections: AtomicU64,
    pub refused_pending: AtomicU64,
}

/// Counts up if that stays within `most`; 0 is no bound.
fn enter(count: &AtomicU32, most: u32) -> bool {
    let within = |n: u32| (most == 0 || n < most).then(|| n.saturating_add(1));
    count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, within).is_ok()
}

/// One request's place among those in flight; dropping it makes room.
#[derive(Debug)]
pub struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_one();
    }
}

struct Pending<'a>(&'a Gate);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Requests,
    /// Every target has as many connections in use as it may.
    Connections,
    Pending,
}

impl Gate {
    /// Requests in flight, and requests that wait.
    pub fn load(&self) -> (u32, u32) {
        (self.in_flight.load(Ordering::Relaxed), self.pending.load(Ordering::Relaxed))
    }

    /// A place for a request, unless there are `rules.requests` already.
    pub fn enter(self: &Arc<Self>, rules: &Breaker) -> Option<Place> {
        enter(&self.in_flight, rules.requests).then(|| Place(Arc::clone(self)))
    }

    /// Counts a refusal.
    pub fn refused(&self, why: Full) {
        let count = match why {
            Full::Requests => &self.refused_requests,
            Full::Connections => &self.refused_connections,
            Full::Pending => &self.refused_pending,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether others wait, so that who comes now has to stand in line.
    pub fn has_line(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > 0
    }

    /// What `attempt` gives once it finds room: asked anew whenever a request ends, for at most `rules.wait`. Without
    /// room to wait the answer is `full` at once.
    pub async fn wait_for<T>(
        &self,
        rules: &Breaker,
        full: Full,
        mut attempt: impl FnMut() -> Result<T, Full>,
    ) -> Result<T, Full> {
        if rules.pending == 0 {
            return Err(full);
        }
        if !enter(&self.pending, rules.pending) {
            return Err(Full::Pending);
        }
        let _waits = Pending(self);
        let wait = async {
            loop {
                let ended = self.ended.notified();
                if let Ok(found) = attempt() {
                    return found;
                }
                ended.await;
            }
        };
        let limit = rules.wait.max(Duration::from_millis(1));
        tokio::time::timeout(limit, wait).await.map_err(|_| Full::Pending)
    }

    /// Tells who waits that a connection to a target is free.
    pub fn connection_free(&self) {
        if self.has_line() {
            self.ended.notify_one();
        }
    }
}

/// Counts a connection to a peer in, if it has fewer than `most`.
pub(super) fn enter_peer(count: &AtomicU32, most: u32) -> bool {
    enter(count, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(requests: u32, pending: u32) -> Breaker {
        Breaker { requests, pending, wait: Duration::from_secs(5), ..Breaker::default() }
    }

    #[test]
    fn places_are_counted_and_come_back() {
        let gate = Arc::new(Gate::default());
        let (a, b) = (gate.enter(&rules(2, 0)), gate.enter(&rules(2, 0)));
        assert!(a.is_some() && b.is_some() && gate.enter(&rules(2, 0)).is_none());
        drop(a);
        assert_eq!(gate.load(), (1, 0));
        assert!(gate.enter(&rules(2, 0)).is_some());
        let many: Vec<_> = (0..100).map_while(|_| gate.enter(&rules(0, 0))).collect();
        assert_eq!(many.len(), 100, "0 is no bound");
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_that_is_left() {
        let (gate, rules) = (Arc::new(Gate::default()), rules(1, 1));
        let place = gate.enter(&rules);
        let attempt = || gate.enter(&rules).ok_or(Full::Requests);
        let waiting = gate.wait_for(&rules, Full::Requests, attempt);
        let second = async {
            tokio::task::yield_now().await;
            assert!(gate.has_line());
            let refused = gate.wait_for(&rules, Full::Requests, attempt).await;
            assert_eq!(refused.err(), Some(Full::Pending), "the line is full");
            drop(place);
        };
        let (got, ()) = tokio::join!(waiting, second);
        assert!(got.is_ok());
        let hasty = Breaker { wait: Duration::from_millis(5), ..rules.clone() };
        assert_eq!(
            gate.wait_for(&hasty, Full::Requests, attempt).await.err(),
            Some(Full::Pending),
            "in time"
        );
        let none = Breaker { pending: 0, ..rules.clone() };
        assert_eq!(gate.wait_for(&none, Full::Connections, attempt).await.err(), Some(Full::Connections));
    }
}
