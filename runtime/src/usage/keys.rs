//! Counters of whom no config knows: addresses, header values, claims, and consumers' credentials.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use super::find::limiter;
use super::{Counter, Filter, Row, Stores};
use crate::clock;
use crate::effect::redis::keys;
use crate::limit::{Key, RedisSettings};
use crate::policy::Policy as _;
use crate::policy::limit_by::{LimitBy, Part};
use crate::policy::rate_limiting::RateLimiting;
use crate::snapshot::Snapshot;

/// Counters of one limit that are looked at. In memory those that have used most; in Redis those that are found first.
const MOST: usize = 10_000;

/// For each limit the `filter.keys` fullest counters that are not among `listed`. Asks Redis by itself; blocks meanwhile.
///
/// # Errors
/// Fails if a Redis gives no answer.
pub fn fullest(
    snapshot: &Snapshot,
    filter: &Filter,
    listed: &[Counter],
    stores: Stores<'_>,
) -> io::Result<Vec<Row>> {
    // A consumer was asked for, and these are none.
    if filter.keys == 0 || !filter.consumers.is_empty() {
        return Ok(Vec::new());
    }
    let scopes: HashSet<&str> =
        snapshot.steps.iter().filter_map(limiter).flat_map(|p| p.counters().map(|(_, _, s)| s)).collect();
    let listed: HashSet<&str> = listed.iter().map(|c| c.key.as_str()).collect();
    let mut all = Vec::new();
    // Whoever the caller is: nobody, or a consumer of any class.
    let classes: BTreeSet<_> = snapshot.consumers.iter().map(|c| c.class).chain([None]).collect();
    let steps: BTreeMap<_, _> = classes.into_iter().flat_map(|c| super::find::steps(snapshot, c)).collect();
    for (step, routes) in steps {
        let Some(policy) = snapshot.steps.get(step as usize).and_then(limiter) else { continue };
        let on = routes.iter().map(|i| &snapshot.routes[*i]);
        let on: Vec<_> = on.filter(|r| filter.wants_route(r)).collect();
        if on.is_empty() || !filter.wants_plan(policy.plan()) {
            continue;
        }
        for (rules, by, scope) in policy.counters() {
            let prefix = format!("{scope}:");
            // A scope may begin like another.
            let foreign = |key: &str| {
                scopes.iter().any(|s| s.len() > scope.len() && key.starts_with(s) && s.starts_with(&prefix))
            };
            let mut keys = found(policy, &prefix, stores)?;
            keys.retain(|k| !listed.contains(k.as_str()) && !foreign(k.as_str()));
            let counter = |key| Counter {
                consumer: String::new(),
                plan: policy.plan().map(str::to_owned),
                route: super::find::label(&on, snapshot, by),
                rules: Arc::clone(rules),
                key,
                redis: policy.redis().cloned(),
            };
            let counters: Vec<Counter> = keys.into_iter().map(counter).collect();
            let mut rows = super::rows(&counters, stores)?;
            let each = rules.rules.len().max(1);
            for (i, row) in rows.iter_mut().enumerate() {
                row.key = Some(shown(by, &counters[i / each].key.as_str()[prefix.len()..]));
            }
            rows.retain(|r| r.used > 0.0);
            rows.sort_by(|a, b| (b.used / b.allowed).total_cmp(&(a.used / a.allowed)));
            rows.truncate(filter.keys * each);
            all.extend(rows);
        }
    }
    Ok(all)
}

fn found(policy: &RateLimiting, prefix: &str, stores: Stores<'_>) -> io::Result<Vec<Key>> {
    match policy.redis() {
        None => Ok(stores.local.under(prefix, MOST, clock::unix_ms())),
        Some(redis) => in_redis(redis, prefix),
    }
}

fn in_redis(redis: &Arc<RedisSettings>, prefix: &str) -> io::Result<Vec<Key>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(keys::under(redis, prefix, MOST));
    found.map_err(|e| io::Error::other(format!("{redis}: {e}")))
}

/// A key for people. What may be a credential is shown as its digest.
fn shown(by: &LimitBy, text: &str) -> String {
    let secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["auth", "key", "token", "cookie", "secret", "session"].iter().any(|w| name.contains(w))
    };
    let hidden = by.parts().iter().any(|p| matches!(p, Part::Header(name) if secret(name.as_str())));
    if !hidden || text.starts_with("sha256=") {
        return text.to_owned();
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let start: String = digest.as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("sha256={start}…")
}
