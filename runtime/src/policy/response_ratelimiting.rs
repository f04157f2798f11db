//! `response-ratelimiting`: limits on what the upstream says a response cost.

use std::sync::Arc;

use super::limit_by::{LimitBy, Part};
use super::limiting::{self, AMOUNT};
use super::redis_settings::{self, LEGACY};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::limit::headers::NumberText;
use crate::limit::local::{Announced, SyncStore, SyncStores};
use crate::limit::{self, Algorithm, Key, LocalStore, Outcome, RedisSettings, Rules, StoreError};
use crate::message::{FieldName, names};
use crate::model::redis::REDIS;
use crate::model::schema::{Field, HEADER, Kind, Record, Val};

static PLUGIN: Descriptor = Descriptor {
    name: "response-ratelimiting",
    summary: "limit what responses cost, as the upstream counts it",
    doc: "\
## What it does
Counts units that the upstream names in a response header, such as `X-Kong-Limit: video=1, image=2`, and refuses when a
limit is used up.

## Why
Requests differ in what they cost, and only the upstream knows.

## Example
```yaml
plugins:
  - name: response-ratelimiting
    config:
      limits: { video: { minute: 10 }, image: { hour: 1000 } }
```

## Behaviour
The upstream is told what is left by `X-RateLimit-Remaining-video`, the client by `X-RateLimit-Limit-video-minute` and
`X-RateLimit-Remaining-video-minute` (unless `hide_client_headers`). The upstream's header is removed.

A response that costs something of a limit that is used up is replaced by an empty 429, and does not count. With
`block_on_first_violation` such requests are answered with 429 before they reach the upstream.

With `policy: redis` counters are read from Redis before the request and settled within moments after the response. While
Redis cannot be reached requests pass uncounted, or with `fault_tolerant: false` are answered with 500.
",
    fields: &FIELDS,
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

const PERIODS: &[Field] = &[
    Field::new("second", AMOUNT, "Units per second."),
    Field::new("minute", AMOUNT, "Units per minute."),
    Field::new("hour", AMOUNT, "Units per hour."),
    Field::new("day", AMOUNT, "Units per day."),
    Field::new("month", AMOUNT, "Units per month."),
    Field::new("year", AMOUNT, "Units per year."),
];

const OWN: [Field; 8] = [
    Field::new(
        "limits",
        Kind::Map(&Kind::Record(PERIODS)),
        "The limits, by the names that the upstream uses.",
    )
    .required(),
    Field::new("header_name", HEADER, "The response header in which the upstream says what it counts.")
        .default("\"x-kong-limit\""),
    Field::new(
        "limit_by",
        Kind::Enum(&["consumer", "credential", "ip"]),
        "By whom units are counted; who has none of it is counted by address.",
    )
    .default("\"consumer\""),
    Field::new("policy", Kind::Enum(&["local", "redis"]), "Where counters live.").default("\"local\""),
    Field::new(
        "fault_tolerant",
        Kind::Bool,
        "Whether requests pass while Redis cannot be reached; else they are answered with 500.",
    )
    .default("true"),
    Field::new(
        "block_on_first_violation",
        Kind::Bool,
        "Whether a request is refused before it reaches the upstream once any limit is used up.",
    )
    .default("false"),
    Field::new("hide_client_headers", Kind::Bool, "Whether responses say nothing about limits.")
        .default("false"),
    Field::new("redis", Kind::Record(REDIS), "Where Redis is.").default("{}"),
];

const FIELDS: [Field; OWN.len() + LEGACY.len()] = {
    let mut all = [OWN[0]; OWN.len() + LEGACY.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < OWN.len() { OWN[i] } else { LEGACY[i - OWN.len()] };
        i += 1;
    }
    all
};

/// See the module.
pub struct ResponseRateLimiting {
    limits: Vec<Limit>,
    header: FieldName,
    by: LimitBy,
    store: Store,
    fault_tolerant: bool,
    block: bool,
    show: bool,
}

struct Limit {
    name: String,
    /// Responses count in full, whatever is left.
    rules: Arc<Rules>,
    scope: String,
    /// `X-RateLimit-Remaining-NAME`, for the upstream.
    remaining: FieldName,
}

enum Store {
    Local(Arc<LocalStore>),
    Redis(Arc<RedisSettings>, Arc<SyncStore>),
}

/// How a request found its limits; kept for the response.
#[derive(Default)]
struct Found {
    keys: Vec<Key>,
    outcomes: Vec<Outcome>,
    _announced: Option<Announced>,
}

/// The response was replaced by a refusal.
struct Stopped;

/// Milliseconds until what a response cost is known to other gateways.
const SETTLE_MS: u64 = 20;

impl Policy for ResponseRateLimiting {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let scope = limit::scope(cx.route_id, cx.service_id);
        let mut limits = Vec::new();
        for (name, value) in config.map("limits") {
            let Val::Record(periods) = &value.value else { continue };
            let rules = limiting::periods(periods, "", Algorithm::Fixed, cx)?;
            limits.push(Limit {
                name: name.value.clone(),
                rules: Arc::new(Rules { rules, count_rejected: true }),
                // Apart from the counters of `rate-limiting`, whose scopes begin with a UUID.
                scope: format!("response:{scope}:{}", name.value),
                remaining: FieldName::new(&format!("X-RateLimit-Remaining-{}", name.value)),
            });
        }
        if limits.is_empty() {
            cx.report(
                &codes::MISSING_ALTERNATIVE,
                config.span_of("limits"),
                "`limits`: length must be at least 1",
            );
            return None;
        }
        let store = match config.str("policy") {
            Some("redis") => {
                let settings = redis_settings::of_plugin(config, cx)?;
                let sync = cx.shared.get::<SyncStores>().get(&settings, SETTLE_MS);
                Store::Redis(settings, sync)
            }
            _ => Store::Local(cx.shared.get()),
        };
        Some(Self {
            limits,
            header: FieldName::new(config.str("header_name")?),
            by: LimitBy::one(match config.str("limit_by") {
                Some("credential") => Part::Credential,
                Some("ip") => Part::Ip,
                _ => Part::Consumer,
            }),
            store,
            fault_tolerant: config.bool("fault_tolerant"),
            block: config.bool("block_on_first_violation"),
            show: !config.bool("hide_client_headers"),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let announced = match &self.store {
            Store::Redis(_, sync) => Some(sync.announce()),
            Store::Local(_) => None,
        };
        x.keep(Found { _announced: announced, ..Found::default() });
        self.look(x)
    }

    fn redis(&self) -> Option<&Arc<RedisSettings>> {
        match &self.store {
            Store::Local(_) => None,
            Store::Redis(settings, _) => Some(settings),
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Limit(Ok(outcome)) => {
                self.found(x, outcome);
                self.look(x)
            }
            Answer::Limit(Err(error)) => {
                x.keep(Found::default());
                x.keep::<StoreError>(error);
                match self.fault_tolerant {
                    true => Flow::Next,
                    false => Flow::Reply(Reply::exit(500, "An unexpected error occurred")),
                }
            }
            _ => Flow::Next,
        }
    }

    fn response(&self, x: &mut Exchange) {
        let costs = self.costs(x);
        x.response.fields.remove(&self.header);
        let Some(found) = take_found(x) else { return };
        if found.outcomes.len() < self.limits.len() {
            return;
        }
        let mut stop = false;
        let mut text = NumberText::default();
        for ((limit, outcome), cost) in self.limits.iter().zip(&found.outcomes).zip(&costs) {
            for (rule, usage) in limit.rules.rules.iter().zip(outcome.usages()) {
                stop |= *cost > 0 && usage.left <= 0.0;
                if self.show {
                    let tail = format!("{}-{}", limit.name, rule.period.name());
                    let left = (usage.left - f64::from(*cost)).max(0.0);
                    let name = format!("X-RateLimit-Limit-{tail}");
                    x.response.fields.set(&FieldName::new(&name), text.text(usage.limit, false));
                    let name = format!("X-RateLimit-Remaining-{tail}");
                    x.response.fields.set(&FieldName::new(&name), text.text(left, false));
                }
            }
        }
        if stop {
            x.response.status = 429;
            x.response.fields.remove(&names::CONTENT_TYPE);
            x.response.fields.remove(&names::CONTENT_ENCODING);
            x.response.fields.remove(&names::ETAG);
            x.keep(Stopped);
            return;
        }
        for ((limit, key), cost) in self.limits.iter().zip(&found.keys).zip(costs).filter(|(_, c)| *c > 0) {
            match &self.store {
                Store::Local(store) => store.take(&limit.rules, key, cost, x.now.unix_ms),
                Store::Redis(_, store) => store.take(&limit.rules, key, cost, x.now.unix_ms),
            };
        }
    }

    fn wants_response_body(&self, x: &Exchange) -> bool {
        x.kept::<Stopped>().is_some()
    }

    fn response_body(&self, _x: &mut Exchange, _body: Vec<u8>) -> Result<Vec<u8>, Reply> {
        Ok(Vec::new())
    }
}

impl ResponseRateLimiting {
    /// Looks at the limits that have not been looked at yet.
    fn look(&self, x: &mut Exchange) -> Flow {
        loop {
            let done = x.kept::<Found>().map_or(0, |f| f.outcomes.len());
            let Some(limit) = self.limits.get(done) else { return self.admit(x) };
            let key = self.by.key(&limit.scope, x);
            let now_ms = x.now.unix_ms;
            match &self.store {
                Store::Local(store) => {
                    let outcome = store.take(&limit.rules, &key, 0, now_ms);
                    self.found(x, outcome);
                }
                Store::Redis(redis, sync) => {
                    return Flow::Await(Effect::Limit(Box::new(limit::Request {
                        redis: Arc::clone(redis),
                        rules: Arc::clone(&limit.rules),
                        key,
                        hits: 0,
                        sync: Some(Arc::clone(sync)),
                        lease: None,
                        now_ms,
                    })));
                }
            }
        }
    }

    fn found(&self, x: &mut Exchange, outcome: Outcome) {
        let mut found = take_found(x).unwrap_or_default();
        if let Some(limit) = self.limits.get(found.outcomes.len()) {
            found.keys.push(self.by.key(&limit.scope, x));
            found.outcomes.push(outcome);
        }
        x.keep(found);
    }

    fn admit(&self, x: &mut Exchange) -> Flow {
        let found = take_found(x).unwrap_or_default();
        let mut text = NumberText::default();
        for (limit, outcome) in self.limits.iter().zip(&found.outcomes) {
            let left = outcome.usages().map(|u| u.left).fold(f64::INFINITY, f64::min);
            // Kong looks for exactly zero here, and so lets a limit pass that was overrun.
            if self.block && left <= 0.0 {
                let message = format!("API rate limit exceeded for '{}'", limit.name);
                return Flow::Reply(Reply::exit(429, &message));
            }
            x.request.fields.set(&limit.remaining, text.text(left, false));
        }
        x.keep(found);
        Flow::Next
    }

    /// What the upstream says the response cost, by limit. Of a name given twice the last counts, as in Kong.
    fn costs(&self, x: &Exchange) -> Vec<u32> {
        let mut costs = vec![0; self.limits.len()];
        if x.local_response {
            return costs;
        }
        for value in x.response.fields.all(&self.header) {
            for part in String::from_utf8_lossy(value).split(',') {
                let Some((name, cost)) = part.split_once('=') else { continue };
                let at = self.limits.iter().position(|l| l.name == name.trim());
                if let (Some(at), Ok(cost)) = (at, cost.trim().parse::<f64>()) {
                    costs[at] = cost.clamp(0.0, f64::from(u32::MAX)) as u32;
                }
            }
        }
        costs
    }
}

fn take_found(x: &mut Exchange) -> Option<Found> {
    let at = x.slots.iter().position(|s| s.is::<Found>())?;
    x.slots.swap_remove(at).downcast().ok().map(|found| *found)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::testing;

    /// Each line is one exchange: `HEADER VALUE OF THE UPSTREAM -> STATUS [> | <]Name=value ...`; `429!` was refused before
    /// the upstream.
    #[track_caller]
    fn check(config: Value, lines: &str) {
        let policy = testing::policy::<ResponseRateLimiting>(&config);
        for line in lines.lines().map(str::trim) {
            let (cost, want) = line.split_once("->").expect("an arrow");
            let mut x = testing::exchange("GET /");
            // Virtual time: no test runs into the next window.
            x.now.unix_ms = 1_792_300_810_000;
            let (status, body) = match policy.request(&mut x) {
                Flow::Reply(reply) => {
                    (format!("{}!", reply.status), String::from_utf8_lossy(&reply.body).into_owned())
                }
                _ => {
                    let upstream = format!("200\nX-Kong-Limit: {}\n\nhello", cost.trim());
                    let body = testing::response(&policy, &mut x, &upstream);
                    (x.response.status.to_string(), body)
                }
            };
            assert!(!x.response.fields.contains(&policy.header), "{line}");
            let mut want = want.trim().split(' ');
            assert_eq!(status, want.next().unwrap_or_default(), "{config}: {line}");
            match status.as_str() {
                "200" => assert_eq!(body, "hello"),
                "429" => assert_eq!(body, ""),
                _ => assert!(body.contains("API rate limit exceeded for 'video'"), "{body}"),
            }
            for field in want {
                let (name, value) = field[1..].split_once('=').expect("a field");
                let side = if field.starts_with('>') { &x.request.fields } else { &x.response.fields };
                let got = side.text(&FieldName::new(name)).unwrap_or_default();
                assert_eq!(got, value, "{config}: {line}");
            }
        }
    }

    #[test]
    fn responses_cost_what_the_upstream_says() {
        check(
            json!({"limits": {"video": {"minute": 3, "hour": 9}, "image": {"minute": 1}}}),
            "video=2, image=0, other=7 -> 200 >X-RateLimit-Remaining-video=3 <X-RateLimit-Limit-video-minute=3 <X-RateLimit-Remaining-video-minute=1 <X-RateLimit-Remaining-video-hour=7
             -> 200 >X-RateLimit-Remaining-video=1 >X-RateLimit-Remaining-image=1 <X-RateLimit-Remaining-video-minute=1
             video=2 -> 200 <X-RateLimit-Remaining-video-minute=0
             -> 200 >X-RateLimit-Remaining-video=-1
             video=1, image=1 -> 429 <X-RateLimit-Remaining-video-minute=0
             image=1 -> 200 >X-RateLimit-Remaining-image=1
             image=1 -> 429
             image=x, image -> 200",
        );
    }

    #[test]
    fn violations_may_end_before_the_upstream_and_headers_may_be_hidden() {
        check(
            json!({"limits": {"video": {"minute": 1}}, "block_on_first_violation": true, "hide_client_headers": true}),
            "video=2 -> 200 <X-RateLimit-Limit-video-minute=\nvideo=1 -> 429!",
        );
    }

    #[test]
    fn a_silent_redis_is_met_as_configured() {
        for (fault_tolerant, want) in [(true, 0), (false, 500)] {
            let policy = testing::policy::<ResponseRateLimiting>(&json!({
                "limits": {"video": {"minute": 1}}, "policy": "redis", "redis_host": "redis.test",
                "fault_tolerant": fault_tolerant
            }));
            let mut x = testing::exchange("GET /");
            assert!(matches!(policy.request(&mut x), Flow::Await(Effect::Limit(_))));
            let status = match policy.resume(&mut x, Answer::Limit(Err(StoreError::Down))) {
                Flow::Reply(reply) => reply.status,
                _ => 0,
            };
            assert_eq!(status, want);
            testing::response(&policy, &mut x, "200\nX-Kong-Limit: video=1\n\n");
            assert!(!x.response.fields.contains(&policy.header), "the upstream's header is never shown");
        }
    }

    #[test]
    fn configs_that_cannot_work_are_refused() {
        let refuses = testing::refuses::<ResponseRateLimiting>;
        refuses(json!({"limits": {}}), "length must be at least 1");
        refuses(json!({"limits": {"video": {}}}), "at least one of these fields must be non-empty: 'second'");
        refuses(json!({"limits": {"v": {"second": 2, "day": 1}}}), "the limit for day(1.0) cannot be lower");
        refuses(json!({"limits": {"v": {"day": 1}}, "policy": "redis"}), "required field missing");
    }
}
