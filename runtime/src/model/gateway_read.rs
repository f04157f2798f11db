//! `gateway:` as written, read into [`Gateway`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::gateway::{
    AccessLog, Address, CaFile, ClientAuth, Gateway, Limits, Listener, RouterFlavor, Timeouts, TlsSettings,
};
use super::read::Reader;
use super::rules;
use super::schema::{Field, HEADER, Kind, Record, RecordField, Rule, TEXT, Val};
use crate::diag::{Diagnostic, codes};
use crate::source::{Span, Spanned};
use crate::yaml::{Node, Value};

/// Milliseconds of a timeout.
const MILLIS: Kind = Kind::Int { min: 1, max: 86_400_000 };
/// Bytes or how many.
const COUNT: Kind = Kind::Int { min: 0, max: i64::MAX };

/// The fields of `gateway`; `listeners` and `redis` have forms of their own.
pub const FIELDS: &[Field] = &[
    Field::new("workers", Kind::Int { min: 0, max: 1024 }, "Worker threads; 0 is one per core.").default("0"),
    Field::new("trusted_ips", Kind::List(&Kind::Str(Rule::IpOrCidr)), "Proxies in front of gw, whose word on the client's address and scheme is taken.").default("[]"),
    Field::new("real_ip_header", HEADER, "The header in which trusted proxies name the client: X-Real-IP, X-Forwarded-For or another.").default("\"X-Real-IP\""),
    Field::new("real_ip_recursive", Kind::Bool, "Whether the client is the last address in the header that is not trusted, instead of the last of all.").default("false"),
    Field::new("limits", Kind::Record(LIMITS), "Bounds on size and count; what is beyond them is refused.").default("{}"),
    Field::new("timeouts", Kind::Record(TIMEOUTS), "How long anything may take, in milliseconds.").default("{}"),
    Field::new("tls", Kind::Record(TLS), "TLS towards clients and upstreams.").default("{}"),
    Field::new("acme", Kind::Record(super::acme::FIELDS), "Certificates that gw orders and renews itself (RFC 8555)."),
    Field::new("dns", Kind::Record(DNS), "How names of services and targets are looked up.").default("{}"),
    Field::new("admin", TEXT, "Address and port of the status and metrics endpoint: `127.0.0.1:8001`."),
    Field::new("access_log", TEXT, "Where one JSON line a request goes: `stdout`, `off`, or a file.").default("\"off\""),
    Field::new("counter_file", TEXT, "File in which the local counters of limits of a day or longer survive a restart; written once a second. Without it they begin anew."),
    Field::new("identity_headers", Kind::List(&HEADER), "Further request headers that only gw may set; they are removed from what clients send.").default("[]"),
    Field::new("strip_headers", Kind::List(&HEADER), "Request headers that are removed because frameworks take them for a rewritten URL.").default("[\"X-Original-URL\",\"X-Rewrite-URL\",\"X-Envoy-Original-Path\"]"),
    Field::new("router_flavor", Kind::Enum(&["traditional_compatible", "traditional", "expressions"]), "Which of Kong's routers the file was written for.").default("\"traditional_compatible\""),
    Field::new("router_order", Kind::Enum(&["kong", "documented"]), "How routes that match the same request are ranked: as Kong really does, or as its documentation says.").default("\"kong\""),
    Field::new("proxy_status", Kind::Bool, "Whether answers say in `Proxy-Status` (RFC 9209) what gw has to do with them: the status that it got, or why it got none.").default("false"),
    Field::new("error_format", Kind::Enum(&["kong", "problem"]), "The bodies of gw's own errors where the client takes JSON: Kong's, or problem details (RFC 9457).").default("\"kong\""),
    Field::new("websocket_over_http2", Kind::Bool, "Whether HTTP/2 clients may open WebSockets (RFC 8441). Upstreams get them over HTTP/1.1.").default("false"),
    Field::new("drain", Kind::Num { min: 0.0, max: 86_400.0 }, "Seconds to finish what is in flight after SIGTERM.").default("30"),
];

/// What stands in `gateway` beside its fields.
pub const NESTED: &[&str] = &["listeners", "redis"];

const LIMITS: &[Field] = &[
    Field::new("uri", COUNT, "Bytes of the request target, 414 beyond.").default("8192"),
    Field::new("header_bytes", COUNT, "Bytes of all header lines, 431 beyond.").default("32768"),
    Field::new("header_count", COUNT, "Header lines, 431 beyond.").default("100"),
    Field::new("body", COUNT, "Bytes of a request body, 413 beyond; 0 is no bound.").default("0"),
    Field::new("buffered_body", COUNT, "Bytes of a body that a plugin needs whole.").default("10485760"),
    Field::new("request_buffer", COUNT, "Bytes of a request body that are waited for before a target is asked, on routes with `request_buffering`; longer bodies are streamed.").default("65536"),
    Field::new("connections", COUNT, "Client connections.").default("50000"),
    Field::new("connections_per_ip", COUNT, "Client connections of one address; 0 is no bound.").default("0"),
    Field::new("requests_per_connection", COUNT, "Requests after which a connection is closed.")
        .default("10000"),
    Field::new(
        "h2_streams",
        Kind::Int { min: 1, max: 100_000 },
        "Requests at the same time on one HTTP/2 connection.",
    )
    .default("100"),
    Field::new("memory", COUNT, "Bytes of memory of the whole process. From 85 % of it connections are closed after each response, from 95 % requests are answered with 503 and `Retry-After`. 0 is what the control group or the machine has.").default("0"),
];

const TIMEOUTS: &[Field] = &[
    Field::new("tls_handshake", MILLIS, "For the TLS handshake.").default("10000"),
    Field::new("header", MILLIS, "From the first byte of a request to the end of its headers.")
        .default("10000"),
    Field::new("body", MILLIS, "Between two reads of a request body.").default("60000"),
    Field::new("keep_alive", MILLIS, "For the next request on an idle client connection.").default("60000"),
    Field::new("write", MILLIS, "For a client that takes nothing of its response.").default("60000"),
    Field::new("upstream_idle", MILLIS, "For which an unused upstream connection is kept.").default("30000"),
];

const TLS: &[Field] = &[
    Field::new("cert", TEXT, "File with the certificate chain that clients get where no `snis` match."),
    Field::new("key", TEXT, "File with the key of `cert`."),
    Field::new(
        "min_version",
        Kind::Enum(&["TLSv1.2", "TLSv1.3"]),
        "The oldest version that clients may speak.",
    )
    .default("\"TLSv1.2\""),
    Field::new(
        "verify_upstreams",
        Kind::Bool,
        "Whether certificates of upstreams are verified where a service does not say.",
    )
    .default("false"),
    Field::new("upstream_ca", TEXT, "File with authorities for upstreams, beside the system's."),
    Field::new(
        "client_auth",
        Kind::Enum(&["none", "optional", "required"]),
        "Whether clients must show a certificate.",
    )
    .default("\"none\""),
    Field::new("client_ca", TEXT, "File with the authorities of client certificates."),
    Field::new(
        "ticket_keys",
        Kind::List(&TEXT),
        "Files with the keys of session tickets, so that clients resume their sessions with any gateway that has them: 48 \
         or 80 random bytes each, or lines of so many in base64. The first key seals, the others still open. They are read \
         again at every reload, and with `--watch` when they change. Without any, keys are random and change by themselves.",
    )
    .default("[]"),
];

const DNS: &[Field] = &[Field::new(
    "servers",
    Kind::List(&TEXT),
    "Name servers to ask, `ADDRESS` or `ADDRESS:PORT`, in this order; three at most. By default those of \
     `/etc/resolv.conf` are asked for SRV records and times to live, and the system for addresses.",
)
.default("[]")];

/// An entry of `listeners`, which may also be a text.
pub const LISTENER: &[Field] = &[
    Field::new("address", TEXT, "Address and port: `0.0.0.0:8443`, `[::]:8443`; or a Unix socket: `unix:/run/gw.sock`.").required(),
    Field::new("tls", Kind::Bool, "Whether connections are TLS.").default("false"),
    Field::new("proxy_protocol", Kind::Bool, "Whether a PROXY protocol header (version 1 or 2) comes before everything else. Peers that are not in `trusted_ips` are turned away.")
        .default("false"),
    Field::new("mode", TEXT, "Permissions of a Unix socket, as octal digits.").default("\"660\""),
];

/// Reads the section. What is broken keeps its default, and was reported.
pub(super) fn read(reader: &mut Reader<'_, '_>, node: &Node<'_>) -> (Gateway, Record) {
    if node.is_null() {
        return (Gateway::default(), Record::default());
    }
    let read = reader.entity(node, FIELDS, NESTED, "`gateway`");
    let record = &read.record;
    let defaults = Gateway::default();
    let strings = |field: &str| record.strings(field).into_iter().map(|s| s.value).collect::<Vec<_>>();
    let mut gateway = Gateway {
        workers: size(record, "workers", defaults.workers),
        trusted_ips: record.strings("trusted_ips").iter().filter_map(|s| network(s)).collect(),
        real_ip_header: record.str("real_ip_header").map_or(defaults.real_ip_header, str::to_owned),
        real_ip_recursive: record.bool("real_ip_recursive"),
        limits: record.record("limits").map_or(defaults.limits, limits),
        timeouts: record.record("timeouts").map_or(defaults.timeouts, timeouts),
        tls: record.record("tls").map_or(defaults.tls, tls),
        access_log: match record.str("access_log") {
            Some("off") | None => AccessLog::Off,
            Some("stdout") => AccessLog::Stdout,
            Some(file) => AccessLog::File(PathBuf::from(file)),
        },
        counter_file: record.str("counter_file").map(PathBuf::from),
        identity_headers: strings("identity_headers"),
        strip_headers: strings("strip_headers"),
        router_flavor: match record.str("router_flavor") {
            Some("traditional") => RouterFlavor::Traditional,
            Some("expressions") => RouterFlavor::Expressions,
            _ => RouterFlavor::TraditionalCompatible,
        },
        router_order_documented: record.str("router_order") == Some("documented"),
        proxy_status: record.bool("proxy_status"),
        problem_details: record.str("error_format") == Some("problem"),
        websocket_over_http2: record.bool("websocket_over_http2"),
        drain: record.num("drain").map_or(defaults.drain, Duration::from_secs_f64),
        listeners: Vec::new(),
        admin: None,
        dns_servers: Vec::new(),
        redis: None,
        acme: None,
    };
    if let Some(dns) = record.record("dns") {
        gateway.dns_servers = dns_servers(reader, &dns.strings("servers"));
    }
    gateway.acme = record.record("acme").and_then(|acme| super::acme::read(reader, acme));
    if let Some(admin) = record.spanned_str("admin") {
        gateway.admin = address(reader, &admin, admin.span, "`admin`");
    }
    for (name, node) in read.children {
        match name {
            "listeners" => gateway.listeners = listeners(reader, node),
            _ => gateway.redis = redis(reader, node),
        }
    }
    (gateway, read.record)
}

fn dns_servers(reader: &mut Reader<'_, '_>, texts: &[Spanned<String>]) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for text in texts {
        let with_port = text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
        match with_port.or_else(|| text.parse().ok()) {
            Some(server) if all.len() < 3 => all.push(server),
            found => {
                let what = if found.is_some() { "three servers at most" } else { "expected an IP address" };
                let message = format!("`servers`: {what}");
                let diagnostic = Diagnostic::new(&codes::INVALID_VALUE, text.span, message);
                reader.diags.push(diagnostic.help("write `10.0.0.53` or `10.0.0.53:5353`"));
            }
        }
    }
    all
}

fn size(record: &Record, field: &str, default: usize) -> usize {
    record.int(field).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn limits(record: &Record) -> Limits {
    let d = Limits::default();
    Limits {
        uri: size(record, "uri", d.uri),
        header_bytes: size(record, "header_bytes", d.header_bytes),
        header_count: size(record, "header_count", d.header_count),
        body: record.int("body").and_then(|n| u64::try_from(n).ok()).unwrap_or(d.body),
        buffered_body: size(record, "buffered_body", d.buffered_body),
        request_buffer: size(record, "request_buffer", d.request_buffer),
        connections: size(record, "connections", d.connections),
        connections_per_ip: size(record, "connections_per_ip", d.connections_per_ip),
        requests_per_connection: size(record, "requests_per_connection", d.requests_per_connection),
        h2_streams: record.int("h2_streams").and_then(|n| u32::try_from(n).ok()).unwrap_or(d.h2_streams),
        memory: record.int("memory").and_then(|n| u64::try_from(n).ok()).unwrap_or(d.memory),
    }
}

fn timeouts(record: &Record) -> Timeouts {
    let d = Timeouts::default();
    let millis = |field: &str, default| {
        record.int(field).and_then(|n| u64::try_from(n).ok()).map_or(default, Duration::from_millis)
    };
    Timeouts {
        tls_handshake: millis("tls_handshake", d.tls_handshake),
        header: millis("header", d.header),
        body: millis("body", d.body),
        keep_alive: millis("keep_alive", d.keep_alive),
        write: millis("write", d.write),
        upstream_idle: millis("upstream_idle", d.upstream_idle),
    }
}

fn tls(record: &Record) -> TlsSettings {
    let path = |field: &str| record.str(field).map(PathBuf::from);
    TlsSettings {
        cert: path("cert"),
        key: path("key"),
        min_version_1_3: record.str("min_version") == Some("TLSv1.3"),
        verify_upstreams: record.bool("verify_upstreams"),
        upstream_ca: record
            .spanned_str("upstream_ca")
            .map(|path| CaFile { path: path.map(PathBuf::from), pem: None }),
        client_auth: match record.str("client_auth") {
            Some("optional") => ClientAuth::Optional,
            Some("required") => ClientAuth::Required,
            _ => ClientAuth::None,
        },
        client_ca: path("client_ca"),
        ticket_keys: record.strings("ticket_keys").iter().map(|s| PathBuf::from(&s.value)).collect(),
    }
}

/// `0.0.0.0:8443 ssl proxy_protocol`, or the same as records.
fn listeners(reader: &mut Reader<'_, '_>, node: &Node<'_>) -> Vec<Listener> {
    let Value::Sequence(items) = &node.value else {
        if !matches!(node.value, Value::Broken) && !node.is_null() {
            let message = "`listeners`: expected an array";
            reader.diags.push(
                Diagnostic::new(&codes::WRONG_TYPE, node.head(), message)
                    .label(format!("this is {}", node.kind())),
            );
        }
        return Vec::new();
    };
    items.iter().filter_map(|item| listener(reader, item)).collect()
}

fn listener(reader: &mut Reader<'_, '_>, node: &Node<'_>) -> Option<Listener> {
    let mut listener;
    if let Some(text) = node.text() {
        let mut words = text.split_whitespace();
        listener =
            Listener::new(listener_address(reader, words.next().unwrap_or_default(), node.span)?, false);
        for word in words {
            match word {
                "ssl" | "tls" => listener.tls = true,
                "proxy_protocol" => listener.proxy_protocol = true,
                // nginx's words for what gw does anyway.
                "http2" | "reuseport" | "deferred" | "bind" => {}
                word if word.starts_with("backlog=") => {}
                word => {
                    let message = format!("`listeners`: `{word}` means nothing after an address");
                    let diagnostic = Diagnostic::new(&codes::INVALID_VALUE, node.span, message);
                    let help =
                        "write `ADDRESS:PORT` or `unix:/PATH`, then `ssl` and `proxy_protocol` as needed";
                    reader.diags.push(diagnostic.help(help));
                }
            }
        }
    } else {
        let record = reader.within("listeners", |r| r.record(node, LISTENER, "a listener"));
        let addr = listener_address(reader, record.str("address")?, record.span_of("address"))?;
        listener = Listener::new(addr, record.bool("tls"));
        listener.proxy_protocol = record.bool("proxy_protocol");
        if let Some(mode) = record.spanned_str("mode") {
            match u32::from_str_radix(&mode, 8).ok().filter(|m| *m <= 0o777) {
                Some(bits) => listener.mode = bits,
                None => {
                    let message = "`listeners`: invalid mode";
                    let diagnostic = Diagnostic::new(&codes::INVALID_VALUE, mode.span, message);
                    reader.diags.push(diagnostic.help("write three octal digits as text: `mode: \"660\"`"));
                }
            }
        }
    }
    if listener.tls && matches!(listener.addr, Address::Unix(_)) {
        let message = "`listeners`: a Unix socket takes no TLS";
        let diagnostic = Diagnostic::new(&codes::INVALID_VALUE, node.head(), message);
        reader
            .diags
            .push(diagnostic.help("nobody listens in between: leave TLS to listeners on the network"));
        return None;
    }
    Some(listener)
}

fn listener_address(reader: &mut Reader<'_, '_>, text: &str, span: Span) -> Option<Address> {
    if !text.starts_with("unix:") {
        return address(reader, text, span, "`listeners`").map(Address::Ip);
    }
    match text.parse() {
        Ok(addr) => Some(addr),
        Err(e) => {
            let diagnostic = Diagnostic::new(&codes::INVALID_VALUE, span, format!("`listeners`: {e}"));
            reader.diags.push(diagnostic.help("write `unix:/run/gw/gw.sock`"));
            None
        }
    }
}

fn address(reader: &mut Reader<'_, '_>, text: &str, span: Span, what: &str) -> Option<SocketAddr> {
    let any = text.strip_prefix(':').map(|port| format!("0.0.0.0:{port}"));
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = any.or(local).as_deref().unwrap_or(text).parse();
    if parsed.is_err() {
        let diagnostic =
            Diagnostic::new(&codes::INVALID_VALUE, span, format!("{what}: expected an address and a port"));
        reader.diags.push(diagnostic.help("write `0.0.0.0:8000` or `[::]:8000`"));
    }
    parsed.ok()
}

fn redis(reader: &mut Reader<'_, '_>, node: &Node<'_>) -> Option<Record> {
    let Value::Scalar(scalar) = &node.value else {
        return Some(reader.within("redis", |r| r.record(node, super::redis::GATEWAY, "`redis`")));
    };
    if node.is_null() {
        return None;
    }
    reader.hide(node);
    if rules::check(Rule::Url, &scalar.text, "").is_err() {
        let message = "`redis`: invalid url";
        let diagnostic = Diagnostic::new(&codes::INVALID_VALUE, node.span, message);
        reader.diags.push(diagnostic.help("write `redis://HOST:PORT/DATABASE`"));
        return None;
    }
    let value = Spanned::new(Val::Str(scalar.text.clone().into_owned()), node.span);
    let url = RecordField { name: "url", key: node.span, value, given: true };
    Some(Record { span: node.span, fields: vec![url] })
}
