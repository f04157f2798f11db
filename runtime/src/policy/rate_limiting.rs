//! `rate-limiting`: so many requests a period.

use std::cell::RefCell;
use std::sync::Arc;

use super::limiting::{self, AMOUNT, LEGACY, LimitBy};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::diag::{Diagnostic, Severity, codes};
use crate::exchange::Exchange;
use crate::limit::local::{SyncStore, SyncStores};
use crate::limit::{self, Algorithm, Key, LocalStore, Outcome, RedisSettings, Rules, StoreError};
use crate::message::FieldName;
use crate::model::schema::{Field, HEADER, Kind, Record, Rule as Text, STR};

static PLUGIN: Descriptor = Descriptor {
    name: "rate-limiting",
    summary: "admit only so many requests per second, minute, hour, day, month or year",
    doc: "\
## What it does
Counts requests by consumer, credential, address, service, header or path, and refuses those beyond the limit. Several
periods may be limited at once; a request must fit all of them.

## Why
No client can take more than its share, and an upstream is never asked for more than it can bear.

## Example
```yaml
plugins:
  - name: rate-limiting
    config:
      minute: 60
      hour: 1000
      policy: redis
      redis: { host: redis.internal }
```

## Behaviour
A refused request is answered with 429 (`error_code`) and `error_message`, and never reaches the upstream.

Counters belong to what the plugin is attached to: a plugin of a route counts that route's requests, a plugin of a
service those of all its routes together, a global plugin those of all services. Who has no consumer (credential,
header, ...) is counted by address.

**Headers.** Every response says `X-RateLimit-Limit-Minute` and `X-RateLimit-Remaining-Minute` (and so on for each
period), and of the period that has the least left `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` in
seconds; a refusal also says `Retry-After`. `hide_client_headers` leaves them all out. `ietf_headers` adds
`RateLimit-Policy` and `RateLimit`. `warn_at: 80` adds `X-RateLimit-Warning: \"minute\";used=80` to responses from the
moment that 80 % of a limit is used.

**Where counters live.** `policy: local` counts in this process, exactly, across all its workers and over reloads; each
gateway counts for itself. `policy: redis` counts in Redis: check and count are one step there, by the clock of Redis,
so all gateways together admit the limit exactly. With a `sync_rate` of s seconds, requests no longer wait for Redis: each
gateway counts for itself and settles every s seconds; N gateways may then admit up to
`2 × (N − 1) × rate × s` more than the limit.

**When Redis is away.** No request waits longer than `redis.max_wait`. A Redis that does not answer within that time counts as
down: no further request waits for it, and in the background it is asked, by one probe at a time and at the latest every
second, until it answers quickly enough again. `on_store_error` says what happens meanwhile: `allow` lets requests pass without
headers (as `fault_tolerant: true` does), `deny` answers 503 with `Retry-After`, `local` counts in this process until Redis
is back. Without `on_store_error` it is `fault_tolerant` that decides; false answers 500, as Kong does.

**Several servers.** `redis.cluster_nodes` names nodes of a Redis Cluster, from which the others are learnt; all counters of
a request lie in one slot. `redis.sentinel_master` and `redis.sentinel_nodes` name a master that sentinels watch; after a
failover the new one is found within a second or two. A new master knows only what was replicated to it before, so what
was counted in that moment may be lost. Each worker has one connection to each server, and what its requests ask in one turn
of its event loop goes out together.

**Algorithms.** `fixed-window` is Kong's: calendar windows in UTC; up to twice the limit may pass around the edge of one.
`sliding-window` weighs in what is left of the last window. `token-bucket` lets `burst` requests through at once and then
as many as the limit's rate gives: in any time t no more than `burst + rate × t`. `smooth` is a token bucket with a burst
of 1: evenly spaced. `burst` applies to the shortest period; longer ones have their limit as burst.

Refused requests do not count with `local` and do count with `redis`, as in Kong; `count_rejected` says otherwise.
",
    fields: &FIELDS,
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

const OWN: [Field; 22] = [
    Field::new("second", AMOUNT, "Requests per second."),
    Field::new("minute", AMOUNT, "Requests per minute."),
    Field::new("hour", AMOUNT, "Requests per hour."),
    Field::new("day", AMOUNT, "Requests per day."),
    Field::new("month", AMOUNT, "Requests per month."),
    Field::new("year", AMOUNT, "Requests per year."),
    Field::new(
        "limit_by",
        Kind::Enum(&["consumer", "credential", "ip", "service", "header", "path"]),
        "By whom requests are counted; who has none of it is counted by address.",
    )
    .default("\"consumer\""),
    Field::new("header_name", HEADER, "The header whose value is counted by, with `limit_by: header`."),
    Field::new("path", Kind::Str(Text::Path), "The path that is counted, with `limit_by: path`."),
    Field::new(
        "policy",
        Kind::Enum(&["local", "redis"]),
        "Where counters live. Kong's `cluster` needs a database, so it does not exist here.",
    )
    .default("\"local\""),
    Field::new(
        "fault_tolerant",
        Kind::Bool,
        "Whether requests pass while Redis cannot be reached; else they are answered with 500.",
    )
    .default("true"),
    Field::new("hide_client_headers", Kind::Bool, "Whether responses say nothing about limits.")
        .default("false"),
    Field::new("error_code", AMOUNT, "Status of a refusal, 400 to 599.").default("429"),
    Field::new("error_message", STR, "Message of a refusal.").default("\"API rate limit exceeded\""),
    Field::new(
        "sync_rate",
        Kind::Num { min: -1.0, max: f64::MAX },
        "Seconds between settlements with Redis, at least 0.02; -1 asks Redis at every request.",
    )
    .default("-1"),
    Field::new("redis", Kind::Record(limiting::REDIS), "Where Redis is.").default("{}"),
    Field::new(
        "algorithm",
        Kind::Enum(&["fixed-window", "sliding-window", "token-bucket", "smooth"]),
        "How requests are counted.",
    )
    .default("\"fixed-window\"")
    .extension(),
    Field::new(
        "burst",
        AMOUNT,
        "Requests that may come at once, with `token-bucket` (else the limit) and `smooth` (else 1).",
    )
    .extension(),
    Field::new(
        "warn_at",
        Kind::Num { min: f64::MIN_POSITIVE, max: 100.0 },
        "Percent of a limit from which on responses carry `X-RateLimit-Warning`.",
    )
    .extension(),
    Field::new(
        "on_store_error",
        Kind::Enum(&["allow", "deny", "local"]),
        "What happens while Redis cannot be reached; goes before `fault_tolerant`.",
    )
    .extension(),
    Field::new("ietf_headers", Kind::Bool, "Whether to send `RateLimit-Policy` and `RateLimit` too.")
        .default("false")
        .extension(),
    Field::new(
        "count_rejected",
        Kind::Bool,
        "Whether refused requests count. By default they do with `redis` and do not with `local`.",
    )
    .extension(),
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
pub struct RateLimiting {
    rules: Arc<Rules>,
    by: LimitBy,
    scope: String,
    store: Store,
    local: Arc<LocalStore>,
    on_error: OnError,
    show: bool,
    ietf: bool,
    warn_at: Option<f64>,
    /// None where the config names no error status, for which Kong answers 500.
    error_code: Option<u16>,
    error_message: String,
}

enum Store {
    Local,
    Redis { settings: Arc<RedisSettings>, sync: Option<Arc<SyncStore>> },
}

/// What happens when Redis gives no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnError {
    Allow,
    /// Kong's 500.
    Fail,
    Deny,
    Local,
}

/// The least `sync_rate`, in seconds.
const LEAST_SYNC: f64 = 0.02;

impl Policy for RateLimiting {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let rules = rules(config, cx);
        let by = limit_by(config, cx);
        let store = store(config, cx);
        let error_code = config.num("error_code").unwrap_or(429.0);
        if !(400.0..600.0).contains(&error_code) {
            let mut finding = Diagnostic::new(
                &codes::INVALID_VALUE,
                config.span_of("error_code"),
                format!("`error_code` {error_code} is no error, so refused requests are answered with 500"),
            );
            finding.severity = Severity::Warning;
            cx.diags.push(finding.help("choose a status from 400 to 599; 429 is what clients expect"));
        }
        Some(Self {
            rules: Arc::new(rules?),
            by: by?,
            scope: limit::scope(cx.route_id, cx.service_id),
            store: store?,
            local: cx.shared.get::<LocalStore>(),
            on_error: match (config.str("on_store_error"), config.bool("fault_tolerant")) {
                (Some("deny"), _) => OnError::Deny,
                (Some("local"), _) => OnError::Local,
                (Some(_), _) | (None, true) => OnError::Allow,
                (None, false) => OnError::Fail,
            },
            show: !config.bool("hide_client_headers"),
            ietf: config.bool("ietf_headers"),
            warn_at: config.num("warn_at"),
            error_code: (400.0..600.0).contains(&error_code).then_some(error_code as u16),
            error_message: config.str("error_message").unwrap_or_default().to_owned(),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        match &self.store {
            Store::Local => self.decide_here(x),
            Store::Redis { settings, sync } => Flow::Await(Effect::Limit(Box::new(limit::Request {
                redis: Arc::clone(settings),
                rules: Arc::clone(&self.rules),
                key: Key::new(&self.scope, self.by.identifier(x)),
                hits: 1,
                sync: sync.clone(),
                now_ms: x.now.unix_ms,
            }))),
        }
    }

    fn redis(&self) -> Option<&Arc<RedisSettings>> {
        match &self.store {
            Store::Local => None,
            Store::Redis { settings, .. } => Some(settings),
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        let error = match answer {
            Answer::Limit(Ok(outcome)) => return self.conclude(x, &outcome),
            Answer::Limit(Err(error)) => error,
            _ => return Flow::Next,
        };
        // For the log: the limit was not applied as configured.
        x.keep::<StoreError>(error);
        match self.on_error {
            OnError::Allow => Flow::Next,
            OnError::Local => self.decide_here(x),
            OnError::Fail => Flow::Reply(unexpected()),
            OnError::Deny => {
                let message = "The rate limit cannot be checked at the moment";
                let reply = Reply::error(&x.request, x.request_id, 503, message);
                Flow::Reply(reply.field(crate::message::names::RETRY_AFTER, "1"))
            }
        }
    }
}

thread_local! {
    /// The key of the request at hand; policies never wait while they hold it.
    static KEY: RefCell<Key> = RefCell::default();
}

impl RateLimiting {
    fn decide_here(&self, x: &mut Exchange) -> Flow {
        let outcome = KEY.with_borrow_mut(|key| {
            key.rewrite(&self.scope, self.by.identifier(x));
            self.local.take(&self.rules, key, 1, x.now.unix_ms)
        });
        self.conclude(x, &outcome)
    }

    fn conclude(&self, x: &mut Exchange, outcome: &Outcome) -> Flow {
        if self.show {
            limit::headers::write(&mut x.response_fields, &self.rules, outcome);
            if self.ietf {
                limit::headers::write_ietf(&mut x.response_fields, &self.rules, outcome);
            }
        }
        if let Some(percent) = self.warn_at
            && let Some(warning) = limit::headers::warning(&self.rules, outcome, percent)
        {
            if self.show {
                limit::headers::write_warning(&mut x.response_fields, &warning);
            }
            x.keep(warning);
        }
        if outcome.admitted {
            return Flow::Next;
        }
        Flow::Reply(match self.error_code {
            Some(status) => Reply::error(&x.request, x.request_id, status, &self.error_message),
            None => unexpected(),
        })
    }
}

/// What Kong answers when a plugin fails.
fn unexpected() -> Reply {
    Reply::exit(500, "An unexpected error occurred")
}

fn rules(config: &Record, cx: &mut Cx<'_>) -> Option<Rules> {
    let algorithm = match config.str("algorithm") {
        Some("sliding-window") => Algorithm::Sliding,
        Some("token-bucket" | "smooth") => Algorithm::Bucket,
        _ => Algorithm::Fixed,
    };
    let mut rules = limiting::periods(config, "config.", algorithm, cx)?;
    let burst = match config.str("algorithm") {
        Some("token-bucket") => rules.first().map(|r| r.limit),
        Some("smooth") => Some(1.0),
        _ => None,
    };
    match (config.num("burst"), burst) {
        (Some(_), None) => {
            let span = config.span_of("burst");
            let message = "`burst` has no meaning for a window: only `token-bucket` and `smooth` know bursts";
            let finding = Diagnostic::new(&codes::CONFLICTING_FIELDS, span, message);
            cx.diags.push(finding.help("set `algorithm: token-bucket`, or remove `burst`"));
            return None;
        }
        (Some(burst), Some(_)) if burst < 1.0 => {
            let message = format!("`burst` {burst} is less than one request, so none would ever pass");
            cx.report(&codes::INVALID_VALUE, config.span_of("burst"), message);
            return None;
        }
        (given, default) => {
            if let Some((first, burst)) = rules.first_mut().zip(given.or(default)) {
                // A limit below one request a period still lets one through at a time.
                first.burst = burst.max(1.0);
            }
        }
    }
    for rule in &mut rules {
        rule.burst = rule.burst.max(1.0);
    }
    let by_policy = config.str("policy") == Some("redis");
    Some(Rules { rules, count_rejected: config.bool_opt("count_rejected").unwrap_or(by_policy) })
}

fn limit_by(config: &Record, cx: &mut Cx<'_>) -> Option<LimitBy> {
    let by = config.str("limit_by").unwrap_or("consumer");
    let mut needed = |name: &str, example: &str| {
        let value = config.str(name).map(str::to_owned);
        if value.is_none() {
            let message = format!("`{name}`: required field missing, as `limit_by` is `{by}`");
            let finding = Diagnostic::new(&codes::MISSING_ALTERNATIVE, config.span_of("limit_by"), message);
            cx.diags.push(finding.help(format!("add `{name}: {example}`")));
        }
        value
    };
    Some(match by {
        "credential" => LimitBy::Credential,
        "ip" => LimitBy::Ip,
        "service" => LimitBy::Service,
        "header" => LimitBy::Header(FieldName::new(&needed("header_name", "X-Api-Client")?)),
        "path" => LimitBy::Path(needed("path", "/search")?),
        _ => LimitBy::Consumer,
    })
}

fn store(config: &Record, cx: &mut Cx<'_>) -> Option<Store> {
    let rate = config.num("sync_rate").unwrap_or(-1.0);
    let synced = rate != -1.0;
    if config.str("policy") != Some("redis") {
        if synced {
            let message = "sync_rate can only be used with the redis policy";
            cx.report(&codes::CONFLICTING_FIELDS, config.span_of("sync_rate"), message);
            return None;
        }
        return Some(Store::Local);
    }
    if synced && rate < LEAST_SYNC {
        let message = format!("`sync_rate` {rate} is neither -1 nor at least {LEAST_SYNC}");
        let finding = Diagnostic::new(&codes::INVALID_VALUE, config.span_of("sync_rate"), message);
        cx.diags.push(finding.help("use -1 to ask Redis at every request, or a number of seconds such as 1"));
        return None;
    }
    let settings = limiting::redis_settings(config, cx)?;
    let sync = synced.then(|| cx.shared.get::<SyncStores>().get(&settings, (rate * 1000.0).round() as u64));
    Some(Store::Redis { settings, sync })
}

#[cfg(test)]
mod tests;
