//! Errors in the forms of the standards, where the config asks for them.

use gw_tests::counting_upstream::Upstream;
use gw_tests::serving::{Serving, get};

fn config(upstream: &Upstream, gateway: &str) -> String {
    format!(
        "_format_version: \"3.0\"
gateway: {gateway}
services:
- name: up
  url: {}
  routes: [{{ name: up, paths: [/up], strip_path: false }}]
  plugins: []
- name: down
  url: http://127.0.0.1:9
  retries: 0
  routes: [{{ name: down, paths: [/down] }}]
- name: unknown
  url: http://nowhere.invalid
  routes: [{{ name: unknown, paths: [/unknown] }}]
- name: locked
  url: {0}
  routes: [{{ name: locked, paths: [/locked], plugins: [{{ name: key-auth }}] }}]
",
        upstream.url()
    )
}

#[test]
fn answers_say_what_the_gateway_has_to_do_with_them() {
    let upstream = Upstream::start();
    let gw = Serving::start(&config(&upstream, "{ proxy_status: true, error_format: problem }"));
    for (path, status, said, title) in [
        ("/up", 200, "gw; received-status=200", ""),
        ("/down", 502, "gw; error=connection_refused", "Bad Gateway"),
        ("/unknown", 503, "gw; error=dns_error", "Service Unavailable"),
        ("/locked", 401, "gw; error=http_request_denied", "Unauthorized"),
        ("/nothing", 404, "gw; error=destination_not_found", "Not Found"),
    ] {
        let answer = send(&gw, path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.head.contains(&format!("Proxy-Status: {said}")), "{path}: {answer:?}");
        if title.is_empty() {
            continue;
        }
        assert!(answer.head.contains("Content-Type: application/problem+json"), "{path}: {answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!((body["title"].as_str(), body["status"].as_u64()), (Some(title), Some(status.into())));
        assert!(body["detail"].is_string() && body["request_id"].is_string(), "{body}");
    }
    let gw = Serving::start(&config(&upstream, "{}"));
    let answer = send(&gw, "/down");
    assert!(!answer.head.contains("Proxy-Status") && !answer.head.contains("problem"), "{answer:?}");
}

fn send(gw: &Serving, path: &str) -> gw_tests::serving::Answer {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(gw.http).expect("the gateway listens");
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n").as_bytes(),
        )
        .expect("it reads");
    gw_tests::serving::receive(&mut stream).expect("an answer")
}

#[test]
fn the_admin_listener_is_not_concerned() {
    let upstream = Upstream::start();
    let gw = Serving::start(&config(&upstream, "{ proxy_status: true }"));
    assert!(!get(gw.admin, "/healthz").head.contains("Proxy-Status"));
}
