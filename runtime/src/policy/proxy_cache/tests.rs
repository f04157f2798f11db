//! Sequences of requests through one cache.

use serde_json::{Value, json};

use super::*;
use crate::policy::testing;

/// Sends requests through one cache; each is `at`, the request and what the upstream would say. Wants status of the
/// cache and body.
fn check(config: Value, steps: &[(u64, &str, &str, &str)]) {
    let mut full = json!({"strategy": "memory"});
    full.as_object_mut().expect("an object").extend(config.as_object().expect("an object").clone());
    let policy = testing::policy::<ProxyCache>(&full);
    for (at, request, upstream, want) in steps {
        let mut x = testing::exchange(request);
        x.now.unix_ms = (1_000_000 + at) * 1000;
        let body = match testing::request(&policy, &mut x) {
            Flow::Next => testing::response(&policy, &mut x, upstream),
            Flow::Reply(reply) => {
                x.local_response = true;
                x.response.status = reply.status;
                reply.write_fields(&mut x.response.fields);
                policy.response(&mut x);
                String::from_utf8_lossy(&reply.body).into_owned()
            }
            Flow::Await(_) => panic!("waits for nothing"),
        };
        let field = |name: &str| x.response.fields.text(&FieldName::new(name)).unwrap_or("-").to_owned();
        let got = format!("{} {} {body}", x.response.status, field("X-Cache-Status"));
        assert_eq!(got.trim_end(), *want, "{full} {at} {request}");
        if got.contains("Hit") {
            assert_eq!(field("Content-Type"), "text/plain");
            assert_ne!(field("Age"), "-");
        }
    }
}

const ONE: &str = "200\nContent-Type: text/plain\nX-A: b\n\none";
const TWO: &str = "200\nContent-Type: text/plain\n\ntwo";

#[test]
fn what_the_sender_chooses_does_not_reach_others() {
    let key = |host: &str, request: &str| {
        let policy = testing::policy::<ProxyCache>(&json!({"strategy": "memory"}));
        let mut x = testing::exchange(request);
        x.request.host = host.to_owned();
        testing::request(&policy, &mut x);
        match x.kept::<State>() {
            Some(State::Wanted { key, .. }) => Some(*key),
            _ => None,
        }
    };
    let plain = key("a.test", "GET /a");
    assert!(plain.is_some());
    assert_eq!(key("A.test", "GET /a"), plain, "hosts have no case");
    assert_ne!(key("b.test", "GET /a"), plain, "another host");
    for (request, asked) in [
        ("GET /a\nContent-Length: 0", true),
        ("GET /a\nContent-Length: 5", false),
        ("HEAD /a\nTransfer-Encoding: chunked", false),
    ] {
        assert_eq!(key("a.test", request).is_some(), asked, "{request}");
    }
}

#[test]
fn answers_are_kept_for_their_time() {
    check(
        json!({"cache_ttl": 10}),
        &[
            (0, "GET /a?x=1&y=2", ONE, "200 Miss one"),
            (9, "GET /a?y=2&x=1", TWO, "200 Hit one"),
            (9, "GET /a?x=1", TWO, "200 Miss two"),
            (9, "GET /A?x=1&y=2", TWO, "200 Miss two"),
            (9, "POST /a?x=1&y=2", TWO, "200 Bypass two"),
            (11, "GET /a?x=1&y=2", TWO, "200 Miss two"),
        ],
    );
    check(
        json!({"cache_ttl": 10, "storage_ttl": 100, "ignore_uri_case": true}),
        &[
            (0, "GET /a", ONE, "200 Miss one"),
            (5, "GET /A", TWO, "200 Hit one"),
            (11, "GET /a", TWO, "200 Refresh two"),
            (12, "GET /a", ONE, "200 Hit two"),
        ],
    );
}

#[test]
fn only_listed_answers_are_kept() {
    for upstream in [
        "500\nContent-Type: text/plain\n\nx",
        "200\nContent-Type: text/html\n\nx",
        "200\nContent-Type: text/plain; charset=utf-8\n\nx",
        "200\n\nx",
        "200\nContent-Type: text/plain\nSet-Cookie: a=b\n\nx",
        "200\nContent-Type: text/plain\nContent-Length: 99999999\n\nx",
    ] {
        let want = format!("{} Bypass x", &upstream[..3]);
        check(json!({}), &[(0, "GET /a", upstream, &want), (0, "GET /a", TWO, "200 Miss two")]);
    }
    let types = json!({"content_type": ["text/*; charset=utf-8"]});
    check(types, &[(0, "GET /a", "200\nContent-Type: text/x; Charset=UTF-8\n\nx", "200 Miss x")]);
}

#[test]
fn headers_and_arguments_tell_requests_apart() {
    check(
        json!({"vary_headers": ["Accept-Language"], "vary_query_params": ["q"]}),
        &[
            (0, "GET /?q=1&z=1\nAccept-Language: de", ONE, "200 Miss one"),
            (0, "GET /?q=1&z=2\nAccept-Language: de", TWO, "200 Hit one"),
            (0, "GET /?q=1\nAccept-Language: en", TWO, "200 Miss two"),
            (0, "GET /?q=2\nAccept-Language: de", TWO, "200 Miss two"),
        ],
    );
}

#[test]
fn cache_control_is_heeded_on_request() {
    let lasting = "200\nContent-Type: text/plain\nCache-Control: public, max-age=10\n\none";
    let asking = |directive: &str| format!("GET /\nCache-Control: {directive}");
    check(
        json!({"cache_control": true, "storage_ttl": 100}),
        &[
            (0, &asking("only-if-cached"), ONE, "504 -"),
            (0, "GET /", ONE, "200 Bypass one"),
            (
                0,
                "GET /",
                "200\nContent-Type: text/plain\nCache-Control: private, max-age=9\n\nx",
                "200 Bypass x",
            ),
            (0, "GET /", lasting, "200 Miss one"),
            (5, "GET /", TWO, "200 Hit one"),
            (5, &asking("no-cache"), TWO, "200 Bypass two"),
            (5, "GET /\nAuthorization: x", TWO, "200 Bypass two"),
            (5, &asking("max-age=4"), TWO, "200 Bypass two"),
            (5, &asking("min-fresh=6"), TWO, "200 Bypass two"),
            (5, &asking("min-fresh=5"), TWO, "200 Hit one"),
            (15, &asking("max-stale=5"), TWO, "200 Hit one"),
            (15, "GET /", lasting, "200 Refresh one"),
        ],
    );
}
