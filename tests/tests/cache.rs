//! `proxy-cache` with `mode: rfc9111` over real sockets: validators, `Vary`, stale answers, one request for many, ranges,
//! and what makes it forget.

use std::net::SocketAddr;
use std::time::Duration;

use gw_tests::canned::{Answer, Canned};
use gw_tests::http::{Message, request};
use gw_tests::serving::Serving;

const FRESH: &str = "Cache-Control: max-age=60\r\nETag: \"1\"\r\n";

struct Cache {
    gateway: Serving,
    origin: Canned,
}

fn cache(answers: &[Answer], more: &str) -> Cache {
    let origin = Canned::start(answers);
    let gateway = Serving::start(&format!(
        "_format_version: '3.0'\nservices:\n- name: origin\n  url: http://{}/o\n  retries: 0\n  routes: [{{name: r, paths: [/]}}]\n\
         plugins: [{{name: proxy-cache, config: {{strategy: memory, mode: rfc9111{more}}}}}]\n",
        origin.addr()
    ));
    Cache { gateway, origin }
}

impl Cache {
    fn addr(&self) -> SocketAddr {
        self.gateway.http
    }

    /// `CACHE-STATUS STATUS BODY` of a request.
    fn ask(&self, method: &str, target: &str, fields: &str) -> (String, Message) {
        let answer = request(self.addr(), method, target, fields);
        let status = answer.field("x-cache-status").unwrap_or("-").to_owned();
        (format!("{status} {} {}", answer.status(), answer.text()), answer)
    }

    fn check(&self, target: &str, fields: &str, want: &str) -> Message {
        let (got, answer) = self.ask("GET", target, fields);
        assert_eq!(got, want, "{target} {fields}");
        answer
    }

    fn asked(&self) -> usize {
        self.origin.seen().len()
    }
}

#[test]
fn answers_are_kept_and_conditions_and_ranges_answered() {
    let c = cache(&[("GET /o/a", 0, 200, FRESH, "0123456789")], "");
    c.check("/a", "", "Miss 200 0123456789");
    let hit = c.check("/a", "", "Hit 200 0123456789");
    assert!(hit.field("age").is_some() && hit.field("etag") == Some("\"1\""));
    assert_eq!(hit.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("date")).count(), 1);
    c.check("/a", "If-None-Match: \"1\"\r\n", "Hit 304 ");
    c.check("/a", "Range: bytes=2-4\r\n", "Hit 206 234");
    c.check("/a", "Range: bytes=99-\r\n", "Hit 416 ");
    assert_eq!(c.asked(), 1);
    c.check("/a", "Cache-Control: no-cache\r\n", "Refresh 200 0123456789");
    assert_eq!(c.origin.seen()[1].field("if-none-match"), Some("\"1\""));
    c.check("/none", "Cache-Control: only-if-cached\r\n", "- 504 ");
}

#[test]
fn old_answers_are_asked_about() {
    let old = "Cache-Control: max-age=0\r\nETag: \"1\"\r\nX-N: 1\r\n";
    let c = cache(&[("GET /o/a", 0, 200, old, "one")], "");
    c.check("/a", "", "Miss 200 one");
    c.origin.answer(&[("GET /o/a", 0, 304, "ETag: \"1\"\r\nX-N: 2\r\nCache-Control: max-age=60\r\n", "")]);
    let again = c.check("/a", "", "Revalidated 200 one");
    assert_eq!(again.field("x-n"), Some("2"), "what a 304 says is new");
    c.check("/a", "", "Hit 200 one");
    assert_eq!(c.asked(), 2);
    c.origin.answer(&[("GET /o/a", 0, 200, "ETag: \"2\"\r\nCache-Control: max-age=60\r\n", "two")]);
    c.check("/a", "Cache-Control: no-cache\r\n", "Refresh 200 two");
    c.check("/a", "", "Hit 200 two");
}

#[test]
fn what_varies_is_kept_apart() {
    let c = cache(&[("GET /o/a", 0, 200, "Cache-Control: max-age=60\r\nVary: X-L\r\n", "x")], "");
    for (fields, want) in
        [("X-L: a\r\n", "Miss"), ("X-L: b\r\n", "Miss"), ("X-L: a\r\n", "Hit"), ("", "Miss"), ("", "Hit")]
    {
        assert!(c.ask("GET", "/a", fields).0.starts_with(want), "{fields} {want}");
    }
}

#[test]
fn stale_answers_are_given_where_that_is_allowed() {
    let swr = "Cache-Control: max-age=0, stale-while-revalidate=60\r\nETag: \"1\"\r\n";
    let sie = "Cache-Control: max-age=0, stale-if-error=60\r\nETag: \"1\"\r\n";
    let strict = "Cache-Control: max-age=0, stale-if-error=60, must-revalidate\r\nETag: \"1\"\r\n";
    let all = [
        ("GET /o/swr", 0, 200, swr, "1"),
        ("GET /o/sie", 0, 200, sie, "1"),
        ("GET /o/strict", 0, 200, strict, "1"),
    ];
    let c = cache(&all, "");
    for path in ["/swr", "/sie", "/strict"] {
        c.check(path, "", "Miss 200 1");
    }
    c.origin.answer(&[
        ("GET /o/swr", 300, 200, "Cache-Control: max-age=60\r\n", "2"),
        ("GET /o/sie", 0, 503, "", "down"),
        ("GET /o/strict", 0, 503, "", "down"),
    ]);
    let began = std::time::Instant::now();
    c.check("/swr", "", "Stale 200 1");
    assert!(began.elapsed() < Duration::from_millis(250), "nobody waits for the new one");
    std::thread::sleep(Duration::from_millis(600));
    c.check("/swr", "", "Hit 200 2");
    c.check("/sie", "", "Stale 200 1");
    c.check("/strict", "", "Refresh 503 down");
}

#[test]
fn of_many_that_want_the_same_one_asks() {
    let c = cache(
        &[
            ("GET /o/a", 300, 200, FRESH, "x"),
            ("GET /o/private", 100, 200, "Cache-Control: private\r\n", "p"),
        ],
        "",
    );
    let ask = |path: &'static str| {
        let addr = c.addr();
        let all: Vec<_> =
            (0..8).map(|_| std::thread::spawn(move || request(addr, "GET", path, "").text())).collect();
        all.into_iter().map(|t| t.join().expect("an answer")).collect::<Vec<_>>()
    };
    assert_eq!(ask("/a"), vec!["x"; 8]);
    assert_eq!(c.asked(), 1);
    assert_eq!(ask("/private"), vec!["p"; 8]);
    assert_eq!(c.asked(), 9, "what is not kept is asked for by everybody");
    let began = std::time::Instant::now();
    ask("/private");
    assert!(began.elapsed() < Duration::from_millis(195), "and waited for once");
}

#[test]
fn changes_and_purges_make_it_forget() {
    let c = cache(&[("GET /o/a", 0, 200, FRESH, "x"), ("POST /o/a", 0, 200, "", "")], "");
    let key = c.check("/a", "", "Miss 200 x");
    c.check("/a", "", "Hit 200 x");
    assert!(key.field("x-cache-key").is_none(), "a key is known when something is kept");
    c.ask("POST", "/a", "");
    c.check("/a", "", "Miss 200 x");
    let hit = c.check("/a", "", "Hit 200 x");
    let key = hit.field("x-cache-key").expect("a key");
    let admin = |method: &str, path: &str| request(c.gateway.admin, method, path, "");
    let shown = admin("GET", &format!("/proxy-cache/{key}"));
    let json: serde_json::Value = serde_json::from_slice(&shown.body).expect("JSON");
    assert_eq!((&json["status"], &json["body_len"], &json["ttl"]), (&200.into(), &1.into(), &60.into()));
    assert_eq!(admin("DELETE", &format!("/proxy-cache/{key}")).status(), 204);
    assert_eq!(admin("DELETE", &format!("/proxy-cache/{key}")).status(), 404);
    c.check("/a", "", "Miss 200 x");
    assert_eq!(admin("DELETE", "/proxy-cache").status(), 204);
    c.check("/a", "", "Miss 200 x");
    assert_eq!(admin("DELETE", "/proxy-cache/xyz").status(), 404);
    assert_eq!(admin("GET", "/proxy-cache").status(), 405);
}

#[test]
fn answers_of_one_service_are_not_those_of_another_nor_one_callers_those_of_another() {
    let (old, new) = (
        Canned::start(&[("GET /a", 0, 200, FRESH, "old")]),
        Canned::start(&[("GET /a", 0, 200, FRESH, "new")]),
    );
    for mode in ["kong", "rfc9111"] {
        let gateway = Serving::start(&format!(
            "_format_version: '3.0'\nservices:\n- {{name: old, url: 'http://{}', routes: [{{name: r, paths: [/]}}]}}\n\
             - {{name: new, url: 'http://{}'}}\nconsumers:\n- {{username: a, keyauth_credentials: [{{key: a}}]}}\n\
             - {{username: b, keyauth_credentials: [{{key: b}}]}}\nplugins:\n- name: proxy-cache\n  config: {{strategy: memory, \
             mode: {mode}, content_type: ['*/*']}}\n- {{name: key-auth}}\n- name: traffic-split\n  config: {{rules: [{{when: {{header: \
             {{X-New: '1'}}}}, service: new}}]}}\n",
            old.addr(),
            new.addr()
        ));
        let ask = |fields: &str| {
            let answer = request(gateway.http, "GET", "/a", fields);
            format!("{} {}", answer.field("x-cache-status").unwrap_or("-"), answer.text())
        };
        let kept = if mode == "kong" { "Bypass" } else { "Hit" };
        assert_eq!(ask("apikey: a\r\n").split(' ').next_back(), Some("old"), "{mode}");
        assert_eq!(ask("apikey: a\r\nX-New: 1\r\n").split(' ').next_back(), Some("new"), "{mode}");
        assert_eq!(ask("apikey: a\r\n"), format!("{kept} old"), "{mode}");
        assert!(!ask("apikey: b\r\n").starts_with("Hit"), "{mode}");
    }
}
