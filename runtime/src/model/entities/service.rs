//! `services`: what requests are forwarded to.

use crate::diag::{Applicability, Diagnostic, codes};
use crate::model::Service;
use crate::model::ids;
use crate::model::lower::{Lower, Parent, id_or, required};
use crate::model::rules;
use crate::model::schema::{Field, Kind, MILLIS, PORT, Record, Rule, STR, TEXT, entity_fields};
use crate::source::Spanned;
use crate::yaml::Node;

const PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];

/// The fields of a service.
pub const FIELDS: &[Field] = entity_fields![
    Field::new(
        "name",
        Kind::Str(Rule::Name),
        "The service's name, unique, by which routes and plugins refer to it."
    ),
    Field::new(
        "url",
        TEXT,
        "Shorthand that sets `protocol`, `host`, `port` and `path` at once: `scheme://host[:port][/path]`."
    ),
    Field::new("protocol", Kind::Enum(PROTOCOLS), "How the upstream is spoken to.").default("\"http\""),
    Field::new(
        "host",
        Kind::Str(Rule::Host),
        "Host name or IP address of the upstream, or the name of an entry of `upstreams`, which then balances; or a Unix socket: `unix:/run/app.sock`."
    ),
    Field::new(
        "port",
        PORT,
        "Port of the upstream. The default is 80 for https too, unless `url` says otherwise."
    )
    .default("80"),
    Field::new(
        "path",
        Kind::Str(Rule::Path),
        "What the upstream's path begins with, before the request's own."
    ),
    Field::new(
        "retries",
        Kind::Int { min: 0, max: 32767 },
        "How often a request is tried again on another target after the first try failed to connect."
    )
    .default("5"),
    Field::new("connect_timeout", MILLIS, "Milliseconds to connect to the upstream.").default("60000"),
    Field::new("write_timeout", MILLIS, "Milliseconds between two writes to the upstream.").default("60000"),
    Field::new("read_timeout", MILLIS, "Milliseconds between two reads from the upstream.").default("60000"),
    Field::new(
        "client_certificate",
        Kind::Ref("certificates"),
        "The certificate that is shown to the upstream, by id."
    ),
    Field::new(
        "tls_verify",
        Kind::Bool,
        "Whether the upstream's certificate is verified; null is `gateway.tls.verify_upstreams`."
    ),
    Field::new(
        "tls_verify_depth",
        Kind::Int { min: 0, max: 64 },
        "How many intermediate certificates the upstream's chain may have."
    ),
    Field::new(
        "ca_certificates",
        Kind::List(&STR),
        "Ids of the `ca_certificates` that the upstream's certificate is verified with."
    ),
    Field::new(
        "http2",
        Kind::Bool,
        "Whether an `http` or `https` service is spoken to over HTTP/2, whatever its clients speak: agreed on by ALPN over TLS, \
         taken for granted without. It must speak HTTP/2 then; a WebSocket needs a service without it."
    )
    .default("false")
    .extension(),
    Field::new(
        "enabled",
        Kind::Bool,
        "Whether the service exists; a disabled service takes its routes with it."
    )
    .default("true"),
];

/// Lists that may stand in a service.
pub const NESTED: &[&str] = &["routes", "plugins"];

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>) {
    let read = cx.reader.entity(node, FIELDS, NESTED, "a service");
    let record = &read.record;
    let name = record.spanned_str("name");
    let id = id_or(record, || match &name {
        Some(name) => ids::derive("services", name),
        None => ids::positional("services", "", cx.model.services.len()),
    });
    let mut service = Service {
        span: node.head(),
        id,
        name,
        protocol: required(record, "protocol"),
        host: required(record, "host"),
        port: record.int("port").and_then(|p| u16::try_from(p).ok()).unwrap_or(80),
        port_given: record.given("port"),
        path: record.spanned_str("path"),
        retries: record.int("retries").and_then(|n| u16::try_from(n).ok()).unwrap_or(5),
        connect_timeout: millis(record, "connect_timeout"),
        write_timeout: millis(record, "write_timeout"),
        read_timeout: millis(record, "read_timeout"),
        client_certificate: record.spanned_str("client_certificate"),
        tls_verify: record.bool_opt("tls_verify"),
        tls_verify_depth: record.int("tls_verify_depth").and_then(|n| u8::try_from(n).ok()),
        ca_certificates: record.strings("ca_certificates"),
        http2: record.bool_opt("http2").unwrap_or(false),
        enabled: record.bool_opt("enabled").unwrap_or(true),
    };
    url(cx, record, &mut service);
    let misspelt = read.misspelt.iter().any(|f| matches!(*f, "host" | "url"));
    cross_checks(cx, node, record, &service, misspelt);
    cx.note_unreadable("services", node, "name", service.name.is_none());
    cx.model.services.push(service);
    cx.children(read.children, Parent::Service(cx.model.services.len() - 1));
}

fn millis(record: &Record, field: &str) -> u64 {
    record.int(field).and_then(|n| u64::try_from(n).ok()).unwrap_or(60_000)
}

/// Spreads `url` over the fields that it stands for.
fn url(cx: &mut Lower<'_, '_, '_>, record: &Record, service: &mut Service) {
    let Some(url) = record.spanned_str("url") else { return };
    let masked = cx.model.masked.contains_key(&url.span);
    let shown = if masked { "the value from the environment" } else { url.as_str() };
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url.as_str()));
    let scheme = scheme.to_ascii_lowercase();
    if !PROTOCOLS.contains(&scheme.as_str()) {
        let message = format!("`url`: expected a scheme that is one of: {} in {shown}", PROTOCOLS.join(", "));
        cx.report(Diagnostic::new(&codes::INVALID_VALUE, url.span, message));
        return;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let Some((host, port)) = rules::split_host_port(authority).filter(|(h, _)| rules::is_host(h)) else {
        let diagnostic =
            Diagnostic::new(&codes::INVALID_VALUE, url.span, format!("`url`: missing host in url: {shown}"));
        cx.report(diagnostic.help("a URL is `scheme://host[:port][/path]`"));
        return;
    };
    let path = tail.split(['?', '#']).next().unwrap_or_default();
    if let Err(broken) = if path.is_empty() { Ok(()) } else { rules::check(Rule::Path, path, shown) } {
        cx.report(Diagnostic::new(&codes::INVALID_VALUE, url.span, format!("`url`: {}", broken.message)));
    }
    let here = |text: &str| Spanned::new(text.to_owned(), url.span);
    let default_port = if matches!(scheme.as_str(), "https" | "grpcs" | "tls") { 443 } else { 80 };
    service.protocol = here(&scheme);
    service.host = here(host);
    service.port = port.unwrap_or(default_port);
    service.port_given = true;
    service.path = (!path.is_empty()).then(|| here(path));
}

fn cross_checks(
    cx: &mut Lower<'_, '_, '_>,
    node: &Node<'_>,
    record: &Record,
    service: &Service,
    misspelt: bool,
) {
    let given = |field| node.get(field).is_some_and(|n| !n.is_null());
    if !given("host") && !given("url") && !misspelt {
        let mut diagnostic =
            Diagnostic::new(&codes::MISSING_FIELD, node.head(), "required field missing: `host`")
                .label("a service needs `host` or `url`")
                .help("add `url: http://HOST:PORT/PATH`, or `host` alone");
        if let Some(odd) = node.entries().iter().find(|e| e.key == "target" || e.key == "upstream_url") {
            diagnostic = diagnostic.fix(odd.key_span, "url", Applicability::Unsafe);
        }
        cx.report(diagnostic);
    }
    let protocol = service.protocol.value.as_str();
    if matches!(protocol, "tcp" | "tls" | "tls_passthrough" | "udp") {
        let diagnostic = Diagnostic::new(
            &codes::UNSUPPORTED_PROTOCOL,
            service.protocol.span,
            format!("gw does not proxy `{protocol}` services: it speaks HTTP"),
        );
        cx.report(diagnostic.help("use http, https, grpc or grpcs, or keep this service on a TCP proxy"));
        return;
    }
    if matches!(protocol, "grpc" | "grpcs")
        && let Some(path) = &service.path
    {
        let message = format!(
            "`path`: value must be null, because a `{protocol}` service takes its path from the method called"
        );
        cx.report(Diagnostic::new(&codes::CONFLICTING_FIELDS, path.span, message));
    }
    if protocol != "https" {
        let tls_only = ["client_certificate", "tls_verify", "tls_verify_depth", "ca_certificates"];
        for field in tls_only.iter().filter_map(|f| record.get(f)).filter(|f| f.given) {
            // gRPC over TLS is TLS all the same.
            if protocol == "grpcs" {
                continue;
            }
            let message = format!("`{}`: value must be null unless `protocol` is https", field.name);
            let diagnostic = Diagnostic::new(&codes::CONFLICTING_FIELDS, field.key, message);
            cx.report(diagnostic.also(service.protocol.span, format!("the protocol is `{protocol}`")));
        }
    }
}
