//! `upstreams` and `targets`: hosts that requests are balanced over, and how their health is known.

use crate::diag::{Diagnostic, codes};
use crate::model::lower::{Lower, Parent, id_or, required};
use crate::model::rules;
use crate::model::schema::{Field, HEADER, Kind, Record, RecordField, Rule, TEXT, Val, entity_fields};
use crate::model::{Target, Upstream, ids};
use crate::source::Spanned;
use crate::yaml::Node;

const ALGORITHMS: &[&str] = &["consistent-hashing", "latency", "least-connections", "round-robin"];
const HASH_INPUTS: &[&str] =
    &["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"];
const CHECK_TYPES: &[&str] = &["tcp", "http", "https", "grpc", "grpcs"];
const SECONDS: Kind = Kind::Num { min: 0.0, max: 65535.0 };
const COUNT: Kind = Kind::Int { min: 0, max: 255 };
const MANY: Kind = Kind::Int { min: 0, max: 1_000_000 };
const STATUSES: Kind = Kind::List(&Kind::Int { min: 100, max: 999 });

const ACTIVE: &[Field] = &[
    Field::new("type", Kind::Enum(CHECK_TYPES), "What a probe is.").default("\"http\""),
    Field::new("timeout", SECONDS, "Seconds until a probe counts as timed out.").default("1"),
    Field::new("concurrency", Kind::Int { min: 1, max: 2_147_483_648 }, "Probes at the same time.")
        .default("10"),
    Field::new("http_path", Kind::Str(Rule::Path), "The path that probes ask for.").default("\"/\""),
    Field::new("https_sni", TEXT, "The server name of probes over TLS; the target's own by default."),
    Field::new("https_verify_certificate", Kind::Bool, "Whether probes verify the certificate.")
        .default("true"),
    Field::new("headers", Kind::Map(&Kind::List(&TEXT)), "Headers that probes carry."),
    Field::new(
        "healthy",
        Kind::Record(&[
            Field::new("interval", SECONDS, "Seconds between probes of healthy targets; 0 is no probes.")
                .default("0"),
            Field::new("http_statuses", STATUSES, "Statuses that count as a success.").default("[200,302]"),
            Field::new("successes", COUNT, "Successes in a row that make a target healthy; 0 is never.")
                .default("0"),
        ]),
        "What makes a target healthy.",
    )
    .default("{}"),
    Field::new(
        "unhealthy",
        Kind::Record(&[
            Field::new("interval", SECONDS, "Seconds between probes of unhealthy targets; 0 is no probes.")
                .default("0"),
            Field::new("http_statuses", STATUSES, "Statuses that count as a failure.")
                .default("[429,404,500,501,502,503,504,505]"),
            Field::new(
                "tcp_failures",
                COUNT,
                "Failed connections in a row that make a target unhealthy; 0 is never.",
            )
            .default("0"),
            Field::new("timeouts", COUNT, "Timeouts in a row that make a target unhealthy; 0 is never.")
                .default("0"),
            Field::new("http_failures", COUNT, "Failures in a row that make a target unhealthy; 0 is never.")
                .default("0"),
        ]),
        "What makes a target unhealthy.",
    )
    .default("{}"),
];

const PASSIVE: &[Field] = &[
    Field::new("type", Kind::Enum(CHECK_TYPES), "What is watched.").default("\"http\""),
    Field::new(
        "recover_after",
        SECONDS,
        "Where no probes can put a target back: seconds until one request tries it, doubled after each that fails; 0 is \
         never, as in Kong.",
    )
    .default("10")
    .extension(),
    Field::new(
        "healthy",
        Kind::Record(&[
            Field::new("http_statuses", STATUSES, "Statuses of real responses that count as a success.")
                .default("[200,201,202,203,204,205,206,207,208,226,300,301,302,303,304,305,306,307,308]"),
            Field::new("successes", COUNT, "Successes in a row that make a target healthy; 0 is never.")
                .default("0"),
        ]),
        "What makes a target healthy.",
    )
    .default("{}"),
    Field::new(
        "unhealthy",
        Kind::Record(&[
            Field::new("http_statuses", STATUSES, "Statuses of real responses that count as a failure.")
                .default("[429,500,503]"),
            Field::new(
                "tcp_failures",
                COUNT,
                "Failed connections in a row that make a target unhealthy; 0 is never.",
            )
            .default("0"),
            Field::new("timeouts", COUNT, "Timeouts in a row that make a target unhealthy; 0 is never.")
                .default("0"),
            Field::new("http_failures", COUNT, "Failures in a row that make a target unhealthy; 0 is never.")
                .default("0"),
        ]),
        "What makes a target unhealthy.",
    )
    .default("{}"),
];

const OUTLIER: &[Field] = &[
    Field::new(
        "consecutive_errors",
        MANY,
        "Gateway errors in a row that eject a target: it cannot be reached, does not answer, or answers 502, 503 or \
         504, or a gRPC call with UNAVAILABLE and no message. 0 is never.",
    )
    .default("5"),
    Field::new(
        "success_rate_deviations",
        Kind::Num { min: 0.0, max: 100.0 },
        "A target is ejected whose share of answers below 500 is lower than the mean of all targets by more than so \
         many standard deviations. 0 is never.",
    )
    .default("1.9"),
    Field::new("success_rate_targets", MANY, "Targets with enough answers that it takes to compare their rates.")
        .default("5"),
    Field::new(
        "success_rate_requests",
        MANY,
        "Answers within `interval` that make a target's rate worth comparing.",
    )
    .default("100"),
    Field::new("interval", SECONDS, "Seconds over which rates are taken.").default("10"),
    Field::new(
        "time",
        SECONDS,
        "Seconds of the first ejection; each further one is longer by as much, and good conduct of as long takes one \
         back.",
    )
    .default("30"),
    Field::new("max_time", SECONDS, "Seconds of the longest ejection.").default("300"),
    Field::new(
        "max_percent",
        Kind::Int { min: 0, max: 100 },
        "Percentage of the targets that may be ejected at the same time; one may be in any case, the last never.",
    )
    .default("10"),
];

const BREAKER: &[Field] = &[
    Field::new("max_requests", MANY, "Requests in flight at all targets, of all workers; 0 is no bound.")
        .default("0"),
    Field::new(
        "max_connections",
        MANY,
        "Connections in use at any one target, of all workers, idle ones not counted; a gRPC call counts as one. 0 is no \
         bound.",
    )
    .default("0"),
    Field::new(
        "max_pending",
        MANY,
        "Requests that wait for room; 0 is none, so that a request too many is answered 503 at once.",
    )
    .default("0"),
    Field::new("pending_timeout", SECONDS, "Seconds that a request waits for room, before it is answered 503.")
        .default("1"),
];

/// The fields of an upstream.
pub const FIELDS: &[Field] = entity_fields![
    Field::new(
        "name",
        TEXT,
        "A host name without port, unique; a service whose `host` it is is balanced over the targets."
    )
    .required(),
    Field::new("algorithm", Kind::Enum(ALGORITHMS), "How a target is picked. `hash_on` sets it.")
        .default("\"round-robin\""),
    Field::new(
        "hash_on",
        Kind::Enum(HASH_INPUTS),
        "What of a request is hashed; anything but none makes the algorithm consistent-hashing."
    )
    .default("\"none\""),
    Field::new("hash_fallback", Kind::Enum(HASH_INPUTS), "What is hashed where `hash_on` finds nothing.")
        .default("\"none\""),
    Field::new("hash_on_header", HEADER, "The header to hash."),
    Field::new("hash_fallback_header", HEADER, "The header to hash in the second place."),
    Field::new("hash_on_cookie", TEXT, "The cookie to hash; it is set where a client has none."),
    Field::new("hash_on_cookie_path", Kind::Str(Rule::Path), "The path of the cookie that is set.")
        .default("\"/\""),
    Field::new("hash_on_query_arg", TEXT, "The query argument to hash."),
    Field::new("hash_fallback_query_arg", TEXT, "The query argument to hash in the second place."),
    Field::new("hash_on_uri_capture", TEXT, "The group of the route's regex path to hash."),
    Field::new(
        "hash_fallback_uri_capture",
        TEXT,
        "The group of the route's regex path to hash in the second place."
    ),
    Field::new("slots", Kind::Int { min: 10, max: 65536 }, "Size of the hash ring.").default("10000"),
    Field::new("host_header", Kind::Str(Rule::HostPort), "The Host that targets get."),
    Field::new(
        "client_certificate",
        Kind::Ref("certificates"),
        "The certificate that is shown to targets, by id."
    ),
    Field::new("use_srv_name", Kind::Bool, "Whether the Host is the name that an SRV record gives.")
        .default("false"),
    Field::new(
        "healthchecks",
        Kind::Record(&[
            Field::new("active", Kind::Record(ACTIVE), "Probes.").default("{}"),
            Field::new("passive", Kind::Record(PASSIVE), "What real responses tell.").default("{}"),
            Field::new(
                "threshold",
                Kind::Num { min: 0.0, max: 100.0 },
                "Percentage of weight that must be healthy, else the upstream answers 503."
            )
            .default("0"),
        ]),
        "How the health of targets is known."
    )
    .default("{}"),
    Field::new(
        "slow_start",
        SECONDS,
        "Seconds over which the weight of a target ramps up that is new or was out, from a tenth; 0 is no ramp."
    )
    .default("0")
    .extension(),
    Field::new(
        "outlier_ejection",
        Kind::Record(OUTLIER),
        "Lets a target alone for a while whose answers are worse than those of the others. Without it none is."
    )
    .extension(),
    Field::new(
        "circuit_breaker",
        Kind::Record(BREAKER),
        "Bounds on what the upstream gets at the same time; what is beyond them is answered 503."
    )
    .extension(),
    Field::new(
        "retry_after_max",
        SECONDS,
        "A target that answers 429 or 503 with `Retry-After` is let alone for as long, but no longer than so many \
         seconds, as long as there are others. 0 is never: `Retry-After` may speak to one client alone."
    )
    .default("0")
    .extension(),
];

/// Lists that may stand in an upstream.
pub const NESTED: &[&str] = &["targets"];

/// The fields of a target.
pub const TARGET_FIELDS: &[Field] = entity_fields![
    Field::new("upstream", Kind::Ref("upstreams"), "The upstream that the target belongs to, by name or id."),
    Field::new(
        "target",
        Kind::Str(Rule::Target),
        "Host name or IP address, with a port; without one it is 8000. Or a Unix socket: `unix:/run/app.sock`."
    )
    .required(),
    Field::new(
        "weight",
        Kind::Int { min: 0, max: 65535 },
        "Its share of requests relative to the other targets; 0 is none."
    )
    .default("100"),
];

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>) {
    let mut read = cx.reader.entity(node, FIELDS, NESTED, "an upstream");
    let record = &mut read.record;
    let name = required(record, "name");
    if !name.is_empty() {
        let shown = cx.model.shown(&name).to_owned();
        let message = if name.parse::<std::net::IpAddr>().is_ok() {
            Some("no ip addresses allowed")
        } else if rules::split_host_port(&name).is_some_and(|(_, port)| port.is_some()) {
            Some("no port allowed")
        } else if !rules::is_hostname(&name) {
            Some("must be a valid hostname")
        } else {
            None
        };
        if let Some(message) = message {
            let message = format!("`name`: Invalid name (`{shown}`); {message}");
            cx.report(Diagnostic::new(&codes::INVALID_VALUE, name.span, message));
        }
    }
    hash_checks(cx, record);
    settle_algorithm(record);
    let id = id_or(record, || ids::derive("upstreams", &name));
    cx.note_unreadable("upstreams", node, "name", name.is_empty());
    cx.model.upstreams.push(Upstream { span: node.head(), id, name, record: read.record });
    cx.children(read.children, Parent::Upstream(cx.model.upstreams.len() - 1));
}

/// As Kong: `hash_on` decides the algorithm, unless the algorithm has no use for a hash.
fn settle_algorithm(record: &mut Record) {
    let algorithm = record.str("algorithm").unwrap_or("round-robin").to_owned();
    if record.given("algorithm") && matches!(algorithm.as_str(), "least-connections" | "latency") {
        set(record, "hash_on", "none");
    } else if record.given("hash_on") {
        let hashed = record.str("hash_on") != Some("none");
        set(record, "algorithm", if hashed { "consistent-hashing" } else { "round-robin" });
    }
}

fn set(record: &mut Record, name: &'static str, value: &str) {
    let value = Val::Str(value.to_owned());
    match record.fields.iter_mut().find(|f| f.name == name) {
        Some(field) => field.value.value = value,
        None => {
            let value = Spanned::new(value, record.span);
            record.fields.push(RecordField { name, key: record.span, value, given: false });
        }
    }
}

fn hash_checks(cx: &mut Lower<'_, '_, '_>, record: &Record) {
    let on = record.str("hash_on").unwrap_or("none");
    let fallback = record.str("hash_fallback").unwrap_or("none");
    let mut needs = |selector: &str, value: &str, wanted: &str, field: &str| {
        if value == wanted && record.get(field).is_none() {
            let message = format!("required field missing: `{field}`");
            let diagnostic = Diagnostic::new(&codes::MISSING_FIELD, record.span_of(selector), message);
            cx.report(diagnostic.label(format!("`{selector}: {value}` needs `{field}`")));
        }
    };
    for (wanted, field, fallback_field) in [
        ("header", "hash_on_header", "hash_fallback_header"),
        ("cookie", "hash_on_cookie", "hash_on_cookie"),
        ("query_arg", "hash_on_query_arg", "hash_fallback_query_arg"),
        ("uri_capture", "hash_on_uri_capture", "hash_fallback_uri_capture"),
    ] {
        needs("hash_on", on, wanted, field);
        needs("hash_fallback", fallback, wanted, fallback_field);
    }
    let same = |a: &str, b: &str| record.str(a).is_some() && record.str(a) == record.str(b);
    for (a, b) in [
        ("hash_on_header", "hash_fallback_header"),
        ("hash_on_query_arg", "hash_fallback_query_arg"),
        ("hash_on_uri_capture", "hash_fallback_uri_capture"),
    ] {
        if same(a, b) {
            let message = format!("values of these fields must be distinct: '{a}', '{b}'");
            cx.report(Diagnostic::new(&codes::CONFLICTING_FIELDS, record.span_of(b), message));
        }
    }
    let has_no_fallback = matches!(on, "none" | "cookie");
    let falls_on_itself = matches!(on, "consumer" | "ip" | "path") && fallback == on;
    if (has_no_fallback && fallback != "none") || falls_on_itself {
        let allowed: Vec<_> = HASH_INPUTS
            .iter()
            .filter(|i| if has_no_fallback { **i == "none" } else { **i != on })
            .copied()
            .collect();
        let message = format!(
            "`hash_fallback`: expected one of: {} (failed conditional validation given value of field 'hash_on')",
            allowed.join(", ")
        );
        let diagnostic =
            Diagnostic::new(&codes::CONFLICTING_FIELDS, record.span_of("hash_fallback"), message);
        cx.report(diagnostic.also(record.span_of("hash_on"), format!("`hash_on` is `{on}`")));
    }
}

pub(in crate::model) fn lower_target(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, parent: Parent) {
    let record = cx.reader.record(node, TARGET_FIELDS, "a target");
    let upstream = cx.reference(&record, "upstream", parent.upstream());
    if upstream.is_none() && node.get("upstream").is_none_or(Node::is_null) && !node.entries().is_empty() {
        let message = "required field missing: `upstream`";
        cx.report(
            Diagnostic::new(&codes::MISSING_FIELD, node.head(), message)
                .help("name the upstream that the target belongs to"),
        );
    }
    let target = required(&record, "target");
    let (host, port) = match rules::is_socket(&target) {
        true => (target.as_str(), Some(0)),
        false => rules::split_host_port(&target).unwrap_or((target.as_str(), None)),
    };
    let host = Spanned::new(host.trim_matches(['[', ']']).to_owned(), target.span);
    let id = id_or(&record, || {
        ids::derive_cached("targets", &[&cx.key_part(upstream.as_ref(), "upstream"), &target])
    });
    cx.model.targets.push(Target {
        span: node.head(),
        id,
        upstream,
        host,
        port: port.unwrap_or(8000),
        weight: record.int("weight").and_then(|n| u32::try_from(n).ok()).unwrap_or(100),
    });
}
