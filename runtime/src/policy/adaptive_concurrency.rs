//! `adaptive-concurrency`: as many requests at the same time as a service can take without getting slow.

mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::limit_by::{LimitBy, Part};
use super::limit_notes::{Verdict, note};
use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::clock;
use crate::exchange::Exchange;
use crate::limit::{self, Key};
use crate::message::{FieldName, names};
use crate::model::schema::{Field, Kind, Record, STR};
use state::{Settings, State};

static PLUGIN: Descriptor = Descriptor {
    name: "adaptive-concurrency",
    summary: "admit as many requests at the same time as a service can take without getting slow",
    doc: "\
## What it does
Measures how long a service takes to answer, and from that finds how many requests it can work on at the same time. What
comes beyond is refused at once.

## Why
A service that gets more than it can do answers everything late, in the end too late to be of use, and does not recover by
itself. Nobody knows the right fixed limit, and it changes with every deployment.

## Example
```yaml
plugins:
  - name: adaptive-concurrency
    service: orders
    config: { max: 200 }
```

## Behaviour
The limit begins at `initial` and stays between `min` and `max`. Every `window` the average time to the first byte of the
answers is compared with the best that was seen. As long as it is within `tolerance` times that, the limit grows by its
square root; beyond, it shrinks in proportion, by at most half. Each window with a timeout, a connection that failed, or a 503 or
504 of the service takes 10 % off. While less than half of the limit is in use, nothing can be learnt and the limit stays.

What is the best changes, too: every `probe_interval` a quarter of the limit is in force for one window, so that no queue
can be part of what is measured, and that is the new best.

A refused request gets 503 (`error_code`), `error_message` and `Retry-After: 1`. Log and metric tell of it under the name
`adaptive`. With `debug_header` responses say the limit in `X-Concurrency-Limit`.

Counts are exact across all workers of this process, and a request holds its place until its response is sent or cannot be
sent any more. Each gateway learns for itself: N gateways together find N shares of what the service can take.
",
    fields: &[
        Field::new(
            "by",
            Kind::Enum(&["service", "route", "upstream"]),
            "What is measured and limited as a whole: services that share an upstream may share a limit.",
        )
        .default("\"service\"")
        .extension(),
        Field::new("initial", COUNT, "The limit to begin with.").default("20").extension(),
        Field::new("min", COUNT, "The least limit.").default("2").extension(),
        Field::new("max", COUNT, "The greatest limit.").default("1000").extension(),
        Field::new(
            "tolerance",
            Kind::Num { min: 1.05, max: 10.0 },
            "How many times as slow as at its best a service may be.",
        )
        .default("1.5")
        .extension(),
        Field::new("window", Kind::Int { min: 10, max: 60_000 }, "Milliseconds over which times are averaged.")
            .default("250")
            .extension(),
        Field::new("probe_interval", Kind::Int { min: 1, max: 3600 }, "Seconds between two looks for what is the best.")
            .default("60")
            .extension(),
        Field::new("error_code", Kind::Int { min: 400, max: 599 }, "Status of a refusal.")
            .default("503")
            .extension(),
        Field::new("error_message", STR, "Message of a refusal.")
            .default("\"The service is working at capacity\"")
            .extension(),
        Field::new("debug_header", Kind::Bool, "Whether responses say the limit in `X-Concurrency-Limit`.")
            .default("false")
            .extension(),
    ],
    consumer_scope: false,
    extension: true,
    identity_headers: &[],
};

const COUNT: Kind = Kind::Int { min: 1, max: 1_000_000 };

/// See the module.
pub struct AdaptiveConcurrency {
    settings: Settings,
    by: LimitBy,
    scope: String,
    learners: Arc<Learners>,
    error_code: u16,
    error_message: String,
    debug: Option<FieldName>,
}

/// What was learnt, by key; keys are of services, routes and upstreams, so there are few. Outlives snapshots.
#[derive(Default)]
struct Learners(RwLock<HashMap<Key, Arc<Mutex<State>>, ahash::RandomState>>);

impl Learners {
    fn get(&self, key: &Key, settings: &Settings) -> Arc<Mutex<State>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).map(Arc::clone);
        known.unwrap_or_else(|| {
            let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Mutex::new(State::new(settings, clock::monotonic())));
            Arc::clone(all.entry(key.clone()).or_insert_with(new))
        })
    }
}

/// A request's place; given back whatever becomes of the request.
struct Place(Arc<Mutex<State>>, usize);

impl Place {
    fn with<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.with(State::leave);
    }
}

impl Policy for AdaptiveConcurrency {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let settings = Settings::read(config, cx)?;
        let by = LimitBy::one(match config.str("by") {
            Some("route") => Part::Route,
            Some("upstream") => Part::Upstream,
            _ => Part::Service,
        });
        Some(Self {
            settings,
            scope: format!("{}{}", limit::scope(cx.route_id, cx.service_id), by.tag()),
            by,
            learners: cx.shared.get(),
            error_code: config.int("error_code").and_then(|n| u16::try_from(n).ok())?,
            error_message: config.str("error_message").unwrap_or_default().to_owned(),
            debug: config.bool("debug_header").then(|| FieldName::new("X-Concurrency-Limit")),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let state = self.learners.get(&self.by.key(&self.scope, x), &self.settings);
        let entered = state.lock().unwrap_or_else(PoisonError::into_inner).enter(&self.settings);
        if let Some(place) = entered {
            x.keep(Place(state, place));
            x.gives_up = true;
            return Flow::Next;
        }
        note(x, "adaptive", Verdict::Refused, 100);
        let reply = Reply::error(&x.request, x.request_id, self.error_code, &self.error_message);
        Flow::Reply(reply.field(names::RETRY_AFTER, "1"))
    }

    fn response(&self, x: &mut Exchange) {
        let Some(place) = x.kept::<Place>() else { return };
        let sent = x.upstream.began;
        let took = match (sent, x.upstream.first_byte) {
            (Some(began), Some(first)) if !x.local_response => Some(first.duration_since(began)),
            _ => None,
        };
        // A client that went away, or sent half a body, says nothing about the service.
        let failed = sent.is_some()
            && match x.local_response {
                true => matches!(x.response.status, 502..=504),
                false => matches!(x.response.status, 503 | 504),
            };
        let limit = place.with(|state| {
            match (failed, took) {
                (true, _) => state.failed(),
                (false, Some(took)) => state.answered(&self.settings, place.1, took),
                // A policy answered; the service was not asked.
                (false, None) => {}
            }
            state.conclude(&self.settings, clock::monotonic());
            state.limit()
        });
        if let Some(name) = &self.debug {
            x.response.fields.set(name, limit.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::policy::testing;

    #[test]
    fn what_is_beyond_the_limit_is_refused_and_places_come_back() {
        let policy = testing::policy::<AdaptiveConcurrency>(&json!({"initial": 2, "debug_header": true}));
        let enter = || {
            let mut x = testing::exchange("GET /");
            (policy.request(&mut x), x)
        };
        let ((a, mut first), (b, _second)) = (enter(), enter());
        assert!(matches!((a, b), (Flow::Next, Flow::Next)));
        let Flow::Reply(reply) = enter().0 else { panic!("three at once") };
        assert_eq!(reply.status, 503);
        let now = clock::monotonic();
        (first.upstream.began, first.upstream.first_byte) = (Some(now), Some(now + Duration::from_millis(5)));
        testing::response(&policy, &mut first, "200");
        let limit = first.response.fields.text(&FieldName::new("X-Concurrency-Limit"));
        assert_eq!(limit, Some("2"));
        drop(first);
        assert!(matches!(enter().0, Flow::Next));
    }

    #[test]
    fn configs_that_cannot_work_are_refused() {
        let refuses = testing::refuses::<AdaptiveConcurrency>;
        refuses(json!({"min": 10, "max": 5}), "`min` 10 is more than `max` 5");
        refuses(json!({"initial": 1, "min": 5}), "`initial` 1 is not between `min` 5 and `max` 1000");
    }
}
