//! Tokens that attackers and careless issuers make, on both roads: credentials of the config, and issuers.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::*;
use crate::token::sign::to_pem;

const ISSUER: &str = "https://issuer.test";
const HS: &[u8] = b"a shared secret of thirty-two ok";

/// Signing keys, and what the gateway is given of them.
struct Keys {
    rsa: Signer,
    rsa_other: Signer,
    rsa_pem: String,
    rsa_der: Vec<u8>,
    rsa_jwk: Value,
    ec: Signer,
    ec_pem: String,
    ec_point: Vec<u8>,
    ec_jwk: Value,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let rsa = || aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key pair");
    let signer = |pair: &aws_lc_rs::rsa::KeyPair| {
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("a key encodes");
        Signer::pkcs8(Algorithm::RS256, der.as_ref()).expect("a key signs")
    };
    let pair = rsa();
    let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a key encodes");
    let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let ec_spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = ec.public_key().as_der().expect("a key encodes");
    let point = ec.public_key().as_ref().to_vec();
    let pkcs8 = ec.to_pkcs8v1().expect("a key encodes");
    Keys {
        rsa: signer(&pair),
        rsa_other: signer(&rsa()),
        rsa_pem: to_pem("PUBLIC KEY", spki.as_ref()),
        rsa_der: spki.as_ref().to_vec(),
        rsa_jwk: json!({"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256",
            "n": part(n.big_endian_without_leading_zero()), "e": part(e.big_endian_without_leading_zero())}),
        ec: Signer::pkcs8(Algorithm::ES256, pkcs8.as_ref()).expect("a key signs"),
        ec_pem: to_pem("PUBLIC KEY", ec_spki.as_ref()),
        ec_jwk: json!({"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256",
            "x": part(&point[1..33]), "y": part(&point[33..])}),
        ec_point: point,
    }
});

/// Both policies, each with the snapshot that it needs.
fn roads() -> [(Jwt, Snapshot); 2] {
    let own = json!({"key_claim_name": "kid", "claims_to_verify": ["exp"], "strict": true,
        "audiences": ["api"], "required_claims": {"iss": ISSUER}});
    let mut credentials = snapshot(1);
    for (name, data) in [
        ("rsa", Key::public_pem(Algorithm::RS256, &KEYS.rsa_pem).expect("a key")),
        ("ec", Key::public_pem(Algorithm::ES256, &KEYS.ec_pem).expect("a key")),
        ("hs", Key::hmac(Algorithm::HS256, HS)),
    ] {
        let credential = Credential { id: name.to_owned(), consumer: ConsumerId(0), data };
        credentials.credentials.jwt.insert(name.to_owned(), credential);
    }
    let public = json!({"keys": [KEYS.rsa_jwk, KEYS.ec_jwk]}).to_string();
    let shared =
        json!({"keys": [{"kty": "oct", "kid": "hs", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(HS)}]});
    let issuer = |jwks: String, algorithms: &[&str]| json!({"issuer": ISSUER, "jwks": jwks, "audiences": ["api"], "algorithms": algorithms});
    let issuers = json!({"issuers": [
        issuer(public, &["RS256", "ES256"]), issuer(shared.to_string(), &["HS256"])]});
    [(policy(&own), credentials), (policy(&issuers), snapshot(1))]
}

fn now() -> u64 {
    crate::clock::unix_s()
}

/// The usual claims, changed by `change` (`"-"` removes).
fn claims(change: Value) -> String {
    let mut claims = json!({"iss": ISSUER, "aud": "api", "sub": "u", "exp": now() + 600, "iat": now()});
    for (name, value) in change.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    let kept = claims.as_object().map(|c| c.clone().into_iter().filter(|(_, v)| *v != "-"));
    Value::Object(kept.into_iter().flatten().collect()).to_string()
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and payload as they are, signed.
fn raw(header: &str, payload: impl AsRef<[u8]>, signer: &Signer) -> String {
    let message = format!("{}.{}", part(header), part(payload));
    let signature = signer.sign(message.as_bytes()).expect("a key signs");
    format!("{message}.{signature}")
}

const RS: &str = r#"{"alg":"RS256","kid":"rsa"}"#;
const ES: &str = r#"{"alg":"ES256","kid":"ec"}"#;
const HMAC: &str = r#"{"alg":"HS256","kid":"hs"}"#;

fn hs(secret: &[u8]) -> Signer {
    Signer::secret(Algorithm::HS256, secret).expect("a secret signs")
}

/// Asserts that both roads refuse a token, for a reason that contains `own` and `issuer`.
#[track_caller]
fn refused(token: &str, own: &str, issuer: &str) {
    let [a, b] = roads();
    for ((policy, snapshot), want) in [(a, own), (b, issuer)] {
        let said = judged(&policy, snapshot, token);
        assert!(said.starts_with("401 ") && said.contains(want), "{said}, expected {want}: {token}");
    }
}

#[test]
fn good_tokens_of_every_kind_of_key_are_let_in() {
    let typed = r#"{"typ":"at+JWT","alg":"RS256","kid":"rsa"}"#;
    for token in [
        raw(RS, claims(json!({})), &KEYS.rsa),
        raw(
            typed,
            claims(json!({"aud": ["x", "api"], "nbf": now(), "client_id": "c", "jti": "1"})),
            &KEYS.rsa,
        ),
        raw(ES, claims(json!({"exp": now() as f64 + 60.5})), &KEYS.ec),
        raw(HMAC, claims(json!({"iat": "-"})), &hs(HS)),
    ] {
        for (policy, snapshot) in roads() {
            assert_eq!(judged(&policy, snapshot, &token), "next", "{token}");
        }
    }
}

#[test]
fn the_algorithm_is_the_keys_and_not_the_tokens() {
    let good = claims(json!({}));
    let bad_alg = "Bad token; invalid alg";
    for alg in [r#""none""#, r#""None""#, r#""NONE""#, r#""""#, "null", "[\"RS256\"]", r#""rs256""#, "256"] {
        let header = format!(r#"{{"alg":{alg},"kid":"rsa"}}"#);
        refused(&format!("{}.{}.", part(&header), part(&good)), bad_alg, bad_alg);
        refused(&raw(&header, &good, &KEYS.rsa), bad_alg, bad_alg);
    }
    refused(&raw(r#"{"kid":"rsa"}"#, &good, &KEYS.rsa), bad_alg, bad_alg);
    // The public key is no secret, in whatever form it is taken for one.
    let jwk = KEYS.rsa_jwk.to_string();
    let forms: [&[u8]; 6] = [
        KEYS.rsa_pem.as_bytes(),
        KEYS.rsa_pem.trim_end().as_bytes(),
        &KEYS.rsa_der,
        jwk.as_bytes(),
        KEYS.rsa_jwk["n"].as_str().expect("a text").as_bytes(),
        &KEYS.ec_point,
    ];
    for secret in forms {
        for kid in ["rsa", "ec"] {
            let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
            refused(&raw(&header, &good, &hs(secret)), "Invalid algorithm", "No key found");
        }
    }
    for alg in ["RS384", "PS256", "ES256", "EdDSA"] {
        let header = format!(r#"{{"alg":"{alg}","kid":"rsa"}}"#);
        refused(&raw(&header, &good, &KEYS.rsa), "Invalid algorithm", "");
    }
    for secret in [&b""[..], b"\0", b"secret"] {
        refused(&raw(HMAC, &good, &hs(secret)), "Invalid signature", "Invalid signature");
    }
}

#[test]
fn keys_come_from_the_config_alone() {
    let good = claims(json!({}));
    let unknown = |header: &str| {
        refused(&raw(header, &good, &KEYS.rsa_other), "No credentials found for given 'kid'", "No key found");
    };
    for kid in ["nope", "../../dev/null", "x' UNION SELECT 'a'--", "rsa\\r\\nX: y", &"k".repeat(4000)] {
        unknown(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#));
    }
    for (name, value) in [
        ("jku", json!("http://127.0.0.1:9/jwks.json")),
        ("x5u", json!("http://127.0.0.1:9/c.pem")),
        ("x5c", json!(["MIIB"])),
    ] {
        unknown(&json!({"alg": "RS256", "kid": "evil", name: value}).to_string());
    }
    let embedded = json!({"alg": "RS256", "kid": "rsa", "jwk": KEYS.rsa_jwk}).to_string();
    refused(&raw(&embedded, &good, &KEYS.rsa_other), "Invalid signature", "Invalid signature");
    let numbered = raw(r#"{"alg":"RS256","kid":1}"#, &good, &KEYS.rsa);
    refused(&numbered, "No credentials found", "Bad token; invalid kid");
    refused(&raw(r#"{"alg":"RS256","kid":["rsa"]}"#, &good, &KEYS.rsa), "Invalid 'kid'", "invalid kid");
}

#[test]
fn headers_that_change_the_meaning_are_refused() {
    let good = claims(json!({}));
    for crit in [r#"["exp"]"#, "[]", r#"["b64"]"#, "null", "1"] {
        let header = format!(r#"{{"alg":"RS256","kid":"rsa","b64":false,"exp":1,"crit":{crit}}}"#);
        refused(&raw(&header, &good, &KEYS.rsa), "unsupported crit", "unsupported crit");
    }
    let json = "invalid JSON";
    refused(&raw(r#"{"alg":"RS256","kid":"rsa","zip":"DEF"}"#, [0x4b, 0x04], &KEYS.rsa), json, json);
    refused(&raw(r#"{"alg":"RS256","alg":"none","kid":"rsa"}"#, &good, &KEYS.rsa), json, json);
    refused(&raw(r#""RS256""#, &good, &KEYS.rsa), "invalid alg", "invalid alg");
    for typ in ["logout+jwt", "id_token+jwt", "JWE"] {
        let header = format!(r#"{{"alg":"RS256","kid":"rsa","typ":"{typ}"}}"#);
        refused(&raw(&header, &good, &KEYS.rsa), "invalid typ", "invalid typ");
    }
}

#[test]
fn signatures_and_encodings_are_exact() {
    let good = raw(RS, claims(json!({})), &KEYS.rsa);
    let (message, signature) = good.rsplit_once('.').expect("a token");
    let (json, sig, bad) = ("invalid JSON", "Bad token; invalid signature", "Invalid signature");
    refused(&raw(RS, claims(json!({})), &KEYS.rsa_other), bad, bad);
    refused(&format!("{message}."), bad, bad);
    refused(message, json, json);
    refused(&format!("{message}.{}", part([1; 252])), bad, bad);
    refused(&format!("{message}.{signature}.AAAA"), sig, sig);
    refused(&format!("{}....", part(RS)), json, json);
    refused(&format!("{message}.{signature}=="), sig, sig);
    refused(&format!("{message}.{signature}B"), "", "");
    refused(&format!("{message}.{signature} "), sig, sig);
    refused(&format!("{}=.{}", part(RS), &message[message.find('.').unwrap_or(0) + 1..]), json, json);
    let standard = STANDARD_NO_PAD.encode([0xfb, 0xff, 0xbf]);
    refused(&format!("{message}.{standard}"), sig, sig);
    let tampered = format!("{}.{}.{signature}", part(RS), part(claims(json!({"sub": "admin"}))));
    refused(&tampered, bad, bad);

    let ec = raw(ES, claims(json!({})), &KEYS.ec);
    let (message, signature) = ec.rsplit_once('.').expect("a token");
    let bytes = URL_SAFE_NO_PAD.decode(signature).expect("it is base64url");
    let (r, s) = bytes.split_at(32);
    let order = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let der = [&[0x30, 0x44, 0x02, 0x20], r, &[0x02, 0x20], s].concat();
    for forged in [
        vec![0; 64],
        [r, &[0; 32]].concat(),
        [&[0; 32], s].concat(),
        [&order[..], s].concat(),
        [r, &order[..]].concat(),
        [&[0], r, &[0], s].concat(),
        [&bytes[..], &[0]].concat(),
        bytes[..63].to_vec(),
        der,
    ] {
        refused(&format!("{message}.{}", part(&forged)), bad, bad);
    }
}

#[test]
fn claims_mean_what_they_say() {
    let signed = |change: Value| raw(RS, claims(change), &KEYS.rsa);
    let both = |change: Value, want: &str| refused(&signed(change), want, want);
    both(json!({"exp": now() - 61}), "token expired");
    both(json!({"exp": -1}), "token expired");
    for exp in [json!("-"), json!("4102444800"), json!(null), json!([1]), json!(true)] {
        both(json!({ "exp": exp }), "must be a number");
    }
    both(json!({"exp": 18_446_744_073_709_551_615_u64}), "out of range");
    both(json!({"nbf": now() + 61}), "token not valid yet");
    both(json!({"iat": now() + 61}), "token not valid yet");
    both(json!({"nbf": "soon"}), "must be a number");
    for aud in [json!("-"), json!("other"), json!("api-evil"), json!("ap"), json!([]), json!({"api": 1})] {
        both(json!({ "aud": aud }), "not this audience");
    }
    for iss in ["https://issuer.test.evil.test", "https://issuer.test/", "HTTPS://issuer.test", "-"] {
        refused(&signed(json!({ "iss": iss })), "Claim 'iss' is not as required", "");
    }
    refused(&signed(json!({"iss": [ISSUER]})), "Claim 'iss' is not as required", "Invalid 'iss' in claims");
}

#[test]
fn payloads_are_small_plain_json_objects() {
    let json = "invalid JSON";
    let good = claims(json!({}));
    let twice = good.replace("\"sub\":\"u\"", "\"sub\":\"u\",\"sub\":\"admin\"");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
    let bom = format!("\u{feff}{good}");
    for payload in
        [&b"hello"[..], b"", b"{\"sub\":\"\xff\"}", twice.as_bytes(), deep.as_bytes(), bom.as_bytes()]
    {
        refused(&raw(RS, payload, &KEYS.rsa), json, json);
    }
    refused(&raw(RS, good.replace("\"exp\":", "\"exp\":1e400,\"x\":"), &KEYS.rsa), json, json);
    for scalar in ["1", "null", "true"] {
        refused(&raw(RS, scalar, &KEYS.rsa), "invalid claims", "invalid claims");
    }
    refused(&raw(RS, "[1]", &KEYS.rsa), "invalid claims", "");
    refused(&raw(RS, claims(json!({"x": "y".repeat(12_000)})), &KEYS.rsa), "too long", "too long");
    for text in [".", "..", "a", "a.b", "{\"payload\":\"e30\",\"signatures\":[]}"] {
        refused(text, json, json);
    }
}
