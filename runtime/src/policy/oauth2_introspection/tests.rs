use serde_json::json;

use super::*;
use crate::policy::call::{CallError, CallResponse};
use crate::policy::testing::{self, exchange, policy, refuses};

fn config(more: Value) -> Value {
    let mut config = json!({"introspection_url": "https://id.test/introspect", "client_id": "gw me", "client_secret": "a:b"});
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    config
}

fn says(status: u16, body: impl Into<String>) -> Result<CallResponse, CallError> {
    let body: String = body.into();
    Ok(CallResponse {
        status,
        fields: Fields::default(),
        body: body.into(),
        trailers: Fields::default(),
        took: Duration::ZERO,
    })
}

/// What comes of a request: `next` with the fields in `show`, or the status and `WWW-Authenticate`. And what the
/// server was asked.
fn run(
    policy: &Introspection,
    request: &str,
    server: &Result<CallResponse, CallError>,
    show: &[&str],
) -> (String, Vec<Call>) {
    let mut x = exchange(request);
    let mut flow = policy.request(&mut x);
    let mut asked = Vec::new();
    while let Flow::Await(effect) = flow {
        let Effect::Call(mut calls) = effect else { panic!("nobody else asks") };
        asked.append(&mut calls);
        flow = policy.resume(&mut x, Answer::Call(vec![server.clone()]));
    }
    let outcome = match flow {
        Flow::Reply(reply) => {
            let field = reply.fields.iter().map(|(n, v)| format!(" {}: {v}", n.as_str())).collect::<String>();
            format!("{}{field}", reply.status)
        }
        _ => {
            let value = |n: &&str| x.request.fields.text(&FieldName::new(n)).unwrap_or("-").to_owned();
            show.iter().map(value).fold("next".to_owned(), |all, v| format!("{all} {v}"))
        }
    };
    (outcome, asked)
}

const REQUEST: &str = "GET /\nAuthorization: Bearer opaque-1";

#[test]
fn only_active_tokens_with_all_that_is_asked_for_are_let_in() {
    let now = crate::clock::unix_s();
    let invalid = "401 WWW-Authenticate: Bearer error=\"invalid_token\", error_description=\"The access token is invalid or has expired\"";
    let unavailable = "503 Retry-After: 1";
    let check = |more: Value, answer: &Result<CallResponse, CallError>, want: &str| {
        let policy = policy::<Introspection>(&config(more.clone()));
        let (got, _) = run(&policy, REQUEST, answer, &["X-Credential-Identifier", "X-User-Id"]);
        assert_eq!(got, want, "{more} {answer:?}");
    };
    let active = |more: Value| {
        let mut body = json!({"active": true, "sub": "ann"});
        more.as_object().into_iter().flatten().for_each(|(n, v)| body[n] = v.clone());
        says(200, body.to_string())
    };
    let none = json!({});
    check(json!({"claims_to_headers": {"sub": "X-User-Id"}}), &active(json!({})), "next ann ann");
    check(none.clone(), &active(json!({"exp": now + 60, "nbf": now - 1})), "next ann -");
    check(none.clone(), &says(200, r#"{"active":true,"client_id":"c"}"#), "next c -");
    check(none.clone(), &says(200, r#"{"active":true,"sub":"a\r\nX-Evil: 1"}"#), "next - -");
    check(none.clone(), &says(200, r#"{"active":false,"sub":"ann"}"#), invalid);
    check(none.clone(), &active(json!({"exp": now})), invalid);
    check(none.clone(), &active(json!({"exp": "soon"})), invalid);
    check(none.clone(), &active(json!({"nbf": now + 60})), invalid);
    check(json!({"audiences": ["api"]}), &active(json!({"aud": ["x", "api"]})), "next ann -");
    check(json!({"audiences": ["api"]}), &active(json!({"aud": "other"})), invalid);
    check(json!({"required_claims": {"tenant": "t1"}}), &active(json!({"tenant": "t2"})), invalid);
    check(json!({"scopes_all": ["r", "w"]}), &active(json!({"scope": "w x r"})), "next ann -");
    let scope = "403 WWW-Authenticate: Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"r w\"";
    check(json!({"scopes_all": ["r", "w"], "realm": "api"}), &active(json!({"scope": "rw r"})), scope);
    check(json!({"scopes_all": ["r", "w"], "realm": "api", "anonymous": "anon"}), &active(json!({})), scope);
    check(json!({"consumer_claim": "sub"}), &active(json!({"sub": "bob"})), "next bob -");
    let stranger = "401 WWW-Authenticate: Bearer error=\"invalid_token\", error_description=\"No consumer found for the access token\"";
    check(json!({"consumer_claim": "sub"}), &active(json!({})), stranger);
    check(json!({"anonymous": "anon"}), &says(200, r#"{"active":false}"#), "next - -");
    for down in [
        Err(CallError::Timeout),
        Err(CallError::Unreachable),
        Err(CallError::TooLarge),
        says(500, r#"{"active":true}"#),
        says(401, r#"{"active":true}"#),
        says(302, ""),
        says(200, ""),
        says(200, "<html>"),
        says(200, "{}"),
        says(200, r#"{"active":"true"}"#),
        says(200, r#"{"active":false,"active":true}"#),
        says(200, "[true]"),
    ] {
        check(none.clone(), &down, unavailable);
        check(json!({"anonymous": "anon"}), &down, unavailable);
    }
}

#[test]
fn the_server_is_asked_as_it_wants_to_be_and_only_for_tokens() {
    let active = says(200, r#"{"active":true}"#);
    let ask = |more: Value, request: &str| {
        run(&policy::<Introspection>(&config(more)), request, &active, &["Authorization"])
    };
    let (_, asked) = ask(json!({"token_type_hint": "access_token"}), "GET /\nAuthorization: bEARER  a+/=~");
    let call = &asked[0];
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/introspect"));
    assert_eq!(call.body, "token=a%2B%2F%3D%7E&token_type_hint=access_token".as_bytes());
    assert_eq!(call.fields.text(&names::AUTHORIZATION), Some("Basic Z3clMjBtZTphJTNBYg=="));
    let (_, asked) = ask(json!({"client_auth": "post"}), REQUEST);
    assert_eq!(asked[0].body, "token=opaque-1&client_id=gw%20me&client_secret=a%3Ab".as_bytes());
    assert!(!asked[0].fields.contains(&names::AUTHORIZATION));

    let malformed = "401 WWW-Authenticate: Bearer error=\"invalid_request\"";
    let long = format!("GET /\nAuthorization: Bearer {}", "a".repeat(9000));
    for (request, want) in [
        ("GET /", "401 WWW-Authenticate: Bearer"),
        ("GET /\nAuthorization: Basic YTpi", "401 WWW-Authenticate: Bearer"),
        ("GET /\nAuthorization: Bearer", malformed),
        ("GET /\nAuthorization: Bearer a b", malformed),
        ("GET /\nAuthorization: Bearer a&client_id=x", malformed),
        (&long, malformed),
    ] {
        let (got, asked) = ask(json!({}), request);
        assert_eq!((got.as_str(), asked.len()), (want, 0), "{request}");
    }
    assert_eq!(ask(json!({"anonymous": "anon"}), "GET /").0, "next -");
    assert_eq!(ask(json!({"run_on_preflight": false}), "OPTIONS /").0, "next -");
    assert_eq!(ask(json!({"hide_credentials": true}), REQUEST).0, "next -");
    let own = json!({"introspection_url": "https://id.test/", "authorization_value": "Bearer own"});
    let (_, asked) = run(&policy::<Introspection>(&own), REQUEST, &active, &[]);
    assert_eq!(asked[0].fields.text(&names::AUTHORIZATION), Some("Bearer own"));
}

#[test]
fn answers_are_remembered_within_bounds() {
    let asks = |more: Value, answer: &Result<CallResponse, CallError>| {
        let policy = policy::<Introspection>(&config(more));
        (0..3).map(|_| run(&policy, REQUEST, answer, &[]).1.len()).sum::<usize>()
    };
    let now = crate::clock::unix_s();
    let active = says(200, r#"{"active":true}"#);
    assert_eq!(asks(json!({}), &active), 1);
    assert_eq!(asks(json!({"ttl": 0}), &active), 3);
    assert_eq!(asks(json!({}), &says(200, json!({"active": true, "exp": now}).to_string())), 1, "a bad one");
    let ending = says(200, json!({"active": true, "exp": now + 3600}).to_string());
    assert_eq!(asks(json!({"ttl": 60}), &ending), 1);
    assert_eq!(asks(json!({}), &says(200, r#"{"active":false}"#)), 1);
    assert_eq!(asks(json!({"negative_ttl": 0}), &says(200, r#"{"active":false}"#)), 3);
    assert_eq!(asks(json!({}), &Err(CallError::Timeout)), 3, "what nobody knows is not remembered");

    let policy = policy::<Introspection>(&config(json!({})));
    for n in 0..5 {
        assert_eq!(run(&policy, &format!("{REQUEST}{n}"), &Err(CallError::Timeout), &[]).1.len(), 1);
    }
    let (refused, asked) = run(&policy, REQUEST, &active, &[]);
    assert_eq!(
        (refused.as_str(), asked.len()),
        ("503 Retry-After: 1", 0),
        "a server that is down is left alone"
    );
}

#[test]
fn of_many_with_one_token_a_single_one_asks() {
    let policy = policy::<Introspection>(&config(json!({})));
    let (mut first, mut second, mut third) = (exchange(REQUEST), exchange(REQUEST), exchange(REQUEST));
    assert!(matches!(policy.request(&mut first), Flow::Await(Effect::Call(_))));
    assert!(matches!(policy.request(&mut second), Flow::Await(Effect::Landing(..))));
    assert!(matches!(policy.request(&mut third), Flow::Await(Effect::Landing(..))));
    // The first goes away: one of the others asks.
    first.slots.clear();
    assert!(matches!(policy.resume(&mut second, Answer::Landing), Flow::Await(Effect::Call(_))));
    assert!(matches!(policy.resume(&mut third, Answer::Landing), Flow::Await(Effect::Landing(..))));
    let active = says(200, r#"{"active":true,"sub":"ann"}"#);
    assert!(matches!(policy.resume(&mut second, Answer::Call(vec![active])), Flow::Next));
    assert!(matches!(policy.resume(&mut third, Answer::Landing), Flow::Next));
    assert_eq!(third.identity.and_then(|i| i.credential).as_deref(), Some("ann"));
}

#[test]
fn contradictions_are_refused() {
    let refuses = |json: Value, want: &str| refuses::<Introspection>(json, want);
    refuses(config(json!({"authorization_value": "x"})), "stands in place of");
    refuses(json!({"introspection_url": "https://id.test", "client_id": "a"}), "go together");
    refuses(config(json!({"introspection_url": "https://u@id.test"})), "must not hold a user");
    let _ = testing::policy::<Introspection>(&json!({"introspection_url": "https://id.test"}));
}
