//! Asks for leases and gives back what is left of them: the part of [`LeaseStore`] that waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::RedisLimiter;
use super::script::{Charge, States};
use crate::limit::lease::{Answered, Refund, Wanted};
use crate::limit::{Key, LeaseStore, Outcome, RedisSettings, Rules, StoreError};

/// How often leases that have ended are looked for.
const TICK: Duration = Duration::from_millis(100);

/// A request to Redis whose answer says something beyond itself.
pub struct Asked<'a> {
    pub rules: &'a Arc<Rules>,
    pub key: &'a Key,
    pub at: Instant,
    pub hits: u32,
    pub extra: u32,
}

impl Asked<'_> {
    /// Takes note of the answer.
    pub fn note(
        &self,
        leases: &LeaseStore,
        answer: Result<States, StoreError>,
    ) -> Result<Outcome, StoreError> {
        let states = match answer {
            Ok(states) => states,
            Err(error) => {
                leases.failed(self.key, self.extra, crate::clock::monotonic());
                return Err(error);
            }
        };
        let outcome = states.outcome(self.rules, self.hits);
        let answered = Answered {
            rules: self.rules,
            cells: &states.cells,
            redis_ms: states.now_ms,
            asked: self.at,
            hits: self.hits,
            asked_for: self.extra,
            leased: states.extra,
            // Who asks for a lease alone is refused nothing.
            admitted: outcome.admitted || self.hits == 0,
        };
        leases.answered(self.key, &answered, crate::clock::monotonic());
        Ok(outcome)
    }
}

/// Keeps leases filled that are being spent, and gives back what is left of others, while there are any.
pub async fn look_after(limiter: RedisLimiter, redis: Arc<RedisSettings>, leases: Arc<LeaseStore>) {
    loop {
        let _ = timeout(TICK, leases.called.notified()).await;
        let now = crate::clock::monotonic();
        let wanted = leases.wanted(now).into_iter().map(|wanted| {
            let (limiter, redis, leases) = (&limiter, &redis, &leases);
            async move {
                let Wanted { key, rules, extra } = &wanted;
                let charge = Charge { extra: *extra, ..Charge::default() };
                let asked = Asked { rules, key, at: crate::clock::monotonic(), hits: 0, extra: *extra };
                let _ = asked.note(leases, limiter.run(redis, rules, key, charge).await);
            }
        });
        futures_util::future::join_all(wanted).await;
        let refunds = leases.ended(now).into_iter().map(|refund| {
            let (limiter, redis) = (&limiter, &redis);
            async move {
                let Refund { key, rules, hits, redis_ms } = &refund;
                let charge = Charge { hits: -i64::from(*hits), charged_ms: *redis_ms, ..Charge::default() };
                // What cannot be given back stays charged: that admits less, never more.
                let _ = limiter.run(redis, rules, key, charge).await;
            }
        });
        futures_util::future::join_all(refunds).await;
        if !leases.goes_on() {
            return;
        }
    }
}
