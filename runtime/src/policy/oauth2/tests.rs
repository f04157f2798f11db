use serde_json::{Value, json};

use super::*;
use crate::policy::testing::{self, ALICE, exchange_in, policy, refuses, snapshot};
use crate::snapshot::{ConsumerId, ServiceId, Snapshot};

/// Tokens: `global`, `svc` (good for service 0), `old` (over), `new` (not yet over), `scoped`.
fn with_tokens() -> Snapshot {
    let mut snapshot = snapshot();
    let now = crate::clock::unix_s();
    for (token, service, good_until, scope) in [
        ("global", None, None, None),
        ("svc", Some(ServiceId(0)), None, None),
        ("old", None, Some(now - 1), None),
        ("new", None, Some(now + 1000), None),
        ("scoped", None, None, Some("read write")),
    ] {
        let data = OAuth2Token {
            client_id: "app".into(),
            service,
            good_until,
            scope: scope.map(str::to_owned),
            user: scope.map(|_| "u-17".to_owned()),
        };
        let credential = Credential { id: format!("id-{token}"), consumer: ConsumerId(0), data };
        snapshot.credentials.oauth2.insert(fingerprint(token), credential);
    }
    snapshot
}

/// Status (200 for a request that goes on), `error` of the answer, and its challenge.
fn ask(config: &Value, request: &str) -> (u16, String, String, Exchange) {
    let policy = policy::<OAuth2>(config);
    let mut x = exchange_in(with_tokens(), request);
    x.service = Some(ServiceId(1));
    match testing::request(&policy, &mut x) {
        Flow::Next => (200, String::new(), String::new(), x),
        Flow::Reply(reply) => {
            let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
            let error = body["error"].as_str().unwrap_or_default().to_owned();
            let challenge = reply.fields.iter().find(|(n, _)| *n == names::WWW_AUTHENTICATE);
            (reply.status, error, challenge.map(|(_, v)| v.clone()).unwrap_or_default(), x)
        }
        Flow::Await(effect) => panic!("{effect:?}"),
    }
}

#[test]
fn tokens_are_found_wherever_they_may_stand() {
    let config = json!({"global_credentials": true});
    let form = "Content-Type: application/x-www-form-urlencoded";
    for (request, want) in [
        ("GET /\nAuthorization: Bearer global".to_owned(), (200, "")),
        ("GET /\nAuthorization: bEARER  global".to_owned(), (200, "")),
        ("GET /\nAuthorization: token global".to_owned(), (200, "")),
        ("GET /\nAuthorization: global".to_owned(), (200, "")),
        ("GET /\nAuthorization: Bearer new".to_owned(), (200, "")),
        ("GET /?access_token=global".to_owned(), (200, "")),
        (format!("POST /\n{form}\n\naccess_token=global"), (200, "")),
        ("PUT /\nContent-Type: application/json\n\n{\"access_token\":\"global\"}".to_owned(), (200, "")),
        (format!("POST /?access_token=bad\n{form}\n\naccess_token=global"), (200, "")),
        (format!("DELETE /\n{form}\n\naccess_token=global"), (401, "invalid_request")),
        ("GET /".to_owned(), (401, "invalid_request")),
        ("GET /?access_token".to_owned(), (401, "invalid_request")),
        ("GET /?access_token=global&access_token=global".to_owned(), (401, "invalid_request")),
        ("GET /?access_token=".to_owned(), (401, "invalid_token")),
        ("GET /\nAuthorization: Basic global".to_owned(), (401, "invalid_token")),
        ("GET /\nAuthorization: Bearer global x".to_owned(), (401, "invalid_token")),
        ("GET /\nAuthorization: Bearer GLOBAL".to_owned(), (401, "invalid_token")),
        ("GET /?access_token=global\nAuthorization: Bearer bad".to_owned(), (401, "invalid_token")),
        ("GET /\nAuthorization: Bearer old".to_owned(), (401, "invalid_token")),
    ] {
        let (status, error, ..) = ask(&config, &request);
        assert_eq!((status, error.as_str()), want, "{request}");
    }
    let named = json!({"global_credentials": true, "auth_header_name": "X-Token"});
    assert_eq!(ask(&named, "GET /\nX-Token: global").0, 200);
    assert_eq!(ask(&named, "GET /\nAuthorization: Bearer global").0, 401);
}

#[test]
fn tokens_are_good_for_their_service_or_for_all() {
    let (all, own) = (json!({"global_credentials": true}), json!({}));
    for (config, token, service, want) in [
        (&all, "global", 1, 200),
        (&own, "global", 1, 401),
        (&own, "svc", 0, 200),
        (&own, "svc", 1, 401),
        (&all, "svc", 1, 401),
    ] {
        let policy = policy::<OAuth2>(config);
        let mut x = exchange_in(with_tokens(), &format!("GET /\nAuthorization: Bearer {token}"));
        x.service = Some(ServiceId(service));
        let status = match policy.request(&mut x) {
            Flow::Next => 200,
            Flow::Reply(reply) => reply.status,
            Flow::Await(_) => 0,
        };
        assert_eq!(status, want, "{config} {token} {service}");
    }
}

#[test]
fn challenges_are_those_of_rfc_6750() {
    let (_, _, challenge, _) = ask(&json!({}), "GET /");
    assert_eq!(challenge, "Bearer");
    let (_, _, challenge, _) = ask(&json!({"realm": "r"}), "GET /\nAuthorization: Bearer bad");
    let want = "Bearer realm=\"r\", error=\"invalid_token\", error_description=\"The access token is invalid or has expired\"";
    assert_eq!(challenge, want);
    let config = json!({"global_credentials": true, "scopes_all": ["admin"]});
    let (status, error, challenge, _) = ask(&config, "GET /\nAuthorization: Bearer scoped");
    assert_eq!((status, error.as_str()), (403, "insufficient_scope"));
    assert!(
        challenge.starts_with("Bearer error=") && challenge.ends_with(", scope=\"admin\""),
        "{challenge}"
    );
    let config = json!({"global_credentials": true, "scopes_any": ["admin", "write"]});
    assert_eq!(ask(&config, "GET /\nAuthorization: Bearer scoped").0, 200);
}

#[test]
fn the_upstream_is_told_who_calls_and_not_the_token() {
    let config = json!({"global_credentials": true, "hide_credentials": true});
    let said = |x: &Exchange, name: &str| x.request.fields.text(&FieldName::new(name)).map(str::to_owned);
    let (_, _, _, x) = ask(&config, "GET /\nAuthorization: Bearer scoped");
    for (name, want) in [
        ("X-Consumer-ID", Some(ALICE)),
        ("X-Credential-Identifier", Some("app")),
        ("X-Authenticated-Scope", Some("read write")),
        ("X-Authenticated-Userid", Some("u-17")),
        ("Authorization", None),
    ] {
        assert_eq!(said(&x, name).as_deref(), want, "{name}");
    }
    let forged = "GET /?a=1&access_token=global\nX-Authenticated-Scope: all\nX-Authenticated-Userid: root";
    let (_, _, _, x) = ask(&config, forged);
    assert_eq!(x.request.query.as_deref(), Some("a=1"));
    assert_eq!((said(&x, "X-Authenticated-Scope"), said(&x, "X-Authenticated-Userid")), (None, None));
    let form = "POST /\nContent-Type: application/x-www-form-urlencoded\n\na=1&access_token=global";
    assert_eq!(ask(&config, form).3.body.as_deref(), Some(&b"a=1"[..]));
    let (_, _, _, x) = ask(&json!({"global_credentials": true}), "GET /\nAuthorization: Bearer scoped");
    assert_eq!(said(&x, "Authorization").as_deref(), Some("Bearer scoped"));
}

#[test]
fn failures_may_be_anonymous_but_not_a_lack_of_scopes() {
    let config = json!({"anonymous": "anon", "global_credentials": true, "scopes_all": ["admin"]});
    let (status, _, _, x) = ask(&config, "GET /\nAuthorization: Bearer bad");
    assert_eq!(status, 200);
    assert_eq!(x.request.fields.text(&FieldName::new("X-Anonymous-Consumer")), Some("true"));
    assert_eq!(ask(&config, "GET /\nAuthorization: Bearer scoped").0, 403);
}

#[test]
fn no_tokens_are_issued() {
    let config = json!({"enable_client_credentials": true, "global_credentials": true});
    for (request, want) in [
        ("POST /api/oauth2/token", (400, "unsupported_grant_type")),
        ("POST /oauth2/token/", (400, "unsupported_grant_type")),
        ("POST /oauth2/authorize", (400, "unsupported_response_type")),
        ("GET /oauth2/token", (401, "invalid_request")),
        ("POST /oauth2/token/x", (401, "invalid_request")),
    ] {
        let (status, error, ..) = ask(&config, request);
        assert_eq!((status, error.as_str()), want, "{request}");
    }
    assert_eq!(ask(&json!({}), "POST /oauth2/token").0, 401, "without grants it is a path like any other");
    refuses::<OAuth2>(json!({"mandatory_scope": true}), "`mandatory_scope` needs `scopes`");
}
