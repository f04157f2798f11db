mod vectors;

use std::sync::Arc;

use aws_lc_rs::signature::KeyPair as _;
use serde_json::json;

use super::*;
use crate::exchange::SnapshotRef;
use crate::message::names;
use crate::model::schema::{Field, STR};
use crate::policy::reply::json_string;
use crate::policy::testing::{self, ALICE, ANON, exchange_in, policy, refuses};
use crate::policy::{Answer, Effect};
use crate::provider::Unavailable;
use crate::snapshot::{ConsumerId, Credential, Snapshot};
use crate::token::sign::{Signer, encode};
use crate::token::trace::{Evidence, Outcome};
use crate::token::{Algorithm, Key};

const SECRET: &str = "s3cr3t-shared-with-alice";
/// Base64url of `original-secret-bytes`.
const ENCODED: &str = "b3JpZ2luYWwtc2VjcmV0LWJ5dGVz";

/// Alice has `k1` (HS256), `enc` (HS256, a secret in base64url), `odd` (HS256, a secret that is no base64) and `es`
/// (ES256 without a key).
fn snapshot(generation: u64) -> Snapshot {
    let mut snapshot = testing::snapshot();
    snapshot.generation = generation;
    let keys = [
        ("k1", Key::hmac(Algorithm::HS256, SECRET.as_bytes())),
        ("enc", Key::hmac(Algorithm::HS256, ENCODED.as_bytes())),
        ("odd", Key::hmac(Algorithm::HS256, b"!!!")),
        ("es", es_without_key()),
    ];
    for (name, data) in keys {
        let credential = Credential { id: format!("id-{name}"), consumer: ConsumerId(0), data };
        snapshot.credentials.jwt.insert(name.to_owned(), credential);
    }
    snapshot
}

fn es_without_key() -> Key {
    let fields = &[Field::new("algorithm", STR, ""), Field::new("rsa_public_key", STR, "")];
    Key::from_credential(&testing::record(fields, &json!({"algorithm": "ES256"})))
        .expect("a key may be missing")
}

fn signed(secret: &[u8], claims: &Value) -> String {
    signed_with_header(secret, claims, &[])
}

fn signed_with_header(secret: &[u8], claims: &Value, header: &[(&str, Value)]) -> String {
    let signer = Signer::secret(Algorithm::HS256, secret).expect("a secret signs");
    encode(&signer, header, claims).expect("claims are JSON")
}

/// What the policy does with a request that carries `token`: `next` or status and body.
fn outcome(config: &Value, token: &str) -> String {
    judged(&policy::<Jwt>(config), snapshot(1), token)
}

/// The same. The explanation must say what the policy does, and challenges must be of the right kind.
fn judged(policy: &Jwt, snapshot: Snapshot, token: &str) -> String {
    let mut x = exchange_in(snapshot, "GET /");
    x.request.fields.append(&names::AUTHORIZATION, format!("Bearer {token}"));
    let explained = policy.explain(&x.snapshot, token.as_bytes(), x.now.unix_ms / 1000);
    let failed = explained.checks.iter().find(|c| c.outcome == Outcome::Fail);
    assert_eq!(failed.is_some(), explained.denial.is_some(), "{token} {explained:?}");
    if let Some(failed) = failed {
        let Evidence { actual, expected } = &failed.evidence;
        assert!(!actual.is_empty() && !expected.is_empty() && !failed.note.is_empty(), "{failed:?}");
    }
    let said = explained.denial.map_or("next".into(), |d| {
        let status = if d.scope.is_some() { 403 } else { 401 };
        format!("{status} {}", d.reason.body())
    });
    let done = match policy.request(&mut x) {
        Flow::Next => "next".to_owned(),
        Flow::Reply(reply) => {
            let (_, challenge) = &reply.fields[0];
            let error = if reply.status == 403 { "insufficient_scope" } else { "invalid_token" };
            assert!(challenge.starts_with(&format!("Bearer error=\"{error}\"")), "{challenge} {token}");
            format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body))
        }
        Flow::Await(effect) => panic!("{effect:?}"),
    };
    assert_eq!(said, done, "{token}: the explanation differs");
    done
}

#[test]
fn requests_without_a_token_are_challenged() {
    for (config, want) in [
        (json!({}), "Bearer"),
        (json!({"realm": "test"}), "Bearer realm=\"test\""),
        (json!({"realm": "a\"b"}), "Bearer realm=\"a\\\"b\""),
    ] {
        let want = format!("401\nbody {{\"message\":\"Unauthorized\"}}\n< WWW-Authenticate: {want}");
        testing::check::<Jwt>(config, "GET /", &want);
    }
    let bad = "401\nbody {\"message\":\"Bad token; invalid JSON\"}\n< WWW-Authenticate: Bearer realm=\"r\", error=\"invalid_token\"";
    testing::check::<Jwt>(json!({"realm": "r"}), "GET /?jwt=garbage", bad);
    testing::check::<Jwt>(json!({}), "GET /?jwt", "401\nbody Unrecognizable token");
    testing::check::<Jwt>(json!({}), "GET /?jwt=a&jwt=b", "401\nbody Multiple tokens provided");
    testing::check::<Jwt>(json!({"uri_param_names": []}), "GET /?jwt=a", "401\nbody Unauthorized");
    testing::check::<Jwt>(json!({"run_on_preflight": false}), "OPTIONS /", "next");
    testing::check::<Jwt>(json!({}), "OPTIONS /", "401");
}

#[test]
fn every_check_has_its_answer() {
    let says = |message: &str| format!("401 {{\"message\":{}}}", json_string(message));
    let good = signed(SECRET.as_bytes(), &json!({"iss": "k1"}));
    let check = |config: Value, token: &str, want: &str| {
        assert_eq!(outcome(&config, token), want, "{config} {token}")
    };

    check(json!({}), &good, "next");
    check(json!({}), &good.replace('.', "!"), &says("Bad token; invalid JSON"));
    check(json!({"max_token_size": 64}), &good, &says("Bad token; too long"));
    for (claims, message) in [
        (json!({"sub": "x"}), "No mandatory 'iss' in claims"),
        (json!({"iss": false}), "No mandatory 'iss' in claims"),
        (json!([1]), "No mandatory 'iss' in claims"),
        (json!("iss"), "No mandatory 'iss' in claims"),
        (json!({"iss": ""}), "Invalid 'iss' in claims"),
        (json!({"iss": null}), "Invalid 'iss' in claims"),
        (json!({"iss": ["k1"]}), "Invalid 'iss' in claims"),
        (json!({"iss": 1}), "No credentials found for given 'iss'"),
        (json!({"iss": "k2"}), "No credentials found for given 'iss'"),
        (json!({"iss": "es"}), "Invalid algorithm"),
        (json!(7), "Bad token; invalid claims"),
    ] {
        check(json!({}), &signed(SECRET.as_bytes(), &claims), &says(message));
    }
    check(json!({}), &signed(b"other", &json!({"iss": "k1"})), &says("Invalid signature"));
    check(json!({}), good.rsplit_once('.').map_or("", |(m, _)| m), &says("Bad token; invalid JSON"));
    check(
        json!({}),
        &format!("{}.", good.rsplit_once('.').map_or("", |(m, _)| m)),
        &says("Invalid signature"),
    );

    let by_kid = json!({"key_claim_name": "kid"});
    let kid = |kid: &str| [("kid", Value::from(kid))];
    check(by_kid.clone(), &signed_with_header(SECRET.as_bytes(), &json!({}), &kid("k1")), "next");
    let both = signed_with_header(SECRET.as_bytes(), &json!({"kid": "nope"}), &kid("k1"));
    check(by_kid.clone(), &both, &says("No credentials found for given 'kid'"));
    let not_an_object = signed_with_header(SECRET.as_bytes(), &json!([1]), &kid("k1"));
    check(by_kid.clone(), &not_an_object, &says("Bad token; invalid claims"));
    check(by_kid, &good, &says("No mandatory 'kid' in claims"));

    let encoded = json!({"secret_is_base64": true});
    check(encoded.clone(), &signed(b"original-secret-bytes", &json!({"iss": "enc"})), "next");
    check(encoded.clone(), &signed(ENCODED.as_bytes(), &json!({"iss": "enc"})), &says("Invalid signature"));
    check(encoded, &signed(b"!!!", &json!({"iss": "odd"})), &says("Invalid key/secret"));
}

#[test]
fn a_credential_without_a_key_refuses_every_token() {
    let pair =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING)
            .expect("a key pair");
    assert_eq!(pair.public_key().as_ref().len(), 65);
    let pkcs8 = pair.to_pkcs8v1().expect("a key encodes");
    let signer = Signer::pkcs8(Algorithm::ES256, pkcs8.as_ref()).expect("a key signs");
    let token = encode(&signer, &[], &json!({"iss": "es"})).expect("claims are JSON");
    assert_eq!(outcome(&json!({}), &token), "401 {\"message\":\"Invalid key/secret\"}");
}

#[test]
fn times_are_checked_where_the_config_asks() {
    let now = crate::clock::unix_s() as i64;
    let check = |config: Value, claims: Value, want: &str| {
        let mut claims = claims;
        claims["iss"] = "k1".into();
        assert_eq!(outcome(&config, &signed(SECRET.as_bytes(), &claims)), want, "{config} {claims}");
    };
    let (exp, both) = (json!({"claims_to_verify": ["exp"]}), json!({"claims_to_verify": ["exp", "nbf"]}));
    check(json!({}), json!({"exp": now - 10, "nbf": now + 100}), "next");
    check(both.clone(), json!({"exp": now + 300, "nbf": now - 10}), "next");
    check(exp, json!({"exp": now - 10}), "401 {\"exp\":\"token expired\"}");
    check(both.clone(), json!({"exp": now + 300, "nbf": now + 100}), "401 {\"nbf\":\"token not valid yet\"}");
    check(both, json!({}), "401 {\"exp\":\"must be a number\",\"nbf\":\"must be a number\"}");
    let exceeds = "401 {\"exp\":\"exceeds maximum allowed expiration\"}";
    let bounded = json!({"claims_to_verify": ["exp"], "maximum_expiration": 300});
    check(bounded.clone(), json!({"exp": now + 200}), "next");
    check(bounded, json!({"exp": now + 3600}), exceeds);
    check(json!({"maximum_expiration": 300}), json!({}), exceeds);
    refuses::<Jwt>(json!({"claims_to_verify": ["nbf"], "maximum_expiration": 300}), "needs `exp`");
}

#[test]
fn the_caller_is_told_to_the_upstream() {
    let token =
        signed(SECRET.as_bytes(), &json!({"iss": "k1", "sub": "u1", "org": {"id": 7}, "bad": "a\nb"}));
    let config = json!({"claims_to_headers":
        {"sub": "X-User-Id", "org.id": "X-Org", "bad": "X-Bad", "none": "X-None"}});
    let policy = policy::<Jwt>(&config);
    let forged =
        "X-None: forged\nX-Bad: forged\nX-User-Id: forged\nX-Anonymous-Consumer: true\nX-Consumer-ID: forged";
    let mut x = exchange_in(snapshot(1), &format!("GET /\nAuthorization: Bearer {token}\n{forged}"));
    assert!(matches!(policy.request(&mut x), Flow::Next));
    let field = |name: &str| x.request.fields.text(&FieldName::new(name));
    for (name, want) in [
        ("X-Consumer-ID", Some(ALICE)),
        ("X-Consumer-Username", Some("alice")),
        ("X-Consumer-Custom-ID", Some("cust-1")),
        ("X-Credential-Identifier", Some("k1")),
        ("X-Anonymous-Consumer", None),
        ("X-User-Id", Some("u1")),
        ("X-Org", Some("7")),
        ("X-Bad", None),
        ("X-None", None),
    ] {
        assert_eq!(field(name), want, "{name}");
    }
    assert!(field("Authorization").is_some(), "the token is forwarded");
    let identity = x.identity.as_ref().expect("the caller is known");
    assert_eq!(identity.credential_id.as_deref(), Some("id-k1"));
    assert_eq!(identity.claims.as_ref().map(|c| c["sub"].clone()), Some("u1".into()));
    assert_eq!(policy.sets_headers().len(), 4);
}

#[test]
fn nobody_is_refused_where_there_is_an_anonymous_consumer() {
    let config = json!({"anonymous": "anon", "claims_to_headers": {"sub": "X-User-Id"}});
    let policy = policy::<Jwt>(&config);
    for request in ["GET /\nX-User-Id: forged", "GET /?jwt=garbage"] {
        let mut x = exchange_in(snapshot(1), request);
        assert!(matches!(policy.request(&mut x), Flow::Next), "{request}");
        assert_eq!(x.request.fields.text(&FieldName::new("X-Consumer-ID")), Some(ANON));
        assert!(!x.request.fields.contains(&FieldName::new("X-User-Id")));
    }
    let mut x = exchange_in(snapshot(1), "GET /?jwt=garbage");
    identity::set_identity(&mut x, Identity { consumer: Some(ConsumerId(1)), ..Identity::default() });
    assert!(matches!(policy.request(&mut x), Flow::Next));
    assert_eq!(
        x.request.fields.text(&FieldName::new("X-Consumer-Username")),
        Some("bob"),
        "the first one wins"
    );
    testing::check::<Jwt>(
        json!({"anonymous": "ghost"}),
        "GET /",
        "500\nbody anonymous consumer ghost is configured",
    );
}

#[test]
fn a_remembered_token_still_expires_and_is_forgotten_with_its_credential() {
    let policy = policy::<Jwt>(&json!({"claims_to_verify": ["exp"]}));
    let now = crate::clock::unix_s();
    let token = signed(SECRET.as_bytes(), &json!({"iss": "k1", "exp": now + 100}));
    let mut x = exchange_in(snapshot(1), &format!("GET /\nAuthorization: Bearer {token}"));
    for _ in 0..2 {
        assert!(matches!(policy.request(&mut x), Flow::Next));
    }
    x.now.unix_ms += 100_000;
    assert!(matches!(policy.request(&mut x), Flow::Reply(_)), "expired meanwhile");
    x.now.unix_ms -= 100_000;
    let mut revoked = snapshot(2);
    revoked.credentials.jwt.remove("k1");
    x.snapshot = SnapshotRef::new(Arc::new(revoked));
    assert!(matches!(policy.request(&mut x), Flow::Reply(_)), "revoked by a reload");
}

#[test]
fn tokens_of_an_issuer_need_no_credential() {
    let jwks = json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]});
    let issuer = |consumer_claim: Option<&str>| {
        json!({"issuers": [{"issuer": "https://i.test", "jwks": jwks.to_string(), "algorithms": ["HS256"],
            "consumer_claim": consumer_claim}], "claims_to_headers": {"sub": "X-User-Id"}})
    };
    let exp = crate::clock::unix_s() + 100;
    let token = |claims: Value| signed_with_header(&[7; 32], &claims, &[("kid", "k".into())]);
    let with = |token: &str| format!("GET /\nAuthorization: Bearer {token}\nX-Consumer-ID: forged");
    let good = token(json!({"iss": "https://i.test", "sub": "bob", "exp": exp}));

    let subject = "next\n> X-User-Id: bob\n> X-Credential-Identifier: bob\n> X-Consumer-ID:";
    testing::check::<Jwt>(issuer(None), &with(&good), subject);
    testing::check::<Jwt>(issuer(Some("sub")), &with(&good), "next\n> X-Consumer-Username: bob");
    let stranger = token(json!({"iss": "https://i.test", "sub": "zoe", "exp": exp}));
    let refused = "401\nbody No consumer found for given 'sub'";
    testing::check::<Jwt>(issuer(Some("sub")), &with(&stranger), refused);
    let expired = token(json!({"iss": "https://i.test", "exp": 1}));
    let refused =
        "401\n< WWW-Authenticate: Bearer error=\"invalid_token\", error_description=\"exp: token expired\"";
    testing::check::<Jwt>(issuer(None), &with(&expired), refused);
    let mut own = issuer(None);
    own["claims_to_headers"] = json!({"sub": "X-User-Id", "iss": "X-Issuer"});
    own["issuers"][0]["claims_to_headers"] = json!({"sub": "X-Subject", "jti": "X-Issuer"});
    let told = "next\n> X-User-Id: bob\n> X-Subject: bob\n> X-Issuer:";
    testing::check::<Jwt>(own.clone(), &format!("{}\nX-Subject: forged", with(&good)), told);
    assert_eq!(policy::<Jwt>(&own).sets_headers().len(), 4, "all are taken from clients on every route");
    let other = token(json!({"iss": "https://j.test", "exp": exp}));
    testing::check::<Jwt>(issuer(None), &with(&other), "401\nbody No credentials found for given 'iss'");
    refuses::<Jwt>(
        json!({"issuers": [{"issuer": "i", "jwks": "{}"}]}),
        "`jwks`: the key set has no list `keys`",
    );
}

#[test]
fn bearers_without_the_scopes_are_known_but_refused() {
    let token = |scope: &str| signed(SECRET.as_bytes(), &json!({"iss": "k1", "scope": scope}));
    let config = json!({"scopes_any": ["read", "admin"]});
    assert_eq!(outcome(&config, &token("x read")), "next");
    for config in [config, json!({"scopes_all": ["read"], "anonymous": "anon"})] {
        assert_eq!(outcome(&config, &token("write")), "403 {\"message\":\"Insufficient scope\"}");
    }
    let policy = policy::<Jwt>(&json!({"realm": "r", "scopes_all": ["a"], "scopes_any": ["b"]}));
    let mut x = exchange_in(snapshot(1), &format!("GET /\nAuthorization: Bearer {}", token("x")));
    let Flow::Reply(reply) = policy.request(&mut x) else { panic!("it lacks the scopes") };
    let want = "Bearer realm=\"r\", error=\"insufficient_scope\", scope=\"a b\"";
    assert_eq!(reply.fields[0].1, want);
}

#[test]
fn the_keys_of_an_issuer_come_from_one_place() {
    let refuses = |issuer: Value, want: &str| refuses::<Jwt>(json!({"issuers": [issuer]}), want);
    let jwks = "{\"keys\":[]}";
    refuses(json!({"issuer": "https://i.test"}), "the issuer has no keys");
    refuses(json!({"issuer": "https://i.test", "discovery": false}), "the issuer has no keys");
    refuses(json!({"issuer": "i", "jwks": jwks, "jwks_uri": "https://i.test"}), "`jwks_uri` beside `jwks`");
    refuses(json!({"issuer": "i", "jwks_uri": "https://i.test", "discovery": true}), "`discovery` beside");
    refuses(json!({"issuer": "i.test", "discovery": true}), "`discovery` needs a URL as `issuer`");
    refuses(json!({"issuer": "i", "jwks_uri": "https://u:p@i.test/"}), "must not hold a user");
    let symmetric = json!({"issuer": "i", "jwks_uri": "https://i.test", "algorithms": ["RS256", "HS256"]});
    refuses(symmetric, "holds no secrets");
}

#[test]
fn a_token_is_judged_only_with_its_issuers_keys() {
    let config = |anonymous: &str| json!({"anonymous": anonymous, "issuers": [{"issuer": "https://i.test", "jwks_uri": "https://i.test/k"}]});
    let claims = json!({"iss": "https://i.test", "exp": crate::clock::unix_s() + 100});
    let token = signed_with_header(&[7; 32], &claims, &[("kid", "k".into())]);
    for anonymous in ["", "anon"] {
        let policy = policy::<Jwt>(&config(anonymous));
        let mut x = exchange_in(snapshot(1), &format!("GET /\nAuthorization: Bearer {token}"));
        let flow = policy.request(&mut x);
        assert!(matches!(flow, Flow::Await(Effect::Keys(_))), "{flow:?}");
        let Flow::Reply(reply) = policy.resume(&mut x, Answer::Keys(Err(Unavailable::Failed))) else {
            panic!("nobody can tell whether the token is good");
        };
        assert_eq!((reply.status, x.identity.is_none()), (503, true));
    }
}
