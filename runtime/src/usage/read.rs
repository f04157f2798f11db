//! Reading counters from where they live.

use std::io;

use futures_util::future::join_all;

use super::{Counter, Row};
use crate::clock;
use crate::effect::redis::RedisLimiter;
use crate::limit::{Algorithm, LocalStore, Outcome, Request};

/// How many counters are asked of Redis at once.
const BATCH: usize = 256;

/// Where counters are read from.
#[derive(Clone, Copy)]
pub struct Stores<'a> {
    /// The gateway's own memory, or what a file brought back of it.
    pub local: &'a LocalStore,
}

/// What is used of every counter. Asks Redis by itself where counters live there; blocks meanwhile.
///
/// # Errors
/// Fails if a Redis gives no answer.
pub fn rows(counters: &[Counter], stores: Stores<'_>) -> io::Result<Vec<Row>> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; counters.len()];
    let now_ms = clock::unix_ms();
    for (counter, outcome) in counters.iter().zip(&mut outcomes) {
        if counter.redis.is_none() {
            *outcome = Some(stores.local.take(&counter.rules, &counter.key, 0, now_ms));
        }
    }
    if counters.iter().any(|c| c.redis.is_some()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, ask(counters, &mut outcomes, now_ms))?;
    }
    let mut rows = Vec::new();
    for (counter, outcome) in counters.iter().zip(outcomes) {
        rows.extend(outcome.iter().flat_map(|o| of(counter, o)));
    }
    Ok(rows)
}

async fn ask(counters: &[Counter], outcomes: &mut [Option<Outcome>], now_ms: u64) -> io::Result<()> {
    let limiter = RedisLimiter::new();
    for (counters, outcomes) in counters.chunks(BATCH).zip(outcomes.chunks_mut(BATCH)) {
        let each = counters.iter().zip(outcomes.iter_mut()).filter_map(|(counter, outcome)| {
            // Nobody waits for this but who asked: a little patience makes up for a first connection.
            let mut redis = (**counter.redis.as_ref()?).clone();
            redis.max_wait = redis.timeout;
            let request = Request {
                redis: redis.into(),
                rules: counter.rules.clone(),
                key: counter.key.clone(),
                hits: 0,
                sync: None,
                lease: None,
                now_ms,
            };
            let limiter = &limiter;
            Some(async move {
                let place = request.redis.to_string();
                let answer = limiter.take(&request).await;
                *outcome = Some(answer.map_err(|e| io::Error::other(format!("{place}: {e}")))?);
                Ok::<(), io::Error>(())
            })
        });
        join_all(each).await.into_iter().collect::<io::Result<()>>()?;
    }
    Ok(())
}

fn of<'a>(counter: &'a Counter, outcome: &'a Outcome) -> impl Iterator<Item = Row> + 'a {
    counter.rules.rules.iter().zip(outcome.usages()).map(|(rule, usage)| {
        let allowed = rule.capacity();
        let used = (allowed - usage.left).max(0.0);
        let full = rule.algorithm == Algorithm::Bucket && used == 0.0;
        Row {
            consumer: counter.consumer.clone(),
            key: None,
            plan: counter.plan.clone(),
            route: counter.route.clone(),
            limit: rule.name().to_owned(),
            period: rule.period.name(),
            allowed,
            used,
            left: usage.left.max(0.0),
            used_percent: (used / allowed * 100.0).round().min(f64::from(u32::MAX)) as u32,
            more_in_s: if full { 0 } else { usage.more_s },
        }
    })
}
