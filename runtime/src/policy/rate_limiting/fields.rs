//! The fields of `rate-limiting` and its documentation.

use crate::model::redis::REDIS;
use crate::model::schema::{Field, HEADER, Kind, Rule as Text, STR};
use crate::policy::Descriptor;
use crate::policy::limiting::AMOUNT;
use crate::policy::redis_settings::LEGACY;

pub(super) static PLUGIN: Descriptor = Descriptor {
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
Several limits, each with a name, key and algorithm of its own:
```yaml
plugins:
  - name: rate-limiting
    config:
      warn_at: 80
      limits:
        - { name: burst, limit: 10, period: second, algorithm: token-bucket, burst: 20 }
        - { name: daily, limit: 1000, period: day, time_zone: Europe/Berlin }
        - { name: per-address, limit: 300, period: minute, by: [ip] }
        - { name: tokens, limit: 100000, period: day, by: [\"claim:tenant\"], cost_header: X-Tokens-Used }
```

## Behaviour
A refused request is answered with 429 (`error_code`) and `error_message`, and never reaches the upstream.

Counters belong to what the plugin is attached to: a plugin of a route counts that route's requests, a plugin of a
service those of all its routes together, a global plugin those of all services. Who has no consumer (credential,
header, ...) is counted by address.

**Headers.** Every response says `X-RateLimit-Limit-Minute` and `X-RateLimit-Remaining-Minute` (and so on for each
period), and of the period that has the least left `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` in
seconds; a refusal also says `Retry-After`. `hide_client_headers` leaves them all out. `ietf_headers` adds
`RateLimit-Policy` and `RateLimit` (structured fields of the IETF's draft). `Retry-After` is rounded up and honest: who
waits that long and comes alone gets through. `warn_at: 80` adds `X-RateLimit-Warning: \"minute\";used=80` to responses from the
moment that 80 % of a limit is used; the log's `limits` and the metric `gw_rate_limit_total` say so, too.

**Problem documents.** Who accepts `application/problem+json` (or everybody, with `problem_details`) is refused with one
(RFC 9457): type `https://iana.org/assignments/http-problem-types#quota-exceeded`, and the names of the limits in
`violated-policies`.

**Several limits.** `limits` add to those of Kong's fields; a request must fit all. Under one key they are decided on in one
step. Under several keys the local store does the same; in Redis all are asked at once, and where one refuses the others
are given back what they charged. Headers call a limit by its name: `X-RateLimit-Limit-burst`.

**Weights.** A request counts as `weight` requests, or as `weight_header` of the request says. With `cost_header` a limit
admits while anything is left, and charges what the response says it cost, else `weight`; answers of the gateway itself cost
nothing. A request that weighs more than a whole limit never passes, and is told no `Retry-After`.

**Calendars.** Days, weeks, months and years of a `fixed-window` are those of UTC or of `time_zone`: on days when clocks
change they have 23 or 25 hours. The zones come with gw, so a config means the same everywhere.

**Waiting.** With `delay` a request that a bucket would refuse waits instead, if its turn comes within so many
milliseconds and no more than `delay_waiters` wait already. Turns are kept in order.

**Trying out.** With `dry_run` (of the plugin or of one limit) a limit counts what it would admit, and what it would refuse is
in the log and in the metric; no header and no answer tells.

**Where counters live.** `policy: local` counts in this process, exactly, across all its workers and over reloads; each
gateway counts for itself. A restart starts anew, unless `gateway.counter_file` names a file: there the counters of limits of
a day or longer are written once a second, so a crash forgets at most the last second. Memory is bounded to about a million
keys, of 300 bytes and 32 for each limit after the first; when they are used up, that key goes which has used the least of its limits, so a flood of keys
resets nobody who is near a limit. `policy: redis` counts in Redis (7 or newer) or Valkey: check and count are one step there, by the clock of Redis,
so all gateways together admit the limit exactly. With a `sync_rate` of s seconds, requests no longer wait for Redis: each
gateway counts for itself and settles every s seconds; N gateways may then admit up to
`2 × (N − 1) × rate × s` more than the limit. A refusal that must stay true until a known time (a window that is used up, a
bucket that must drain first) is remembered for so long, a minute at most, so that a flood of refused requests does not reach
Redis.

`policy: hybrid` takes requests from Redis in advance, as many as the present rate needs for a quarter of a second but at most
`lease_share` percent of the least limit (or burst), called b here; the process then admits them by itself, all its workers
together. What is not used within a second, or by the end of the window, is given back. Calendar windows never admit more
than their limit; with N gateways up to `N × b` requests of it may lie unused for up to a second. A sliding window or a
bucket admits in any stretch of time up to `N × b` more than it would with `redis`. `gw validate` says how many b is. Keys
that are decided on together, `delay` and `cost_header` ask Redis every time. Refused requests do not count.

**When Redis is away.** No request waits longer than `redis.max_wait`. A Redis that does not answer within that time counts as
down: no further request waits for it, and in the background it is asked, by one probe at a time and at the latest every
second, until it answers quickly enough again. `on_store_error` says what happens meanwhile: `allow` lets requests pass without
headers (as `fault_tolerant: true` does), `deny` answers 503 with `Retry-After`, `local` counts in this process until Redis
is back. Without `on_store_error` it is `fault_tolerant` that decides; false answers 500, as Kong does.

**Several servers.** `redis.cluster_nodes` names nodes of a Redis Cluster, from which the others are learnt; all counters of
a caller are one key, and they stay exact while its slot moves from node to node. `redis.sentinel_master` and `redis.sentinel_nodes` name a master that sentinels watch; after a
failover the new one is found within a second or two. A new master knows only what was replicated to it before, so what
was counted in that moment may be lost. Each worker has one connection to each server, and what its requests ask in one turn
of its event loop goes out together.

**Algorithms.** `fixed-window` is Kong's: calendar windows in UTC; up to twice the limit may pass around the edge of one.
`sliding-window` weighs in what is left of the last window. `token-bucket` lets `burst` requests through at once and then
as many as the limit's rate gives: in any time t no more than `burst + rate × t` (with `policy: local`, whose clock ticks in ms, `rate × (t + 1 ms)`). `smooth` is a token bucket with a burst
of 1: evenly spaced. `burst` applies to the shortest period; longer ones have their limit as burst.

Refused requests do not count with `local` and do count with `redis`, as in Kong; `count_rejected` says otherwise.
",
    fields: &FIELDS,
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

const OWN: [Field; 31] = [
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
        Kind::Enum(&["local", "redis", "hybrid"]),
        "Where counters live. Kong's `cluster` needs a database, so it does not exist here; `hybrid` is gw's own.",
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
    LEASE_SHARE,
    Field::new("redis", Kind::Record(REDIS), "Where Redis is.").default("{}"),
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
        "limits",
        Kind::List(&Kind::Record(LIMIT)),
        "Further limits, each with a name, and by default counted by consumer.",
    )
    .extension(),
    Field::new(
        "ipv6_prefix",
        Kind::Int { min: 1, max: 128 },
        "How many bits of an IPv6 address count as one client: 64 in `limits`, and with Kong's `limit_by` all 128.",
    )
    .extension(),
    Field::new(
        "delay",
        Kind::Int { min: 1, max: 60_000 },
        "Milliseconds that a request may wait for its turn instead of being refused; for `token-bucket` and `smooth`.",
    )
    .extension(),
    Field::new(
        "delay_waiters",
        Kind::Int { min: 1, max: 100_000 },
        "How many requests may wait at once; beyond that none waits.",
    )
    .default("100")
    .extension(),
    Field::new("dry_run", Kind::Bool, "Whether all limits only count, log and measure, and refuse nothing.")
        .default("false")
        .extension(),
    Field::new(
        "problem_details",
        Kind::Bool,
        "Whether a refusal is always a problem document (RFC 9457); else only for who accepts `application/problem+json`.",
    )
    .default("false")
    .extension(),
    WEIGHT[0],
    WEIGHT[1],
    Field::new(
        "count_rejected",
        Kind::Bool,
        "Whether refused requests count. By default they do with `redis` and do not with `local` and `hybrid`.",
    )
    .extension(),
];

/// How much `policy: hybrid` may hold.
const LEASE_SHARE: Field = Field::new(
    "lease_share",
    Kind::Num { min: f64::MIN_POSITIVE, max: 100.0 },
    "With `hybrid`: percent of the least limit (or burst) that one gateway may hold in advance, but at least one request.",
)
.default("5")
.extension();

/// What a request or a limit may say about weights.
const WEIGHT: [Field; 3] = [
    Field::new(
        "weight",
        Kind::Int { min: 1, max: MAX_WEIGHT },
        "How many requests a request counts as.",
    )
    .extension(),
    Field::new(
        "weight_header",
        HEADER,
        "Request header whose number is the weight instead, from 1 to 1000000; set it only where clients cannot.",
    )
    .extension(),
    Field::new(
        "cost_header",
        HEADER,
        "Response header in which the upstream says what the request cost; charged afterwards, and removed.",
    )
    .extension(),
];

/// The most that a request may weigh.
pub(super) const MAX_WEIGHT: i64 = 1_000_000;

/// One of `limits`.
const LIMIT: &[Field] = &[
    Field::new(
        "name",
        STR,
        "Its name in headers, logs, metrics and `gw usage`: letters, digits, `-`, `_`, `.`; unique.",
    )
    .required()
    .extension(),
    Field::new("limit", AMOUNT, "How many requests.").required().extension(),
    Field::new(
        "period",
        Kind::Enum(&["second", "minute", "hour", "day", "week", "month", "year"]),
        "In which time.",
    )
    .required()
    .extension(),
    Field::new(
        "by",
        Kind::List(&STR),
        "Whose requests count together: `consumer`, `credential`, `ip`, `service`, `route`, `upstream`, `path`, `header:NAME`, \
         `claim:NAME`, or several of them. Who has none of it is counted by address.",
    )
    .default("[\"consumer\"]")
    .extension(),
    Field::new(
        "algorithm",
        Kind::Enum(&["fixed-window", "sliding-window", "token-bucket", "smooth"]),
        "How requests are counted; without it as the plugin's `algorithm` says.",
    )
    .extension(),
    Field::new("burst", AMOUNT, "As the plugin's `burst`, for this limit.").extension(),
    Field::new(
        "time_zone",
        STR,
        "IANA name of the zone whose days, weeks, months and years are meant, such as `Europe/Berlin`; without it UTC.",
    )
    .extension(),
    Field::new(
        "week_start",
        Kind::Enum(&["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]),
        "The first day of a week.",
    )
    .default("\"monday\"")
    .extension(),
    WEIGHT[0],
    WEIGHT[1],
    WEIGHT[2],
    Field::new("dry_run", Kind::Bool, "Whether this limit only counts, logs and measures.")
        .default("false")
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
