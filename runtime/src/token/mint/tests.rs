use serde_json::json;

use super::super::config::credentials;
use super::*;
use crate::diag::has_errors;
use crate::env::Env;
use crate::front::{self, Input, LoadOptions};
use crate::source::Sources;

const NOW: u64 = 1_700_000_000;

/// The public key of [`PRIVATE`].
fn config(plugin: &str) -> String {
    format!(
        r#"
_format_version: "3.0"
services:
  - name: orders
    url: http://orders.test
    routes: [{{ name: all, paths: [/] }}, {{ name: open, paths: [/open], plugins: [{{ name: jwt, enabled: false }}] }}]
plugins:
  - {{ name: jwt, config: {plugin} }}
consumers:
  - username: alice
    jwt_secrets:
      - {{ key: a1, algorithm: HS512, secret: YWxpY2U }}
      - {{ key: a2, secret: second-secret }}
  - username: bob
  - username: carol
    jwt_secrets: [{{ key: c1, algorithm: EdDSA, rsa_public_key: "{public}" }}]
"#,
        public = keys().1.replace('\n', "\\n")
    )
}

/// The same pair of keys for the whole run.
fn keys() -> &'static (String, String) {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    static KEYS: std::sync::LazyLock<(String, String)> = std::sync::LazyLock::new(|| {
        let pair = Ed25519KeyPair::generate().expect("a key pair");
        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            pair.public_key().as_der().expect("a key encodes");
        let private = pair.to_pkcs8().expect("a key encodes");
        let pem = super::super::sign::to_pem;
        (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", spki.as_ref()))
    });
    &KEYS
}

fn model(plugin: &str) -> Checked<Model> {
    let mut sources = Sources::default();
    let inputs = [Input::text("gw.yaml", config(plugin))];
    let (model, diags) = front::load(&mut sources, &inputs, &Env::empty(), &LoadOptions::default());
    assert!(!has_errors(&diags), "{diags:?}");
    let (checked, diags) = crate::check::run(model);
    checked.unwrap_or_else(|| panic!("{diags:?}"))
}

fn ask(consumer: &str) -> MintRequest {
    MintRequest { consumer: consumer.into(), ..MintRequest::default() }
}

/// Mints, and has the gateway's own rules judge the token. Returns its claims.
fn accepted(plugin: &str, request: &MintRequest) -> Value {
    let model = model(plugin);
    let token = mint(&model, request, NOW).unwrap_or_else(|e| panic!("{plugin}: {e}"));
    let rules = Rules::of(&config::plugins(&model).next().expect("there is a plugin").config);
    let find = |key: &str| {
        let credential = credentials(&model).find(|c| c.key == Some(key))?;
        Some((credential.consumer, credential.verifier().expect("the key is good")))
    };
    let signed = rules.check_signature(token.as_bytes(), find).unwrap_or_else(|e| panic!("{plugin}: {e:?}"));
    rules
        .check_times(&signed.times, NOW, &mut crate::token::trace::Quiet)
        .unwrap_or_else(|e| panic!("{plugin}: {e:?}"));
    assert_eq!(signed.credential, config::consumer(&model, &request.consumer).expect("the consumer"));
    signed.claims
}

#[test]
fn what_is_minted_is_accepted() {
    let check = |plugin: &str, request: MintRequest, want: Value| {
        assert_eq!(accepted(plugin, &request), want, "{plugin} {request:?}");
    };
    let base = json!({"iss": "a1", "sub": "alice", "iat": NOW, "exp": NOW + 3600});
    check("{}", ask("alice"), base.clone());
    check("{ secret_is_base64: true }", ask("alice"), base);
    check(
        "{ key_claim_name: sub, claims_to_verify: [exp, nbf], maximum_expiration: 60 }",
        MintRequest { algorithm: Some(Algorithm::HS256), ..ask("alice") },
        json!({"sub": "a2", "iat": NOW, "nbf": NOW, "exp": NOW + 60}),
    );
    check(
        "{}",
        MintRequest {
            key: Some("a2".into()),
            route: Some("all".into()),
            lifetime: Some(5),
            claims: vec![("sub".into(), json!("u1")), ("roles".into(), json!(["x"]))],
            ..ask("alice")
        },
        json!({"iss": "a2", "sub": "u1", "iat": NOW, "exp": NOW + 5, "roles": ["x"]}),
    );
    check(
        "{}",
        MintRequest { private_key: Some(keys().0.clone()), ..ask("carol") },
        json!({"iss": "c1", "sub": "carol", "iat": NOW, "exp": NOW + 3600}),
    );
}

#[test]
fn what_cannot_be_minted_says_why() {
    let check = |plugin: &str, request: MintRequest, want: &str| {
        let error = mint(&model(plugin), &request, NOW).expect_err(want).to_string();
        assert!(error.contains(want), "{error}");
    };
    check("{}", ask("alise"), "there is no consumer `alise`; did you mean `alice`?");
    check("{}", ask("zzzzzz"), "there are `alice`, `bob`, `carol`");
    check("{}", ask("bob"), "consumer `bob` has no `jwt_secrets` entry; add one");
    check("{}", MintRequest { algorithm: Some(Algorithm::ES256), ..ask("alice") }, "entry for ES256");
    check("{}", MintRequest { route: Some("al".into()), ..ask("alice") }, "did you mean `all`?");
    check("{}", ask("carol"), "give the private key");
    let other = aws_lc_rs::signature::Ed25519KeyPair::generate().expect("a key pair");
    let other = super::super::sign::to_pem("PRIVATE KEY", other.to_pkcs8().expect("a key encodes").as_ref());
    check("{}", MintRequest { private_key: Some(other), ..ask("carol") }, "does not belong");
    let claims = vec![("iss".to_owned(), json!("x"))];
    check("{}", MintRequest { claims, ..ask("alice") }, "claim `iss` names the credential");
    let bounded = "{ claims_to_verify: [exp], maximum_expiration: 60 }";
    check(bounded, MintRequest { lifetime: Some(61), ..ask("alice") }, "more than the config's");
    let base64 = MintRequest { key: Some("a2".into()), ..ask("alice") };
    check("{ secret_is_base64: true, key_claim_name: kid }", base64, "is not base64url");
}
