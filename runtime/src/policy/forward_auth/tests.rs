use serde_json::json;

use super::*;
use crate::policy::testing::{exchange, policy, refuses};

const URL: &str = "http://auth.test:9000/verify?x=1";

fn says(status: u16, fields: &[(&str, &str)], body: &str) -> Result<CallResponse, CallError> {
    let mut all = Fields::default();
    fields.iter().for_each(|(n, v)| all.push(n.as_bytes(), v.as_bytes()));
    Ok(CallResponse {
        status,
        fields: all,
        body: body.to_owned().into(),
        trailers: Fields::default(),
        took: Duration::ZERO,
    })
}

/// What comes of a request, in the words of [`shown`], and what the server was asked.
fn run(
    policy: &ForwardAuth,
    request: &str,
    server: &Result<CallResponse, CallError>,
    show: &[&str],
) -> (String, Vec<Call>) {
    let mut x = exchange(request);
    let mut flow = policy.request(&mut x);
    let mut asked = Vec::new();
    loop {
        flow = match flow {
            Flow::Await(Effect::Call(mut calls)) => {
                asked.append(&mut calls);
                policy.resume(&mut x, Answer::Call(vec![server.clone()]))
            }
            Flow::Await(Effect::ReadBody { limit }) => {
                let body = request.split_once("\n\n").map_or("", |(_, b)| b);
                x.body = Some(body.to_owned().into());
                let fits = if body.len() <= limit { Ok(()) } else { Err(BodyError::TooLarge) };
                policy.resume(&mut x, Answer::Body(fits))
            }
            other => return (shown(&mut x, policy, other, show), asked),
        };
    }
}

/// `next` and the named request fields, then `<` and the response's; or status, fields and body.
fn shown(x: &mut Exchange, policy: &ForwardAuth, flow: Flow, show: &[&str]) -> String {
    if let Flow::Reply(reply) = flow {
        let fields: String = reply.fields.iter().map(|(n, v)| format!(" {}: {v}", n.as_str())).collect();
        return format!("{}{fields} {}", reply.status, String::from_utf8_lossy(&reply.body));
    }
    policy.response(x);
    let values = |fields: &Fields, name: &str| {
        let all: Vec<_> =
            fields.all(&FieldName::new(name)).map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        all.join("|")
    };
    let request: String = show.iter().map(|n| format!(" {}", values(&x.request.fields, n))).collect();
    match values(&x.response.fields, "Set-Cookie").as_str() {
        "" => format!("next{request}"),
        cookie => format!("next{request} < {cookie}"),
    }
}

fn text(fields: &Fields) -> String {
    let line =
        |(n, v): (&[u8], &[u8])| format!("{}: {}", String::from_utf8_lossy(n), String::from_utf8_lossy(v));
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn traefiks_contract() {
    let config =
        json!({"url": URL, "response_headers": ["X-User", "X-Gone"], "client_headers": ["Set-Cookie"]});
    let policy = policy::<ForwardAuth>(&config);
    let request = "POST /a/b?c=%20d\nHost: api.test:8443\nclient-ip: 10.0.0.9\nX-Mine: 1\nCookie: s=1\nX-User: forged\n\
                   X-Gone: forged\nX-Forwarded-For: 6.6.6.6\nX-Forwarded-Uri: /evil\nForwarded: for=6.6.6.6\n\
                   X-Real-IP: 6.6.6.6\nTransfer-Encoding: chunked\n\nhello";
    let consent =
        says(204, &[("X-User", "ann"), ("X-User", "second"), ("X-Other", "x"), ("Set-Cookie", "s=2")], "");
    let (got, asked) = run(&policy, request, &consent, &["X-User", "X-Gone", "X-Other"]);
    assert_eq!(got, "next ann|second   < s=2");
    let call = &asked[0];
    assert_eq!((call.method.as_str(), call.path.as_str(), call.body.len()), ("GET", "/verify?x=1", 0));
    assert_eq!(
        text(&call.fields),
        "X-Mine: 1\nCookie: s=1\nX-User: forged\nX-Gone: forged\nX-Forwarded-For: 10.0.0.9\nX-Forwarded-Proto: http\n\
         X-Forwarded-Host: api.test:8443\nX-Forwarded-Port: 8000\nX-Forwarded-Method: POST\nX-Forwarded-Uri: /a/b?c=%20d"
    );
    assert_eq!(policy.sets_headers(), ["X-User", "X-Gone"]);

    let refusal = says(
        302,
        &[
            ("Location", "/login"),
            ("Set-Cookie", "a=1"),
            ("Connection", "close"),
            ("Server", "x"),
            ("Content-Type", "text/html"),
        ],
        "<a>",
    );
    assert_eq!(run(&policy, request, &refusal, &[]).0, "302 Location: /login Set-Cookie: a=1 <a>");
    assert_eq!(run(&policy, request, &says(500, &[], "oops"), &[]).0, "500 oops");
    let chosen = json!({"url": URL, "request_headers": ["X-Mine", "X-Forwarded-For", "Transfer-Encoding"]});
    let chosen = crate::policy::testing::policy::<ForwardAuth>(&chosen);
    let sent = text(&run(&chosen, request, &consent, &[]).1[0].fields);
    assert!(
        sent.starts_with("X-Mine: 1\nX-Forwarded-For: 10.0.0.9\n") && !sent.contains("chunked"),
        "{sent}"
    );
}

#[test]
fn envoys_contract() {
    let config = json!({"url": "http://auth.test/check/", "contract": "envoy", "request_headers": ["X-Mine"],
        "response_headers": ["Authorization"], "with_body": {"max_bytes": 5}});
    let policy = policy::<ForwardAuth>(&config);
    let request = "PUT /a?b\nAuthorization: Bearer t\nX-Mine: 1\nCookie: s=1\n\nhello";
    let (got, asked) =
        run(&policy, request, &says(200, &[("Authorization", "Bearer inner")], ""), &["Authorization"]);
    assert_eq!(got, "next Bearer inner");
    let call = &asked[0];
    assert_eq!(
        (call.method.as_str(), call.path.as_str(), &call.body[..]),
        ("PUT", "/check/a?b", &b"hello"[..])
    );
    let sent = text(&call.fields);
    assert!(
        sent.starts_with("Authorization: Bearer t\nX-Mine: 1\nX-Forwarded-For: ")
            && sent.ends_with("\nHost: api.test"),
        "{sent}"
    );
    assert!(policy.sets_headers().is_empty(), "what is exchanged must reach the server");
    for (answer, want) in [
        (says(401, &[("WWW-Authenticate", "Bearer")], "no"), "401 WWW-Authenticate: Bearer no"),
        (says(204, &[], ""), "403 "),
        (says(503, &[], ""), "503 Retry-After: 1 "),
    ] {
        let got = run(&policy, request, &answer, &[]).0;
        assert!(got.starts_with(want), "{got}");
    }
    let (got, asked) = run(&policy, "PUT /\n\ntoo long", &says(200, &[], ""), &[]);
    assert!(got.starts_with("413 ") && asked.is_empty(), "{got}");
}

#[test]
fn it_fails_closed() {
    for contract in ["traefik", "envoy", "aws-lambda"] {
        for error in [CallError::Timeout, CallError::Unreachable, CallError::TooLarge, CallError::Broken] {
            for (more, want) in [(json!(null), "503 "), (json!(403), "403 ")] {
                let mut config = json!({"url": URL, "contract": contract, "anonymous": "anon"});
                if more != json!(null) {
                    config["status_on_error"] = more;
                }
                let policy = policy::<ForwardAuth>(&config);
                let got = run(&policy, "GET /\nAuthorization: x", &Err(error), &[]).0;
                assert!(got.starts_with(want) && got.contains("not available"), "{config} {got}");
            }
        }
    }
    let policy =
        policy::<ForwardAuth>(&json!({"url": URL, "anonymous": "anon", "response_headers": ["X-User"]}));
    let got =
        run(&policy, "GET /\nX-User: forged", &says(401, &[], ""), &["X-Consumer-Username", "X-User"]).0;
    assert_eq!(got, "next anon ");
    assert_eq!(run(&policy, "GET /", &says(500, &[], ""), &[]).0, "500 ");
}

#[test]
fn answers_are_remembered_by_what_the_config_says() {
    let consent = says(200, &[("X-User", "ann")], "");
    let asks = |cache: Value, requests: &[&str], answer: &Result<CallResponse, CallError>| {
        let policy =
            policy::<ForwardAuth>(&json!({"url": URL, "cache": cache, "response_headers": ["X-User"]}));
        requests.iter().map(|r| run(&policy, r, answer, &[]).1.len()).sum::<usize>()
    };
    let (a, b) = ("GET /1\nAuthorization: a", "GET /1\nAuthorization: b");
    let (other_path, other_query) = ("GET /2\nAuthorization: a", "GET /1?\nAuthorization: a");
    assert_eq!(asks(json!({}), &[a, a], &consent), 2, "nothing is remembered unless it is asked for");
    assert_eq!(asks(json!({"ttl": 60}), &[a, a, a], &consent), 1);
    assert_eq!(
        asks(json!({"ttl": 60}), &[a, b, other_path, other_query, "POST /1\nAuthorization: a"], &consent),
        5
    );
    assert_eq!(asks(json!({"ttl": 60, "per": "caller"}), &[a, other_path, other_query, b], &consent), 2);
    assert_eq!(asks(json!({"ttl": 60}), &["GET /", "GET /"], &consent), 2, "nothing tells callers apart");
    let by = json!({"ttl": 60, "by": ["X-A", "X-B"], "per": "caller"});
    assert_eq!(asks(by, &["GET /\nX-A: 1", "GET /\nX-B: 1", "GET /\nX-A: 1\nX-A: 1"], &consent), 3);
    let refusal = says(401, &[], "");
    assert_eq!(asks(json!({"ttl": 60}), &[a, a], &refusal), 2);
    assert_eq!(asks(json!({"ttl": 60, "negative_ttl": 60}), &[a, a], &refusal), 1);
    assert_eq!(asks(json!({"ttl": 60, "negative_ttl": 60}), &[a, a], &Err(CallError::Timeout)), 2);
}

#[test]
fn the_consent_may_name_the_consumer() {
    let policy = policy::<ForwardAuth>(&json!({"url": URL, "consumer_header": "X-User"}));
    let named = |name: &str| says(200, &[("X-User", name)], "");
    assert_eq!(run(&policy, "GET /", &named("bob"), &["X-Consumer-Username"]).0, "next bob");
    assert!(run(&policy, "GET /", &named("zoe"), &[]).0.starts_with("401 "));
    assert!(run(&policy, "GET /", &says(200, &[], ""), &[]).0.starts_with("401 "));
}

#[test]
fn lambda_authorizers() {
    let config = json!({"url": URL, "contract": "aws-lambda", "identity_sources": ["$request.header.X-Key", "$request.querystring.q"],
        "claims_to_headers": {"tenant": "X-Tenant"}, "cache": {"ttl": 300}});
    let request =
        "GET /orders/7?q=1&q=2\nHost: api.test:80\nX-Key: k\nCookie: a=1; b=2\nX-M: 1\nX-M: 2\nUser-Agent: t";
    let check = |answer: &str, want: &str| {
        let policy = policy::<ForwardAuth>(&config);
        let got = run(&policy, request, &says(200, &[], answer), &["X-Tenant", "X-Credential-Identifier"]).0;
        assert_eq!(got, want, "{answer}");
    };
    let forbidden = "403 {\"message\":\"Forbidden\"}";
    let invalid = "500 {\"message\":\"Internal Server Error\"}";
    check(r#"{"isAuthorized":true,"context":{"tenant":"t1"}}"#, "next t1 ");
    check(r#"{"isAuthorized":true}"#, "next  ");
    check(r#"{"isAuthorized":false}"#, forbidden);
    let iam = |effect: &str, resource: &str| {
        json!({"principalId": "ann", "context": {"tenant": 7}, "policyDocument": {"Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}]}})
        .to_string()
    };
    check(&iam("Allow", "arn:aws:execute-api:us-east-1:000000000000:gw/$default/GET/orders/*"), "next 7 ann");
    check(&iam("Allow", "arn:aws:execute-api:us-east-1:000000000000:gw/$default/POST/*"), forbidden);
    check(&iam("Deny", "*"), forbidden);
    for bad in [
        "",
        "{}",
        "null",
        r#"{"isAuthorized":"true"}"#,
        r#"{"isAuthorized":true,"context":"x"}"#,
        r#"{"isAuthorized":true,"policyDocument":{}}"#,
        r#"{"policyDocument":{"Statement":[]}}"#,
    ] {
        check(bad, invalid);
    }
    let policy = policy::<ForwardAuth>(&config);
    let (_, asked) = run(&policy, request, &says(200, &[], r#"{"isAuthorized":true}"#), &[]);
    let event: Value = serde_json::from_slice(&asked[0].body).expect("JSON");
    for (pointer, want) in [
        ("/version", json!("2.0")),
        ("/type", json!("REQUEST")),
        ("/routeArn", json!("arn:aws:execute-api:us-east-1:000000000000:gw/$default/GET/orders/7")),
        ("/identitySource", json!(["k", "1"])),
        ("/routeKey", json!("$default")),
        ("/rawPath", json!("/orders/7")),
        ("/rawQueryString", json!("q=1&q=2")),
        ("/queryStringParameters/q", json!("1,2")),
        ("/cookies", json!(["a=1", "b=2"])),
        ("/headers/x-m", json!("1,2")),
        ("/headers/host", json!("api.test:80")),
        ("/requestContext/http/method", json!("GET")),
        ("/requestContext/http/sourceIp", json!("127.0.0.1")),
        ("/requestContext/domainPrefix", json!("api")),
        ("/stageVariables", json!({})),
    ] {
        assert_eq!(event.pointer(pointer), Some(&want), "{pointer} of {event}");
    }
    assert!(event.get("pathParameters").is_none());
    assert_eq!(asked[0].method, "POST");
    // One answer for all routes, as nothing but the identity sources tells requests apart; a policy is judged for each.
    assert_eq!(run(&policy, "POST /x?q=1\nX-Key: k", &says(200, &[], "{}"), &[]).1.len(), 0);
    let (got, asked) = run(&policy, "GET /?q=1", &says(200, &[], "{}"), &[]);
    assert_eq!((got.as_str(), asked.len()), ("401 {\"message\":\"Unauthorized\"}", 0));
}

#[test]
fn contradictions_are_refused() {
    refuses::<ForwardAuth>(json!({}), "exactly one of these fields must be non-empty: `url`, `service`");
    refuses::<ForwardAuth>(json!({"url": URL, "service": "s"}), "exactly one");
    refuses::<ForwardAuth>(json!({"service": "nowhere"}), "there is no service `nowhere`");
    refuses::<ForwardAuth>(json!({"url": "http://u@a.test/"}), "must not hold a user");
    let sources = json!({"url": URL, "contract": "aws-lambda", "identity_sources": ["$request.body"]});
    refuses::<ForwardAuth>(sources, "is no identity source");
}
