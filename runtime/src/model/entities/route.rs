//! `routes`: which requests go to which service.

use crate::diag::{Diagnostic, codes};
use crate::model::lower::{Lower, Parent, id_or};
use crate::model::schema::{Field, Kind, PORT, Record, Rule, STR, TEXT, Val, entity_fields};
use crate::model::{Route, ids, paths};
use crate::source::Spanned;
use crate::yaml::{Node, Value};

const PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];

const ENDPOINT: Kind = Kind::Record(&[
    Field::new("ip", Kind::Str(Rule::IpOrCidr), "An address or a CIDR range."),
    Field::new("port", PORT, "A port."),
]);

/// The fields of a route.
pub const FIELDS: &[Field] = entity_fields![
    Field::new("name", Kind::Str(Rule::Name), "The route's name, unique. Without one there is nothing to derive a lasting id from."),
    Field::new("service", Kind::Ref("services"), "The service that matching requests go to, by name or id. Without one a plugin must answer."),
    Field::new("protocols", Kind::Set(&Kind::Enum(PROTOCOLS)), "The protocols that are accepted. They do not take part in matching: an https-only route answers plain requests with `https_redirect_status_code`.").default("[\"http\",\"https\"]"),
    Field::new("methods", Kind::Set(&Kind::Str(Rule::Method)), "The methods that match, in capital letters; none is all."),
    Field::new("hosts", Kind::List(&Kind::Str(Rule::RouteHost)), "The hosts that match: names, `*.name`, `name.*`, each with an optional port."),
    Field::new("paths", Kind::List(&Kind::Str(Rule::RoutePath)), "The paths that match: `/prefix`, byte by byte, or `~/regex`, anchored at its start."),
    Field::new("headers", Kind::Map(&Kind::List(&STR)), "Headers that must be there, each with one of its values; `~*regex` is a pattern, found anywhere in the header in any case."),
    Field::new("snis", Kind::Set(&Kind::Str(Rule::Sni)), "The server names of TLS connections that match."),
    Field::new("sources", Kind::Set(&ENDPOINT), "Where connections come from; for stream protocols."),
    Field::new("destinations", Kind::Set(&ENDPOINT), "Where connections go to; for stream protocols."),
    Field::new("regex_priority", Kind::Int { min: i64::MIN, max: i64::MAX }, "Which of several matching routes with a regex path wins: the greater number.").default("0"),
    Field::new("strip_path", Kind::Bool, "Whether the part of the path that matched is taken away before forwarding. The default is true, for gRPC false."),
    Field::new("path_handling", Kind::Enum(&["v0", "v1"]), "How the paths of service and request are joined; v1 has an effect only in the router flavor `traditional`.").default("\"v0\""),
    Field::new("preserve_host", Kind::Bool, "Whether the upstream gets the client's Host instead of its own.").default("false"),
    Field::new("https_redirect_status_code", Kind::Int { min: 0, max: 999 }, "What a plain request to an https-only route is answered with: 426, 301, 302, 307 or 308.").default("426"),
    Field::new("request_buffering", Kind::Bool, "Whether the request body is read whole before forwarding.").default("true"),
    Field::new("response_buffering", Kind::Bool, "Whether the response body is read whole before it is sent on.").default("true"),
    Field::new("expression", TEXT, "The condition of a route of the router flavor `expressions`, instead of the fields above."),
    Field::new("priority", Kind::Int { min: 0, max: 70_368_744_177_663 }, "Which of several matching expressions wins: the greater number."),
];

/// Lists that may stand in a route.
pub const NESTED: &[&str] = &["plugins"];

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, parent: Parent) {
    let migrated = cx.migrates.then(|| migrate(node));
    let node = migrated.as_ref().unwrap_or(node);
    let read = cx.reader.entity(node, FIELDS, NESTED, "a route");
    let record = &read.record;
    let name = record.spanned_str("name");
    let service = cx.reference(record, "service", parent.service());
    let id = id_or(record, || match &name {
        Some(name) => ids::derive("routes", name),
        None => ids::positional("routes", &cx.key_part(service.as_ref(), "service"), cx.model.routes.len()),
    });
    let protocols = record.strings("protocols");
    let is_grpc = protocols.iter().any(|p| matches!(p.as_str(), "grpc" | "grpcs"));
    let route = Route {
        span: node.head(),
        id,
        name,
        service,
        methods: record.strings("methods"),
        hosts: record.strings("hosts"),
        paths: record.strings("paths").into_iter().map(matched).collect(),
        headers: headers(record),
        snis: record.strings("snis"),
        sources: endpoints(record, "sources"),
        destinations: endpoints(record, "destinations"),
        regex_priority: record.int("regex_priority").unwrap_or(0),
        strip_path: record.bool_opt("strip_path").unwrap_or(!is_grpc),
        preserve_host: record.bool("preserve_host"),
        path_handling_v1: record.str("path_handling") == Some("v1"),
        https_redirect_status_code: record
            .int("https_redirect_status_code")
            .and_then(|n| u16::try_from(n).ok())
            .unwrap_or(426),
        request_buffering: record.bool_opt("request_buffering").unwrap_or(true),
        response_buffering: record.bool_opt("response_buffering").unwrap_or(true),
        expression: record.spanned_str("expression"),
        priority: record.int("priority").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        created_at: record.int("created_at").unwrap_or(0),
        protocols: cx.shared_protocols(protocols, record.get("protocols").is_none_or(|f| f.given)),
    };
    protocol_checks(cx, record, &route);
    field_checks(cx, node, record, &route, &read.misspelt);
    cx.note_unreadable("routes", node, "name", route.name.is_none());
    cx.model.routes.push(route);
    cx.children(read.children, Parent::Route(cx.model.routes.len() - 1));
}

/// A prefix as requests are compared with it: `/a%20b` is `/a b` by then.
fn matched(path: Spanned<String>) -> Spanned<String> {
    match path.strip_prefix('/').filter(|p| p.contains('%')).and_then(|_| paths::matched(&path)) {
        Some(matched) => path.map(|_| matched),
        None => path,
    }
}

/// Paths of format 1.1 and 2.1 had no mark that tells patterns from prefixes.
fn migrate<'a>(node: &Node<'a>) -> Node<'a> {
    let mut node = node.clone();
    if let Value::Mapping(entries) = &mut node.value {
        let paths = entries.iter_mut().filter(|e| e.key == "paths");
        for entry in paths {
            if let Value::Sequence(items) = &mut entry.value.value {
                for item in items {
                    if let Value::Scalar(scalar) = &mut item.value {
                        scalar.text = paths::migrated(&scalar.text).into();
                    }
                }
            }
        }
    }
    node
}

fn headers(record: &Record) -> Vec<(Spanned<String>, Vec<Spanned<String>>)> {
    let texts = |value: &Val| match value {
        Val::List(items) => items
            .iter()
            .filter_map(|v| match &v.value {
                Val::Str(s) => Some(Spanned::new(s.clone(), v.span)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    record.map("headers").iter().map(|(name, values)| (name.clone(), texts(&values.value))).collect()
}

fn endpoints(record: &Record, field: &str) -> Vec<(Option<String>, Option<u16>)> {
    let endpoint =
        |r: &Record| (r.str("ip").map(str::to_owned), r.int("port").and_then(|p| u16::try_from(p).ok()));
    record.records(field).map(endpoint).collect()
}

fn protocol_checks(cx: &mut Lower<'_, '_, '_>, record: &Record, route: &Route) {
    const FAMILIES: &[&[&str]] =
        &[&["http", "https"], &["tcp", "tls", "udp"], &["tls_passthrough"], &["grpc", "grpcs"]];
    let family = |p: &str| FAMILIES.iter().position(|f| f.contains(&p));
    if route.protocols.is_empty() {
        if record.given("protocols") && record.list("protocols").is_empty() {
            let message = "`protocols`: length must be at least 1";
            cx.report(Diagnostic::new(&codes::OUT_OF_RANGE, record.span_of("protocols"), message));
        }
        return;
    }
    let first = &route.protocols[0];
    if let Some(other) = route.protocols.iter().find(|p| family(p) != family(first)) {
        let message = format!("`protocols`: `{}` and `{}` are mutually exclusive", first.value, other.value);
        let diagnostic = Diagnostic::new(&codes::CONFLICTING_FIELDS, other.span, message);
        cx.report(diagnostic.help("a route speaks http and https, or grpc and grpcs; make two routes"));
        return;
    }
    if matches!(family(first), Some(1 | 2)) {
        let message = format!("gw does not route `{}`: it speaks HTTP", first.value);
        cx.report(
            Diagnostic::new(&codes::UNSUPPORTED_PROTOCOL, first.span, message)
                .help("keep this route on a TCP proxy"),
        );
        return;
    }
    let is_grpc = family(first) == Some(3);
    if is_grpc {
        if let Some(methods) = record.get("methods").filter(|_| !route.methods.is_empty()) {
            let message = "`methods`: value must be null for protocols `grpc` and `grpcs`";
            cx.report(Diagnostic::new(&codes::CONFLICTING_FIELDS, methods.key, message));
        }
        if record.given("strip_path") && route.strip_path {
            let message = "`strip_path`: value must be false for protocols `grpc` and `grpcs`";
            cx.report(Diagnostic::new(&codes::CONFLICTING_FIELDS, record.span_of("strip_path"), message));
        }
    }
    let speaks_tls = route.protocols.iter().any(|p| matches!(p.as_str(), "https" | "grpcs"));
    if !speaks_tls && let Some(snis) = record.get("snis").filter(|_| !route.snis.is_empty()) {
        let message = "`snis`: 'snis' can only be set when `protocols` has https or grpcs";
        cx.report(
            Diagnostic::new(&codes::CONFLICTING_FIELDS, snis.key, message)
                .also(first.span, "there is no TLS here"),
        );
    }
    for field in ["sources", "destinations"].iter().filter_map(|f| record.get(f)) {
        let message = format!("`{}`: can only be set when `protocols` has tcp, tls or udp", field.name);
        cx.report(Diagnostic::new(&codes::CONFLICTING_FIELDS, field.key, message));
    }
}

fn field_checks(
    cx: &mut Lower<'_, '_, '_>,
    node: &Node<'_>,
    record: &Record,
    route: &Route,
    misspelt: &[&str],
) {
    let code = record.int("https_redirect_status_code").unwrap_or(426);
    if ![426, 301, 302, 307, 308].contains(&code) {
        let message = "`https_redirect_status_code`: expected one of: 426, 301, 302, 307, 308";
        cx.report(Diagnostic::new(
            &codes::INVALID_VALUE,
            record.span_of("https_redirect_status_code"),
            message,
        ));
    }
    for (name, values) in &route.headers {
        if name.eq_ignore_ascii_case("host") {
            let message =
                "`headers`: cannot contain 'host' header, which must be specified in the 'hosts' attribute";
            cx.report(
                Diagnostic::new(&codes::CONFLICTING_FIELDS, name.span, message)
                    .help("put the value into `hosts`"),
            );
        } else if !crate::model::rules::is_token(name) {
            let message = format!("`headers`: bad header name '{}'", name.value);
            cx.report(Diagnostic::new(&codes::INVALID_VALUE, name.span, message));
        }
        for (value, pattern) in values.iter().filter_map(|v| Some((v, v.strip_prefix("~*")?))) {
            if let Err(broken) = paths::regex(&pattern.to_lowercase(), pattern) {
                let message = format!("`headers`: {}", broken.message);
                cx.report(Diagnostic::new(&codes::INVALID_VALUE, value.span, message));
            }
        }
    }
    let classic: Vec<_> = ["methods", "hosts", "paths", "headers", "snis", "sources", "destinations"]
        .iter()
        .filter_map(|f| record.get(f))
        .filter(|f| f.given)
        .collect();
    if let Some(expression) = &route.expression {
        if let Some(field) = classic.first() {
            let message = format!("`{}` and `expression` exclude each other", field.name);
            let diagnostic = Diagnostic::new(&codes::CONFLICTING_FIELDS, field.key, message);
            cx.report(diagnostic.also(expression.span, "the condition is written here"));
        }
        return;
    }
    if let Some(priority) = record.get("priority").filter(|f| f.given) {
        let message = "`priority` ranks expressions, and this route has none";
        cx.report(
            Diagnostic::new(&codes::CONFLICTING_FIELDS, priority.key, message)
                .help("rank patterns in `paths` with `regex_priority`; other routes rank by what they match"),
        );
    }
    // What was given and is broken has a finding of its own.
    let is_set = |field: &&str| match node.get(field).map(|n| &n.value) {
        Some(Value::Sequence(items)) => !items.is_empty(),
        Some(Value::Mapping(entries)) => !entries.is_empty(),
        Some(Value::Scalar(_)) => node.get(field).is_some_and(|n| !n.is_null()),
        Some(Value::Broken) => true,
        None => false,
    };
    let is_stream =
        route.protocols.iter().any(|p| matches!(p.as_str(), "tcp" | "tls" | "udp" | "tls_passthrough"));
    if is_stream || route.protocols.is_empty() {
        return;
    }
    let is_grpc = route.protocols.iter().any(|p| matches!(p.as_str(), "grpc" | "grpcs"));
    let tls = route.protocols.iter().any(|p| matches!(p.as_str(), "https" | "grpcs"));
    let mut needed = if is_grpc {
        vec!["hosts", "headers", "paths"]
    } else {
        vec!["methods", "hosts", "headers", "paths"]
    };
    if tls {
        needed.push("snis");
    }
    if !needed.iter().any(|f| is_set(f) || misspelt.contains(f)) {
        let names: Vec<_> = needed.iter().map(|n| format!("'{n}'")).collect();
        let message = format!("at least one of these fields must be non-empty: {}", names.join(", "));
        let diagnostic = Diagnostic::new(
            &codes::MISSING_ALTERNATIVE,
            route.name.as_ref().map_or(route.span, |n| n.span),
            message,
        );
        cx.report(
            diagnostic
                .label("this route would match nothing in particular")
                .help("to match every request, write `paths: [\"/\"]`"),
        );
    }
}
