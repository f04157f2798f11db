//! `concurrency-limiting`: so many requests at the same time.

mod in_flight;

use std::sync::Arc;
use std::time::Duration;

use super::limit_by::LimitBy;
use super::limit_notes::{Verdict, note};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::limit;
use crate::message::names;
use crate::model::schema::{Field, Kind, Record, STR};
use in_flight::{Entered, InFlight, Queued};

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

With `delay` a request that finds no place waits for one, at most so many milliseconds, unless `delay_waiters` requests of the
same key wait already. Who has waited longest comes next. A client that goes away while it waits waits no longer. Log and
metric tell of the wait as `delayed`.

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
        Field::new(
            "delay",
            Kind::Int { min: 1, max: 60_000 },
            "Milliseconds that a request may wait for a place instead of being refused.",
        )
        .extension(),
        Field::new(
            "delay_waiters",
            Kind::Int { min: 1, max: 100_000 },
            "How many requests of one key may wait at once; beyond that none waits.",
        )
        .default("100")
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
    /// How long a request may wait for a place, and how many of a key may.
    delay: Option<(Duration, usize)>,
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
        let waiters = config.int("delay_waiters").and_then(|n| usize::try_from(n).ok()).unwrap_or(100);
        let delay = config.int("delay").and_then(|n| u64::try_from(n).ok()).map(Duration::from_millis);
        Some(Self {
            delay: delay.map(|delay| (delay, waiters)),
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
        let (most, waiters) = match (self.dry_run, self.delay) {
            (true, _) => (usize::MAX, 0),
            (false, Some((_, waiters))) => (self.max, waiters),
            (false, None) => (self.max, 0),
        };
        let entered = InFlight::enter(&self.in_flight, key.as_str(), most, waiters);
        if self.ietf && !self.dry_run {
            let before = if let Entered::In(_, before) = &entered { *before } else { self.max };
            let (q, r) = (self.max, self.max.saturating_sub(before + 1));
            let policy = format!("\"concurrency\";q={q};qu=\"concurrent-requests\"");
            x.response_fields.push(b"RateLimit-Policy", policy.as_bytes());
            x.response_fields.push(b"RateLimit", format!("\"concurrency\";r={r}").as_bytes());
        }
        match (entered, self.delay) {
            (Entered::In(place, before), _) => {
                if before >= self.max {
                    note(x, "concurrency", Verdict::WouldRefuse, 100);
                }
                x.keep(place);
                x.gives_up = true;
                Flow::Next
            }
            (Entered::Waits(queued), Some((delay, _))) => {
                let landing = queued.landing();
                x.keep(queued);
                Flow::Await(Effect::Landing(landing, delay))
            }
            _ => self.refuse(x),
        }
    }

    fn resume(&self, x: &mut Exchange, _: Answer) -> Flow {
        let at = x.slots.iter().position(|s| s.is::<Queued>());
        let queued = at.and_then(|at| x.slots.swap_remove(at).downcast::<Queued>().ok());
        let Some(place) = queued.and_then(|q| q.end()) else { return self.refuse(x) };
        note(x, "concurrency", Verdict::Delayed, 100);
        x.keep(place);
        x.gives_up = true;
        Flow::Next
    }
}

impl ConcurrencyLimiting {
    fn refuse(&self, x: &mut Exchange) -> Flow {
        note(x, "concurrency", Verdict::Refused, 100);
        let reply = Reply::error(&x.request, x.request_id, self.error_code, &self.error_message);
        Flow::Reply(reply.field(names::RETRY_AFTER, self.retry_after.clone()))
    }
}

#[cfg(test)]
mod tests {
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
    fn a_request_may_wait_for_a_place() {
        let policy = testing::policy::<ConcurrencyLimiting>(
            &json!({"max": 1, "by": ["ip"], "delay": 50, "delay_waiters": 2}),
        );
        let (_, first) = enter(&policy, "GET /");
        let wait = || {
            let mut x = testing::exchange("GET /");
            assert!(
                matches!(policy.request(&mut x), Flow::Await(Effect::Landing(_, delay)) if delay.as_millis() == 50)
            );
            x
        };
        let (mut second, mut third) = (wait(), wait());
        assert_eq!(enter(&policy, "GET /").0, 429, "two wait already");
        drop(first);
        assert!(matches!(policy.resume(&mut second, Answer::Landing), Flow::Next));
        assert_eq!(second.limit_notes.first().map(|n| n.verdict), Some(Verdict::Delayed));
        assert!(
            matches!(policy.resume(&mut third, Answer::Landing), Flow::Reply(reply) if reply.status == 429)
        );
        drop((second, third));
        assert!(policy.in_flight.is_empty());
    }
}
