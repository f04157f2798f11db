//! What clients must not be able to do: pass for somebody else, or hide one request in another.

use std::net::SocketAddr;

use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::{Connection, Message, curl, request};
use gw_tests::upstream::Upstream;

/// A gateway with a route for everybody, and `/keyed` for alice.
struct Place {
    gateway: Gateway,
    upstream: Upstream,
    _folder: Folder,
}

impl Place {
    fn new() -> Self {
        let (upstream, folder) = (Upstream::start(), Folder::new("trust"));
        let text = format!(
            "_format_version: \"3.0\"
gateway: {{ identity_headers: [X-Tenant] }}
services:
- name: s
  url: http://{}
  routes:
  - {{ name: all, paths: [/] }}
  - {{ name: keyed, paths: [/keyed], strip_path: false, plugins: [{{ name: key-auth }}] }}
consumers: [{{ username: alice, custom_id: a1, keyauth_credentials: [{{ key: alices-key }}] }}]
",
            upstream.addr()
        );
        let config = folder.write("kong.yaml", &text);
        Self { gateway: Gateway::start(&config, &[]), upstream, _folder: folder }
    }

    fn addr(&self) -> SocketAddr {
        self.gateway.addr()
    }
}

/// Every header by which a service may know a caller, or be told another URL.
const NAMES: &[&str] = &[
    "X-Consumer-ID",
    "X-Consumer-Custom-ID",
    "X-Consumer-Username",
    "X-Consumer-Groups",
    "X-Credential-Identifier",
    "X-Anonymous-Consumer",
    "X-Authenticated-Userid",
    "X-Authenticated-Groups",
    "X-Authenticated-Scope",
    "X-User-Id",
    "X-Forwarded-Client-Cert",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Envoy-Original-Path",
    "X-Tenant",
];

fn spellings(name: &str) -> Vec<String> {
    let all = [
        name.to_owned(),
        name.to_lowercase(),
        name.to_uppercase(),
        name.replace('-', "_"),
        name.replace('-', "."),
        name.replacen('-', "_", 1),
    ];
    all.to_vec()
}

/// The fields of a request that a careless framework takes for `name`.
fn taken_for<'a>(request: &'a Message, name: &str) -> Vec<&'a str> {
    let fold = |n: &str| n.to_lowercase().replace(['_', '.'], "-");
    request.fields.iter().filter(|(n, _)| fold(n) == fold(name)).map(|(_, v)| v.as_str()).collect()
}

#[test]
fn nobody_can_pass_for_somebody_else() {
    let place = Place::new();
    for name in NAMES {
        for spelling in spellings(name) {
            for path in ["/", "/keyed"] {
                let fields = format!("{spelling}: forged\r\napikey: alices-key\r\n{spelling}: again\r\n");
                let answer = request(place.addr(), "GET", path, &fields);
                assert_eq!(answer.status(), 200, "{spelling} on {path}: {answer:?}");
                let seen = place.upstream.seen();
                let seen = taken_for(seen.last().expect("it was forwarded"), name);
                let own = match (path, *name) {
                    ("/keyed", "X-Consumer-Username") => vec!["alice"],
                    ("/keyed", "X-Consumer-Custom-ID") => vec!["a1"],
                    ("/keyed", "X-Consumer-ID" | "X-Credential-Identifier") => {
                        assert_eq!(seen.len(), 1, "{spelling} on {path}");
                        assert!(!seen[0].contains("forged") && !seen[0].contains("again"), "{seen:?}");
                        continue;
                    }
                    _ => Vec::new(),
                };
                assert_eq!(seen, own, "{spelling} on {path}");
            }
        }
    }
}

#[test]
fn nobody_can_pass_for_somebody_else_over_http2() {
    let place = Place::new();
    let url = format!("http://{}/keyed", place.addr());
    let fields: Vec<String> =
        NAMES.iter().flat_map(|n| spellings(n)).map(|spelling| format!("{spelling}: forged")).collect();
    // As many at once as the bound on header lines allows.
    for some in fields.chunks(40) {
        let mut args = vec!["--http2-prior-knowledge", "--header", "apikey: alices-key"];
        args.extend(some.iter().flat_map(|f| ["--header", f.as_str()]));
        args.push(&url);
        assert_eq!(curl(&args), "ok");
        let seen = place.upstream.seen();
        let seen = seen.last().expect("it was forwarded");
        assert!(!seen.fields.iter().any(|(_, v)| v == "forged"), "{seen:#?}");
        assert_eq!(taken_for(seen, "X-Consumer-Username"), ["alice"]);
    }
}

#[test]
fn a_client_cannot_have_the_gateways_headers_removed() {
    let place = Place::new();
    let fields =
        "apikey: alices-key\r\nConnection: X-Consumer-Username, X-Forwarded-For, X-Mine\r\nX-Mine: 1\r\n";
    assert_eq!(request(place.addr(), "GET", "/keyed", fields).status(), 200);
    let seen = place.upstream.seen();
    assert_eq!(seen[0].field("x-consumer-username"), Some("alice"));
    assert_eq!(seen[0].field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen[0].field("x-mine"), None, "but what is the client's own may be meant for this hop alone");
}

#[test]
fn a_client_that_is_no_trusted_proxy_is_not_believed() {
    let place = Place::new();
    let claimed = "X-Forwarded-For: 10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\nX-Forwarded-Proto: https\r\n\
                   X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\n\
                   Forwarded: for=10.9.9.9\r\n";
    assert_eq!(request(place.addr(), "GET", "/", claimed).status(), 200);
    let seen = &place.upstream.seen()[0];
    let port = place.addr().port().to_string();
    for (name, value) in [
        ("x-forwarded-for", Some("10.9.9.9, 127.0.0.1")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("api.test")),
        ("x-forwarded-port", Some(port.as_str())),
        ("x-forwarded-prefix", None),
    ] {
        assert_eq!(seen.field(name), value, "{name}: {seen:#?}");
    }
}

/// The request that must never be seen: whoever reads the first one differently finds it.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends `head` (without the line that ends it), then `body` and a hidden request.
#[track_caller]
fn check(place: &Place, start: &str, fields: &str, body: &str, status: u16) {
    let what = format!("{start:?} {fields:?} {body:?}");
    let before = place.upstream.seen().len();
    let mut connection = Connection::open(place.addr());
    connection.send(format!("{start}\r\n{fields}\r\n{body}{HIDDEN}"));
    let answer = connection.response();
    assert_eq!(answer.status(), status, "{what}: {answer:?}");
    assert_eq!(connection.rest(), b"", "{what}: nothing more is answered");
    assert_eq!(place.upstream.seen().len(), before, "{what}: nothing whole reaches the upstream");
}

#[test]
fn heads_that_parsers_disagree_about_are_refused() {
    let place = Place::new();
    let post = "POST / HTTP/1.1";
    for (fields, body, status) in [
        // Two lengths, or one that is none.
        ("Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n", "hello", 400),
        ("Host: a\r\nContent-Length: 5, 5\r\n", "hello", 400),
        ("Host: a\r\nContent-Length: +5\r\n", "hello", 400),
        ("Host: a\r\nContent-Length: -5\r\n", "hello", 400),
        ("Host: a\r\nContent-Length: 0x5\r\n", "hello", 400),
        ("Host: a\r\nContent-Length: 5 \x0b\r\n", "hello", 400),
        ("Host: a\r\nContent-Length:\r\n", "", 400),
        ("Host: a\r\nContent-Length: 99999999999999999999\r\n", "", 400),
        // Codings.
        ("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nTransfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nTransfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n", 501),
        ("Host: a\r\nTransfer-Encoding: xchunked\r\n", "0\r\n\r\n", 501),
        ("Host: a\r\nTransfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nTransfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nTransfer-Encoding\t: chunked\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nTransfer_Encoding : chunked\r\n", "0\r\n\r\n", 400),
        // Lines.
        ("Host: a\r\nX-A: b\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nX-A: b\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("Host: a\r\nX-A: b\r\n folded\r\n", "", 400),
        (" Host: a\r\n", "", 400),
        ("Host: a\r\nX-A: \0\r\n", "", 400),
        ("Host: a\r\nX A: b\r\n", "", 400),
        ("Host: a\r\n: b\r\n", "", 400),
        ("Host: a\r\nno colon\r\n", "", 400),
        // Hosts.
        ("", "", 400),
        ("Host: a\r\nHost: b\r\n", "", 400),
        ("Host: a\r\nHost: a\r\n", "", 400),
        ("Host: a, b\r\n", "", 400),
        ("Host: user@a\r\n", "", 400),
        ("Host: a/b\r\n", "", 400),
        ("Host: a:99999\r\n", "", 400),
        ("Host:\r\n", "", 400),
        // Two callers.
        ("Host: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n", "", 400),
        ("Host: a\r\nExpect: 200-ok\r\n", "", 417),
    ] {
        check(&place, post, fields, body, status);
    }
    check(&place, "POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n", 400);
    check(&place, "POST /\tx HTTP/1.1", "Host: a\r\n", "", 400);
    check(&place, "POST /a\u{0}b HTTP/1.1", "Host: a\r\n", "", 400);
    for path in ["/a/..%2f..%2fb", "/a%00b", "/%zz", "/a/%2e%2e%2f", "/a/..%5cb"] {
        // These are well framed: the next request would be answered, if the gateway did not give up on such a client.
        check(&place, &format!("POST {path} HTTP/1.1"), "Host: a\r\n", "", 400);
    }
}

#[test]
fn bodies_that_parsers_disagree_about_are_refused() {
    let place = Place::new();
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-A: b\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    ] {
        check(&place, "POST / HTTP/1.1", "Host: a\r\nTransfer-Encoding: chunked\r\n", body, 400);
    }
    assert_eq!(request(place.addr(), "GET", "/", "").status(), 200, "the gateway goes on");
}

#[test]
fn what_the_gateway_says_itself_has_no_second_spelling() {
    let place = Place::new();
    for field in [
        "Content_Length: 100",
        "transfer_encoding: chunked",
        "Transfer.Encoding: chunked",
        "X_Forwarded_For: 1.2.3.4",
        "X-Forwarded_Proto: https",
        "X_Real_IP: 1.2.3.4",
        "HTTP2-Settings: AAMAAABk",
    ] {
        let answer = request(place.addr(), "GET", "/", &format!("{field}\r\nX_Kept: 1\r\n"));
        assert_eq!(answer.status(), 200, "{field}");
        let seen = place.upstream.seen();
        let seen = seen.last().expect("it was forwarded");
        let name = field.split(':').next().unwrap_or_default();
        assert_eq!((seen.field(name), seen.field("X_Kept")), (None, Some("1")), "{field}");
    }
}

#[test]
fn a_redirect_to_https_believes_only_trusted_proxies_about_the_host() {
    let folder = Folder::new("redirect");
    for (trusted, told, expected) in [
        ("127.0.0.1", "", "https://gw.test/x?y=%20z"),
        ("127.0.0.1", "X-Forwarded-Host: shop.test\r\n", "https://shop.test/x?y=%20z"),
        ("127.0.0.1", "X-Forwarded-Host: evil.test/a?\r\n", "https://gw.test/x?y=%20z"),
        ("10.0.0.1", "X-Forwarded-Host: shop.test\r\n", "https://gw.test/x?y=%20z"),
    ] {
        let config = folder.write(
            "kong.yaml",
            &format!(
                "_format_version: \"3.0\"
gateway: {{ trusted_ips: [{trusted}] }}
routes: [{{ name: r, paths: [/], protocols: [https], https_redirect_status_code: 308 }}]
"
            ),
        );
        let gateway = Gateway::start(&config, &[]);
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("GET /x?y=%20z HTTP/1.1\r\nHost: GW.test:8000\r\n{told}\r\n"));
        let answer = connection.response();
        assert_eq!((answer.status(), answer.field("location")), (308, Some(expected)), "{trusted} {told:?}");
    }
}
