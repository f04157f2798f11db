//! `concurrency-limiting`: so many requests at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::limit_by::LimitBy;
use super::limit_notes::{Verdict, note};
use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::limit;
use crate::message::names;
use crate::model::schema::{Field, Kind, Record, STR};

static PLUGIN: Descriptor = Descriptor {
    name: "concurrency-limiting",
    summary: "admit only so many requests at the same time",
    doc: "\
## What it does
Counts the requests that are in flight, by consumer or by what else `by` says, and refuses those beyond `max`.

## Why
A rate says nothing about requests that take long. Ten exports of a minute each are few, and may be all that a service can
do at once; one client must not hold all of its places.

## Example
```yaml
plugins:
  - name: concurrency-limiting
    config: { max: 10, by: [consumer] }
```
For a service as a whole, whoever asks: `by: [service]`; for all services of one upstream: `by: [upstream]`.

## Behaviour
A request is in flight until its response is sent or cannot be sent any more: when the client goes away, the upstream
breaks off, or a WebSocket ends. The count is exact across all workers of this process, and goes on over reloads; each
gateway counts for itself. Memory is needed for keys with requests in flight only.

A refused request gets 429 (`error_code`), `error_message` and `Retry-After`: nobody knows when a place will be free, so it
is what `retry_after` says. With `ietf_headers` responses carry `RateLimit-Policy` with the quota unit
`concurrent-requests`, and `RateLimit` with how many places were left. Log and metric tell of refusals as of those of other
limits, under the name `concurrency`.

Counters belong to what the plugin is attached to, as those of `rate-limiting` do; who has none of what `by` names is counted
by address.
",
    fields: &[
        Field::new("max", Kind::Int { min: 1, max: 1_000_000 }, "Requests at the same time.")
            .required()
            .extension(),
        Field::new(
            "by",
            Kind::List(&STR),
            "Whose requests count together, as in `limits[].by` of `rate-limiting`.",
        )
        .default("[\"consumer\"]")
        .extension(),
        Field::new(
            "ipv6_prefix",
            Kind::Int { min: 1, max: 128 },
            "How many bits of an IPv6 address count as one client.",
        )
        .default("64")
        .extension(),
        Field::new("error_code", Kind::Int { min: 400, max: 599 }, "Status of a refusal.")
            .default("429")
            .extension(),
        Field::new("error_message", STR, "Message of a refusal.")
            .default("\"Too many requests at the same time\"")
            .extension(),
        Field::new("retry_after", Kind::Int { min: 1, max: 86_400 }, "Seconds that a refused client is told to wait.")
            .default("1")
            .extension(),
        Field::new("ietf_headers", Kind::Bool, "Whether to send `RateLimit-Policy` and `RateLimit`.")
            .default("false")
            .extension(),
        Field::new("dry_run", Kind::Bool, "Whether the limit only logs and measures, and refuses nothing.")
            .default("false")
            .extension(),
    ],
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

/// See the module.
pub struct ConcurrencyLimiting {
    max: usize,
    by: LimitBy,
    scope: String,
    in_flight: Arc<InFlight>,
    error_code: u16,
    error_message: String,
    retry_after: String,
    ietf: bool,
    dry_run: bool,
}

impl Policy for ConcurrencyLimiting {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let bits = config.int("ipv6_prefix").and_then(|n| u8::try_from(n).ok()).unwrap_or(64);
        let by = LimitBy::read(&config.strings("by"), bits, cx)?;
        Some(Self {
            max: config.int("max").and_then(|n| usize::try_from(n).ok())?,
            scope: format!("{}{}", limit::scope(cx.route_id, cx.service_id), by.tag()),
            by,
            in_flight: cx.shared.get(),
            error_code: config.int("error_code").and_then(|n| u16::try_from(n).ok())?,
            error_message: config.str("error_message").unwrap_or_default().to_owned(),
            retry_after: config.int("retry_after").unwrap_or(1).to_string(),
            ietf: config.bool("ietf_headers"),
            dry_run: config.bool("dry_run"),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let key = self.by.key(&self.scope, x);
        let most = if self.dry_run { usize::MAX } else { self.max };
        let entered = InFlight::enter(&self.in_flight, key.as_str(), most);
        let before = match &entered {
            Ok((_, before)) => *before,
            Err(before) => *before,
        };
        if self.ietf && !self.dry_run {
            let (q, r) = (self.max, self.max.saturating_sub(before + 1));
            let policy = format!("\"concurrency\";q={q};qu=\"concurrent-requests\"");
            x.response_fields.push(b"RateLimit-Policy", policy.as_bytes());
            x.response_fields.push(b"RateLimit", format!("\"concurrency\";r={r}").as_bytes());
        }
        match entered {
            Ok((place, before)) => {
                if before >= self.max {
                    note(x, "concurrency", Verdict::WouldRefuse, 100);
                }
                x.keep(place);
                x.gives_up = true;
                Flow::Next
            }
            Err(_) => {
                note(x, "concurrency", Verdict::Refused, 100);
                let reply = Reply::error(&x.request, x.request_id, self.error_code, &self.error_message);
                Flow::Reply(reply.field(names::RETRY_AFTER, self.retry_after.clone()))
            }
        }
    }
}

/// How many locks the keys are spread over.
const SHARDS: usize = 64;

/// Requests in flight by key, over all workers. Outlives snapshots.
pub struct InFlight {
    shards: Box<[Mutex<HashMap<Arc<str>, usize, ahash::RandomState>>]>,
    hasher: ahash::RandomState,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: ahash::RandomState::new() }
    }
}

/// A place among those in flight. Kept in the exchange, so that it is given back whatever becomes of the request.
pub struct Place {
    key: Arc<str>,
    of: Arc<InFlight>,
}

impl InFlight {
    /// Takes a place, and says how many were taken before; only that, if `most` are taken.
    fn enter(this: &Arc<Self>, key: &str, most: usize) -> Result<(Place, usize), usize> {
        let mut counts = this.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        let taken = counts.get_key_value(key).map(|(k, n)| (Arc::clone(k), *n));
        let (key, before) = taken.unwrap_or_else(|| (Arc::from(key), 0));
        if before >= most {
            return Err(before);
        }
        counts.insert(Arc::clone(&key), before + 1);
        Ok((Place { key, of: Arc::clone(this) }, before))
    }

    fn shard(&self, key: &str) -> &Mutex<HashMap<Arc<str>, usize, ahash::RandomState>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// How many keys have requests in flight.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.shard(&self.key).lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.key) {
            Some(n) if *n > 1 => *n -= 1,
            _ => {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::message::FieldName;
    use crate::policy::testing;

    fn enter(policy: &ConcurrencyLimiting, request: &str) -> (u16, Exchange) {
        let mut x = testing::exchange(request);
        let status = match policy.request(&mut x) {
            Flow::Next => 200,
            Flow::Reply(reply) => {
                assert!(reply.fields.iter().any(|(n, v)| *n == names::RETRY_AFTER && v == "1"));
                reply.status
            }
            Flow::Await(effect) => panic!("{effect:?}"),
        };
        (status, x)
    }

    #[test]
    fn places_are_taken_and_given_back_with_the_exchange() {
        let policy =
            testing::policy::<ConcurrencyLimiting>(&json!({"max": 2, "by": ["ip"], "ietf_headers": true}));
        let ((a, first), (b, second)) = (enter(&policy, "GET /"), enter(&policy, "GET /"));
        assert_eq!((a, b), (200, 200));
        let state = |x: &Exchange| x.response_fields.text(&FieldName::new("RateLimit")).map(str::to_owned);
        assert_eq!(
            (state(&first), state(&second)),
            (Some("\"concurrency\";r=1".into()), Some("\"concurrency\";r=0".into()))
        );
        assert_eq!(enter(&policy, "GET /").0, 429);
        assert_eq!(enter(&policy, "GET /\nclient-ip: 10.0.0.1").0, 200, "another client");
        drop(first);
        assert_eq!(enter(&policy, "GET /").0, 200);
        drop(second);
        assert!(policy.in_flight.is_empty());
    }

    #[test]
    fn a_dry_run_counts_and_refuses_nothing() {
        let policy = testing::policy::<ConcurrencyLimiting>(&json!({"max": 1, "dry_run": true}));
        let (_, first) = enter(&policy, "GET /");
        let (status, second) = enter(&policy, "GET /");
        assert_eq!(status, 200);
        assert!(first.limit_notes.is_empty());
        assert_eq!(second.limit_notes.first().map(|n| n.verdict), Some(Verdict::WouldRefuse));
    }

    #[test]
    fn workers_together_never_exceed_the_limit() {
        let all = Arc::new(InFlight::default());
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Ok((place, _)) = InFlight::enter(&all, "k", 3) {
                            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::hint::spin_loop();
                            now.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert!(all.is_empty());
    }

    #[test]
    fn a_panic_gives_the_place_back() {
        let all = Arc::new(InFlight::default());
        let inside = Arc::clone(&all);
        let result = std::thread::spawn(move || {
            let _place = InFlight::enter(&inside, "k", 1).ok();
            panic!("on purpose");
        })
        .join();
        assert!(result.is_err() && all.is_empty());
    }
}
