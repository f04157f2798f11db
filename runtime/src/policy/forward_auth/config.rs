//! The settings of `forward-auth`.

use std::sync::Arc;
use std::time::Duration;

use super::{Contract, ForwardAuth, Memory, lambda};
use crate::diag::codes;
use crate::message::FieldName;
use crate::model::schema::{Field, HEADER, Kind, MILLIS, Record, Rule, TEXT};
use crate::policy::Cx;
use crate::policy::call::{CallTo, Transport};
use crate::policy::identity::{self, ANONYMOUS, Anonymous};
use crate::policy::verdicts::Stores;

/// See the plugin's documentation.
pub const FIELDS: &[Field] = &[
    Field::new("contract", Kind::Enum(&["traefik", "envoy", "aws-lambda"]), "How the server is spoken to.")
        .default("\"traefik\""),
    Field::new("url", Kind::Str(Rule::Url), "Where the server is. Either this or `service` is given."),
    Field::new(
        "service",
        Kind::Ref("services"),
        "A service of the config, with its targets, TLS settings and health checks, that is the server.",
    ),
    Field::new("path", Kind::Str(Rule::Path), "The path at `service`.").default("\"/\""),
    Field::new(
        "timeout",
        MILLIS,
        "How long the server may take, in milliseconds; requests that wait for the same answer wait as long.",
    )
    .default("5000"),
    Field::new(
        "request_headers",
        Kind::Set(&HEADER),
        "Headers of the client that the server gets. Without this setting: all with `traefik`, `Authorization` alone \
         with `envoy`. `aws-lambda` gets all.",
    ),
    Field::new(
        "response_headers",
        Kind::Set(&HEADER),
        "Headers of the server's consent that the upstream gets, in place of the client's.",
    ),
    Field::new(
        "client_headers",
        Kind::Set(&HEADER),
        "Headers of the server's consent that the client gets with its answer, for example `Set-Cookie`.",
    ),
    Field::new(
        "consumer_header",
        HEADER,
        "The header of the server's consent that has a consumer's username or id, who is then the caller. Where there is \
         no such consumer the request is refused with 401.",
    ),
    Field::new(
        "with_body",
        Kind::Record(&[Field::new(
            "max_bytes",
            Kind::Int { min: 0, max: 16_777_216 },
            "The longest body, in bytes; longer ones are answered 413. With 0 the server does not get bodies.",
        )
        .default("0")]),
        "Whether the server gets the client's body, too.",
    ),
    Field::new(
        "cache",
        Kind::Record(&[
            Field::new("ttl", Kind::Num { min: 0.0, max: 3600.0 }, "Seconds that a consent is remembered; 0 for never.")
                .default("0"),
            Field::new(
                "negative_ttl",
                Kind::Num { min: 0.0, max: 3600.0 },
                "Seconds that a refusal is remembered. `aws-lambda` remembers all answers for `ttl`.",
            )
            .default("0"),
            Field::new(
                "by",
                Kind::Set(&HEADER),
                "Headers that an answer is remembered by. A request that has none of them is always asked about.",
            )
            .default("[\"Authorization\"]"),
            Field::new(
                "per",
                Kind::Enum(&["request", "caller"]),
                "Whether method, host, path and query count too, or an answer holds for all that the caller asks.",
            )
            .default("\"request\""),
        ]),
        "What is remembered of the server's answers.",
    ),
    Field::new(
        "identity_sources",
        Kind::List(&TEXT),
        "What tells callers apart, for `aws-lambda`: `$request.header.NAME`, `$request.querystring.NAME`, \
         `$context.routeKey`, `$context.identity.sourceIp`. All must be there.",
    )
    .default("[\"$request.header.Authorization\"]"),
    Field::new(
        "aws",
        Kind::Record(lambda::FIELDS),
        "What the event of `aws-lambda` says of the API, and route ARNs are made of.",
    ),
    Field::new(
        "claims_to_headers",
        Kind::Map(&HEADER),
        "Members of an authorizer's `context` to hand to the upstream, for `aws-lambda`: name to request header.",
    ),
    Field::new(
        "status_on_error",
        Kind::Int { min: 400, max: 599 },
        "The answer where the server cannot be asked or says nothing that can be understood.",
    )
    .default("503"),
    ANONYMOUS,
    Field::new("run_on_preflight", Kind::Bool, "Whether `OPTIONS` requests are asked about too.").default("true"),
];

pub fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<ForwardAuth> {
    if !cx.exactly_one_of(config, &["url", "service"]) {
        return None;
    }
    let timeout =
        Duration::from_millis(config.int("timeout").and_then(|n| u64::try_from(n).ok()).unwrap_or(5000));
    let (to, path) = server(config, timeout, cx)?;
    let contract = match config.str("contract") {
        Some("envoy") => Contract::Envoy,
        Some("aws-lambda") => Contract::Lambda(lambda::Settings::of(config, cx)?),
        _ => Contract::Traefik,
    };
    let headers =
        |name: &str| -> Vec<FieldName> { config.strings(name).iter().map(|n| FieldName::new(n)).collect() };
    let body_max = config.record("with_body").and_then(|r| r.int("max_bytes")).filter(|n| *n > 0);
    Some(ForwardAuth {
        memory: memory(config, cx),
        to,
        path,
        contract,
        timeout,
        request_headers: config.get("request_headers").map(|_| headers("request_headers")),
        response_headers: headers("response_headers"),
        client_headers: headers("client_headers"),
        claims_to_headers: identity::claim_headers(config, "claims_to_headers"),
        consumer_header: config.str("consumer_header").map(FieldName::new),
        body_max: body_max.and_then(|n| usize::try_from(n).ok()),
        status_on_error: config.int("status_on_error").and_then(|n| u16::try_from(n).ok()).unwrap_or(503),
        anonymous: Anonymous::of(config),
        on_preflight: config.bool_opt("run_on_preflight").unwrap_or(true),
    })
}

fn server(config: &Record, timeout: Duration, cx: &mut Cx<'_>) -> Option<(CallTo, String)> {
    if let Some(name) = config.str("service") {
        let Some(to) = CallTo::service(cx.model, name) else {
            let message = format!("there is no service `{name}`");
            cx.report(&codes::DANGLING_REFERENCE, config.span_of("service"), message);
            return None;
        };
        return Some((to, config.str("path").unwrap_or("/").to_owned()));
    }
    let endpoint = match Transport::new(cx, true, timeout) {
        Ok(transport) => transport.endpoint(config.str("url").unwrap_or_default()),
        Err(e) => {
            cx.report(&codes::INVALID_VALUE, config.span, format!("`gateway.tls.upstream_ca`: {e}"));
            return None;
        }
    };
    match endpoint {
        Ok(endpoint) => {
            let path = endpoint.path.clone();
            Some((CallTo::Endpoint(Arc::new(endpoint)), path))
        }
        Err(problem) => {
            cx.report(&codes::INVALID_VALUE, config.span_of("url"), format!("`url`: {problem}"));
            None
        }
    }
}

fn memory(
    config: &Record,
    cx: &mut Cx<'_>,
) -> Option<(Memory, Arc<crate::policy::verdicts::Verdicts<super::Verdict>>)> {
    let cache = config.record("cache")?;
    let seconds = |name| Duration::from_secs_f64(cache.num(name).unwrap_or(0.0));
    let memory = Memory {
        ttl: seconds("ttl"),
        negative_ttl: seconds("negative_ttl"),
        by: cache.strings("by").iter().map(|n| FieldName::new(n)).collect(),
        per_request: cache.str("per") != Some("caller"),
    };
    if memory.ttl.is_zero() && memory.negative_ttl.is_zero() {
        return None;
    }
    // Each plugin entry remembers for itself, over reloads that do not change it.
    let settings = format!("{} {:?}", cx.plugin.id, values(config));
    Some((memory, cx.shared.get::<Stores<super::Verdict>>().get(&settings)))
}

/// The config's values without their places, which change with any edit of the file.
fn values(config: &Record) -> Vec<String> {
    fn value(v: &crate::model::schema::Val) -> String {
        use crate::model::schema::Val;
        match v {
            Val::List(items) => format!("{:?}", items.iter().map(|i| value(&i.value)).collect::<Vec<_>>()),
            Val::Map(entries) => {
                format!("{:?}", entries.iter().map(|(n, v)| (&n.value, value(&v.value))).collect::<Vec<_>>())
            }
            Val::Record(record) => format!("{:?}", values(record)),
            plain => format!("{plain:?}"),
        }
    }
    config.fields.iter().map(|f| format!("{}={}", f.name, value(&f.value.value))).collect()
}
