//! What a gateway tells about requests: every field of the access log, every metric, and no secret in either.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gw_tests::binary::gw;
use gw_tests::folder::Folder;
use gw_tests::gateway::{Gateway, PATIENCE};
use gw_tests::http::{Connection, Message, get, get_tls, request};
use gw_tests::redis::{RedisServer, free_port};
use gw_tests::upstream::Upstream;
use serde_json::Value;

/// What must never be seen, by whose secret it is.
const KEY: &str = "canary-key-7f3a9c";
const PASSWORD: &str = "canary-password-51d0";
const JWT_SECRET: &str = "canary-jwt-secret-0123456789abcdef0123";
const REDIS_PASSWORD: &str = "canary-redis-e41b";
const WRONG: &str = "canary-wrong-99aa";

/// A gateway with one worker, which logs to a file and has an admin listener.
struct Place {
    gateway: Gateway,
    admin: std::net::SocketAddr,
    folder: Folder,
    config: PathBuf,
    _upstream: Upstream,
    _redis: RedisServer,
}

impl Place {
    fn new() -> Self {
        let (upstream, folder) = (Upstream::start(), Folder::new("telemetry"));
        let redis = RedisServer::start_with(&["--requirepass", REDIS_PASSWORD]);
        let limit = |port: u16, password: &str| {
            format!(
                "{{ name: rate-limiting, config: {{ minute: 2, policy: redis, redis: {{ host: 127.0.0.1, port: {port}, password: {password}, timeout: 200 }} }} }}"
            )
        };
        let text = format!(
            "_format_version: \"3.0\"\nservices:\n\
             - name: orders\n  url: http://{up}\n  routes:\n\
             \x20 - name: orders-route\n    paths: [/orders]\n    plugins:\n    - name: key-auth\n    - name: correlation-id\n      \
             config: {{ header_name: X-Correlation-Id, generator: uuid }}\n    - {good}\n\
             \x20 - {{ name: basic, paths: [/basic], plugins: [{{ name: basic-auth }}] }}\n\
             \x20 - {{ name: jwt, paths: [/jwt], plugins: [{{ name: jwt, config: {{ claims_to_verify: [exp] }} }}] }}\n\
             \x20 - {{ name: wrong-password, paths: [/wrong-password], plugins: [{wrong}] }}\n\
             \x20 - {{ name: no-redis, paths: [/no-redis], plugins: [{none}] }}\n\
             - name: gone\n  url: http://127.0.0.1:{closed}\n  retries: 0\n  routes: [{{ name: gone-route, paths: [/gone] }}]\n\
             consumers:\n- username: alice\n  keyauth_credentials: [{{ key: {KEY} }}]\n  \
             basicauth_credentials: [{{ username: alice, password: {PASSWORD} }}]\n  \
             jwt_secrets: [{{ key: alice, secret: {JWT_SECRET} }}]\n",
            up = upstream.addr(),
            good = limit(redis.port(), REDIS_PASSWORD),
            wrong = limit(redis.port(), WRONG),
            none = limit(free_port(), REDIS_PASSWORD),
            closed = free_port(),
        );
        let config = folder.write("kong.yaml", &text);
        let file = |name: &str| folder.path().join(name).display().to_string();
        let made = gw().args(["certs", "server", "--out", &file("certs"), "--config"]).arg(&config).output();
        assert!(made.as_ref().is_ok_and(|o| o.status.success()), "{made:?}");
        let mut gateway = Gateway::start(
            &config,
            &[
                "--workers",
                "1",
                "--admin",
                "127.0.0.1:0",
                "--access-log",
                &file("access.log"),
                "--listen-tls",
                "127.0.0.1:0",
                "--tls-cert",
                &file("certs/server.pem"),
                "--tls-key",
                &file("certs/server-key.pem"),
            ],
        );
        let line = gateway.hears("admin on http://");
        let admin = line.rsplit('/').next().and_then(|a| a.parse().ok()).expect("an address");
        Self { gateway, admin, folder, config, _upstream: upstream, _redis: redis }
    }

    fn ask(&self, target: &str, fields: &str) -> Message {
        request(self.gateway.addr(), "GET", target, fields)
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }

    /// The lines of the access log, once there are so many.
    fn log(&self, lines: usize) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.log_text();
            if text.lines().count() >= lines && text.ends_with('\n') {
                let parse = |l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"));
                return text.lines().map(parse).collect();
            }
            assert!(Instant::now() < until, "fewer than {lines} lines: {text}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn metrics(&self) -> Metrics {
        Metrics::parse(&get(self.admin, "/metrics").text())
    }
}

/// A request, and what its line says: status, route, service, consumer, the upstream's status, bytes of the request.
struct Case {
    request: &'static str,
    body: &'static str,
    route: Option<&'static str>,
    service: Option<&'static str>,
    consumer: Option<&'static str>,
    status: u16,
    upstream_status: Option<u16>,
}

const CASES: &[Case] = &[
    Case {
        request: "POST /orders/1?apikey=canary-key-7f3a9c&x=1",
        body: "hello",
        route: Some("orders-route"),
        service: Some("orders"),
        consumer: Some("alice"),
        status: 200,
        upstream_status: Some(200),
    },
    Case {
        request: "GET /orders/2?apikey=canary-key-7f3a9c",
        body: "",
        route: Some("orders-route"),
        service: Some("orders"),
        consumer: Some("alice"),
        status: 200,
        upstream_status: Some(200),
    },
    Case {
        request: "GET /orders/3?apikey=canary-key-7f3a9c",
        body: "",
        route: Some("orders-route"),
        service: Some("orders"),
        consumer: Some("alice"),
        status: 429,
        upstream_status: None,
    },
    Case {
        request: "GET /orders/4",
        body: "",
        route: Some("orders-route"),
        service: Some("orders"),
        consumer: None,
        status: 401,
        upstream_status: None,
    },
    Case {
        request: "GET /nowhere",
        body: "",
        route: None,
        service: None,
        consumer: None,
        status: 404,
        upstream_status: None,
    },
    Case {
        request: "GET /gone",
        body: "",
        route: Some("gone-route"),
        service: Some("gone"),
        consumer: None,
        status: 502,
        upstream_status: None,
    },
];

#[test]
fn every_request_has_a_line_and_is_counted() {
    let place = Place::new();
    for case in CASES {
        let mut connection = Connection::open(place.gateway.addr());
        let length = case.body.len();
        connection.send(format!(
            "{} HTTP/1.1\r\nHost: Shop.test:80\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{}",
            case.request, case.body
        ));
        let answer = connection.response();
        assert_eq!(answer.status(), case.status, "{}: {answer:?}", case.request);
        let lines = place.log(CASES.iter().take_while(|c| !std::ptr::eq(*c, case)).count() + 1);
        check_line(case, &answer, lines.last().expect("at least this one"));
    }
    let metrics = place.metrics();
    let of = |service: &str, route: &str, code: &str, source: &str| {
        let labels = [
            ("service", service),
            ("route", route),
            ("code", code),
            ("source", source),
            ("workspace", "default"),
            ("consumer", ""),
        ];
        metrics.value("kong_http_requests_total", &labels)
    };
    for (service, route, code, source, n) in [
        ("orders", "orders-route", "200", "service", 2.0),
        ("orders", "orders-route", "429", "kong", 1.0),
        ("orders", "orders-route", "401", "kong", 1.0),
        ("gone", "gone-route", "502", "kong", 1.0),
    ] {
        assert_eq!(of(service, route, code, source), n, "{route} {code}");
    }
    assert_eq!(metrics.value("gw_unmatched_requests_total", &[("code", "404")]), 1.0);
    let labels = [("service", "orders"), ("route", "orders-route"), ("workspace", "default")];
    for (name, n) in
        [("kong_request_latency_ms", 4.0), ("kong_kong_latency_ms", 4.0), ("kong_upstream_latency_ms", 2.0)]
    {
        assert_eq!(metrics.value(&format!("{name}_count"), &labels), n, "{name}");
    }
    let labels = [labels[0], labels[1], ("direction", "ingress"), labels[2], ("consumer", "")];
    assert_eq!(metrics.value("kong_bandwidth_bytes", &labels), 5.0);
    for (name, kind) in METRICS {
        assert_eq!(metrics.kinds.get(*name).map(String::as_str), Some(*kind), "{name}");
    }
}

/// The metrics of every gateway that has answered something.
const METRICS: &[(&str, &str)] = &[
    ("kong_http_requests_total", "counter"),
    ("kong_bandwidth_bytes", "counter"),
    ("kong_kong_latency_ms", "histogram"),
    ("kong_upstream_latency_ms", "histogram"),
    ("kong_request_latency_ms", "histogram"),
    ("kong_node_info", "gauge"),
    ("gw_unmatched_requests_total", "counter"),
    ("gw_connections", "gauge"),
    ("gw_connections_refused_total", "counter"),
    ("gw_config_generation", "gauge"),
    ("gw_config_reloads_total", "counter"),
    ("gw_config_last_reload_success", "gauge"),
    ("gw_config_loaded_seconds", "gauge"),
    ("gw_live_snapshots", "gauge"),
    ("gw_panics_total", "counter"),
    ("gw_access_log_dropped_total", "counter"),
    ("gw_uptime_seconds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
];

/// Fields that every line has.
const FIELDS: &[&str] = &[
    "time",
    "request_id",
    "client_ip",
    "method",
    "host",
    "path",
    "http",
    "tls",
    "status",
    "route",
    "service",
    "consumer",
    "upstream",
    "upstream_status",
    "request_bytes",
    "response_bytes",
    "total_ms",
    "gateway_ms",
    "upstream_ms",
];

fn check_line(case: &Case, answer: &Message, line: &Value) {
    let context = format!("{}: {line}", case.request);
    let has: BTreeSet<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut wanted: BTreeSet<&str> = FIELDS.iter().copied().collect();
    wanted.extend((case.route == Some("orders-route")).then_some("correlation_id"));
    wanted.extend((case.status == 502).then_some("error"));
    if case.status == 429 {
        wanted.insert("limits");
        let refused = serde_json::json!([{ "limit": "minute", "result": "refused", "used_percent": 100 }]);
        assert_eq!(line["limits"], refused, "{context}");
    }
    assert_eq!(has, wanted, "{context}");

    let (method, target) = case.request.split_once(' ').expect("a method and a target");
    let path = target.split('?').next();
    for (field, value) in [
        ("client_ip", Some("127.0.0.1")),
        ("method", Some(method)),
        ("host", Some("Shop.test:80")),
        ("path", path),
        ("http", Some("1.1")),
        ("route", case.route),
        ("service", case.service),
        ("consumer", case.consumer),
    ] {
        assert_eq!(line[field].as_str(), value, "{field} of {context}");
    }
    assert_eq!(line["tls"], false, "{context}");
    assert_eq!(line["status"], case.status, "{context}");
    assert_eq!(line["upstream_status"].as_u64(), case.upstream_status.map(u64::from), "{context}");
    assert_eq!(line["request_bytes"], case.body.len(), "{context}");
    assert_eq!(line["response_bytes"], answer.text().len(), "{context}");

    let time = line["time"].as_str().expect("a text");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{context}");
    let id = line["request_id"].as_str().expect("a text");
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{context}");
    if let Some(told) = answer.field("x-kong-request-id") {
        assert_eq!(told, id, "{context}");
    }

    let ms = |field: &str| line[field].as_f64();
    let (total, gateway) = (ms("total_ms").expect("a number"), ms("gateway_ms").expect("a number"));
    assert!(total >= gateway && gateway >= 0.0 && total < 20_000.0, "{context}");
    assert_eq!(ms("upstream_ms").is_some(), case.upstream_status.is_some(), "{context}");
    assert!(gateway + ms("upstream_ms").unwrap_or(0.0) <= total + 0.02, "{context}");
    let reached = line["upstream"].as_str().is_some_and(|a| a.parse::<std::net::SocketAddr>().is_ok());
    assert_eq!(reached, case.upstream_status.is_some() || case.status == 502, "{context}");
}

/// A page of metrics, whose form was checked.
struct Metrics {
    kinds: BTreeMap<String, String>,
    series: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads the Prometheus text format, and insists on all of its rules.
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line is ended: {text}");
        let mut all = Self { kinds: BTreeMap::new(), series: BTreeMap::new() };
        let (mut current, mut helped) = (String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(is_name(name) && !help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(helped.contains(name) && matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
                assert!(all.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                name.clone_into(&mut current);
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                let (name, labels) = series
                    .split_once('{')
                    .map_or((series, ""), |(n, l)| (n, l.strip_suffix('}').expect(line)));
                let suffix = name.strip_prefix(&current).expect("samples follow their TYPE");
                let histogram = all.kinds[&current] == "histogram";
                assert!(
                    if histogram {
                        ["_bucket", "_sum", "_count"].contains(&suffix)
                    } else {
                        suffix.is_empty()
                    },
                    "{line}"
                );
                assert!(is_name(name) && value >= 0.0, "{line}");
                for (label, text) in pairs(labels) {
                    assert!(is_name(label) && !label.contains(':') && !text.contains(['"', '\n']), "{line}");
                }
                assert!(all.series.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        all.check_histograms();
        all
    }

    /// Buckets grow, and the last is the count.
    fn check_histograms(&self) {
        for (series, count) in self.series.iter().filter(|(s, _)| s.contains("_ms_count{")) {
            let of = series.replace("_count{", "_bucket{").replace('}', ",le=\"");
            let buckets: BTreeMap<u64, f64> = self
                .series
                .iter()
                .filter_map(|(s, n)| Some((s.strip_prefix(&of)?.trim_end_matches("\"}"), *n)))
                .map(|(le, n)| (if le == "+Inf" { u64::MAX } else { le.parse().expect("a bound") }, n))
                .collect();
            assert!(buckets.len() > 10, "{series}");
            assert!(buckets.values().is_sorted(), "{series}: {buckets:?}");
            assert_eq!(buckets.get(&u64::MAX), Some(count), "{series}");
        }
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        let series = format!("{name}{{{}}}", labels.join(","));
        *self.series.get(&series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.series.keys()))
    }
}

fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// `a="b",c="d"` in pairs; the tests' own names need no escapes.
fn pairs(labels: &str) -> impl Iterator<Item = (&str, &str)> {
    labels.split(',').filter(|l| !l.is_empty()).map(|label| {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("no label: {label}"));
        (name, value.strip_suffix('"').unwrap_or_else(|| panic!("not closed: {label}")))
    })
}

#[test]
fn no_secret_is_told() {
    let mut place = Place::new();
    let minted = gw()
        .args(["token", "mint", "--consumer", "alice", "--config"])
        .arg(&place.config)
        .output()
        .expect("gw runs");
    let token = String::from_utf8_lossy(&minted.stdout).trim().to_owned();
    assert!(token.len() > 50, "{minted:?}");
    let basic = |password: &str| STANDARD.encode(format!("alice:{password}"));
    let (right, wrong) = (basic(PASSWORD), basic(WRONG));
    let forged = format!("{token}x");
    let mut bodies = String::new();
    for (target, fields, status) in [
        ("/orders", format!("apikey: {KEY}\r\n"), 200),
        ("/orders", format!("apikey: {WRONG}\r\n"), 401),
        (&format!("/orders?apikey={KEY}"), String::new(), 200),
        (&format!("/orders?apikey={WRONG}"), String::new(), 401),
        ("/orders", format!("apikey: {KEY}\r\n"), 429),
        (&format!("/nowhere?apikey={KEY}"), String::new(), 404),
        (&format!("/gone?token={token}"), format!("Authorization: Bearer {token}\r\n"), 502),
        ("/basic", format!("Authorization: Basic {right}\r\n"), 200),
        ("/basic", format!("Authorization: Basic {wrong}\r\n"), 401),
        ("/basic", format!("Authorization: Basic {PASSWORD}\r\n"), 401),
        ("/jwt", format!("Authorization: Bearer {token}\r\n"), 200),
        ("/jwt", format!("Authorization: Bearer {forged}\r\n"), 401),
        (&format!("/jwt?jwt={token}"), String::new(), 200),
        (&format!("/jwt?jwt={WRONG}"), String::new(), 401),
        // Kong's default: a Redis that does not answer lets requests through.
        ("/wrong-password", String::new(), 200),
        ("/no-redis", String::new(), 200),
    ] {
        let answer = place.ask(target, &fields);
        assert_eq!(answer.status(), status, "{target} {fields}: {answer:?}");
        bodies.push_str(&format!("{answer:?}\n"));
    }
    // A head that is refused is not repeated either.
    let mut broken = Connection::open(place.gateway.addr());
    broken.send(format!("GET / HTTP/1.1\r\nHost: t\r\nauthorization Bearer {token}\r\n\r\n"));
    bodies.push_str(&String::from_utf8_lossy(&broken.rest()));
    let ca = place.folder.path().join("certs/ca.pem");
    let tls = get_tls(&ca, place.gateway.tls_addr(), "/orders", &[&format!("apikey: {WRONG}")]);
    assert_eq!(tls.status(), 401, "{tls:?}");
    bodies.push_str(&format!("{tls:?}\n"));

    let lines = place.log(17).len();
    for page in ["/metrics", "/config", "/status", "/health", "/"] {
        bodies.push_str(&get(place.admin, page).text());
    }
    place.gateway.reload();
    place.gateway.hears("reloaded");
    let key = std::fs::read_to_string(place.folder.path().join("certs/server-key.pem")).expect("it was made");
    let key = key.lines().nth(1).expect("a line of Base64");
    let outputs =
        [("the log", place.log_text()), ("stderr", place.gateway.said().join("\n")), ("an answer", bodies)];
    let secrets = [KEY, PASSWORD, JWT_SECRET, REDIS_PASSWORD, WRONG, key, &right, &wrong, &token];
    for (what, text) in &outputs {
        assert!(!text.is_empty(), "{what}, {lines} lines");
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {what}:\n{text}");
        }
    }
}
