//! Nobody can say in a header what only the gateway says: every header that any policy of the config sets, in every
//! spelling, on every route, over every protocol, as a field or a trailer, and in every request that the gateway derives.

use gw_runtime::policy::registry::REGISTRY;
use gw_tests::folder::Folder;
use gw_tests::gateway::{Gateway, PATIENCE};
use gw_tests::h2::{DATA, END_STREAM, Frame, H2, HEADERS};
use gw_tests::http::{Connection, Message};
use gw_tests::scripted::{Scripted, answer};
use gw_tests::upstream::Upstream;

/// Headers that this config's policies set beside those that every gateway keeps for itself.
const OWN: &[&str] = &[
    "X-Org",
    "X-Org-Unit",
    "X-Scopes",
    "X-Email",
    "X-Decided-By",
    "X-Role",
    "X-Account",
    "X-Gw-Token",
    "X-Tenant",
];
/// What is kept for the gateway whether or not a policy sets it.
const ALWAYS: &[&str] =
    &["X-User-Id", "X-User", "X-Forwarded-User", "X-Forwarded-Client-Cert", "X-Authenticated-User"];

/// Policies that nobody passes set the headers; the routes that are tried have none, or only derive requests.
const CONFIG: &str = r#"
_format_version: "3.0"
gateway: { identity_headers: [X-Tenant], websocket_over_http2: true }
services:
- { name: plain, url: "http://UP", routes: [{ name: open, paths: [/] }] }
- { name: other, url: "http://OTHER" }
- name: closed
  url: "http://UP"
  routes:
  - { name: a, paths: [/a], plugins: [{ name: jwt, config: { claims_to_headers: { org: X-Org },
      issuers: [{ issuer: i, jwks_uri: "http://127.0.0.1:9/", claims_to_headers: { unit: X-Org-Unit } }] } }] }
  - { name: b, paths: [/b], plugins: [{ name: oauth2-introspection, config: { introspection_url: "http://127.0.0.1:9/",
      claims_to_headers: { scope: X-Scopes } } }] }
  - { name: c, paths: [/c], plugins: [{ name: openid-connect, config: { issuer: "http://127.0.0.1:9", client_id: c,
      redirect_uri: "http://h/c/cb", session_secrets: [0123456789abcdef0123456789abcdef],
      claims_to_headers: { email: X-Email } } }] }
  - { name: d, paths: [/d], plugins: [{ name: forward-auth, config: { url: "http://127.0.0.1:9/",
      response_headers: [X-Decided-By] } }] }
  - { name: e, paths: [/e], plugins: [{ name: upstream-identity, config: { headers: { X-Role: "$(claims.role)",
      X-Account: "$(claims.account)" }, token: { private_key: "KEY", header: X-Gw-Token } } }] }
- { name: mirrored, url: "http://UP", routes: [{ name: mirrored, paths: [/mirrored] }],
    plugins: [{ name: mirror, config: { service: other } }] }
routes:
- name: page
  paths: [/page]
  plugins: [{ name: aggregate, config: { parts: [{ name: p, service: other, path: /part }] } }]
"#;

struct Place {
    gateway: Gateway,
    upstream: Upstream,
    other: Scripted,
    _folder: Folder,
}

impl Place {
    fn new() -> Self {
        let (upstream, folder) = (Upstream::start(), Folder::new("forged"));
        let other = Scripted::start(|_| answer(200, "Content-Type: application/json\r\n", b"{}"));
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem().replace('\n', "\\n");
        let text = CONFIG
            .replace("UP", &upstream.addr().to_string())
            .replace("OTHER", &other.addr().to_string())
            .replace("KEY", &key);
        let gateway = Gateway::start(&folder.write("gw.yaml", &text), &["--workers", "1"]);
        Self { gateway, upstream, other, _folder: folder }
    }
}

/// Every name, each in some spellings: letters in any case, and `-`, `_` and `.` for each other.
fn spellings() -> Vec<String> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let names = REGISTRY.iter().flat_map(|p| p.identity_headers).chain(OWN).chain(ALWAYS);
    let mut all = Vec::new();
    for name in names {
        for _ in 0..6 {
            let spelt = name.chars().map(|c| match (c, next(3)) {
                ('-', n) => ['-', '_', '.'][n as usize],
                (c, 0) => c.to_ascii_uppercase(),
                (c, _) => c.to_ascii_lowercase(),
            });
            all.push(spelt.collect());
        }
    }
    all
}

/// Whether a name is one of those, to a framework that takes `_` and `.` for `-`.
fn is_kept(name: &str) -> bool {
    let fold = |n: &str| n.to_lowercase().replace(['_', '.'], "-");
    let mut kept = REGISTRY.iter().flat_map(|p| p.identity_headers).chain(OWN).chain(ALWAYS);
    kept.any(|k| fold(k) == fold(name))
}

/// Asserts that nothing forged came, and that what is the client's own did.
#[track_caller]
fn clean(request: &Message, what: &str, own: bool) {
    for (name, value) in request.fields.iter().chain(&request.trailers) {
        // The gateway's own token, which the policy on `/e` sets.
        let own = name == "X-Gw-Token" && value.starts_with("ey");
        assert!(value != "forged" && (own || !is_kept(name)), "{what}: {name}: {value}\n{request:#?}");
    }
    assert_eq!(
        request.fields.iter().any(|(n, _)| n.eq_ignore_ascii_case("x-mine")),
        own,
        "{what}: {request:#?}"
    );
}

fn lines(names: &[String]) -> String {
    names.iter().map(|n| format!("{n}: forged\r\n")).collect()
}

#[test]
fn no_field_and_no_trailer_is_forged_over_http1() {
    let place = Place::new();
    for some in spellings().chunks(30) {
        let forged = lines(some);
        for (path, derived) in [("/", false), ("/e", false), ("/mirrored", true), ("/page", true)] {
            let before = place.other.seen().len();
            let mut connection = Connection::open(place.gateway.addr());
            // A copy is made of a body whose length is known.
            let (framing, body) = match path {
                "/mirrored" => ("Content-Length: 2\r\n", "hi".to_owned()),
                _ => ("Transfer-Encoding: chunked\r\n", format!("2\r\nhi\r\n0\r\n{forged}X-Sum: 1\r\n\r\n")),
            };
            connection
                .send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nX-Mine: 1\r\n{forged}{framing}\r\n{body}"));
            assert_eq!(connection.response().status(), 200, "{path}");
            if path != "/page" {
                clean(place.upstream.seen().last().expect("a request"), path, true);
            }
            if derived {
                let end = std::time::Instant::now() + PATIENCE;
                while place.other.seen().len() == before {
                    assert!(std::time::Instant::now() < end, "no request of {path}");
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                clean(place.other.seen().last().expect("a request"), path, path == "/mirrored");
            }
        }
    }
}

#[test]
fn no_field_and_no_trailer_is_forged_over_http2() {
    let place = Place::new();
    let mut h2 = H2::open(place.gateway.addr());
    let mut stream = 1;
    // HTTP/2 has names in lower case alone.
    let names: Vec<String> = spellings().iter().map(|n| n.to_lowercase()).collect();
    for some in names.chunks(30) {
        for path in ["/", "/e"] {
            let forged: Vec<(&str, &str)> = some.iter().map(|n| (n.as_str(), "forged")).collect();
            let head = [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "h"),
                (":path", path),
                ("x-mine", "1"),
            ];
            let fields = [&head[..], &forged].concat();
            let trailers = [&forged[..], &[("x-sum", "1")]].concat();
            let before = place.upstream.seen().len();
            h2.send(&[
                Frame::head(stream, 0, &fields),
                Frame::new(DATA, 0, stream, *b"hi"),
                Frame::fields(stream, &trailers),
            ]);
            h2.until(|f| f.stream == stream && (f.kind == HEADERS || f.flags & END_STREAM != 0))
                .expect("an answer");
            let seen = place.upstream.seen();
            assert_eq!(seen.len(), before + 1, "{path}");
            clean(seen.last().expect("a request"), path, true);
            stream += 2;
        }
    }
}

#[test]
fn no_field_of_a_websocket_is_forged() {
    let place = Place::new();
    for some in spellings().chunks(30) {
        let mut connection = Connection::open(place.gateway.addr());
        connection.send(format!(
            "GET /ws HTTP/1.1\r\nHost: h\r\nX-Mine: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
            lines(some)
        ));
        assert_eq!(connection.head().status(), 101);
        clean(place.upstream.seen().last().expect("a request"), "websocket", true);
    }
}
