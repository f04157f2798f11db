//! ID tokens (OpenID Connect Core 3.1.3.7).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::token::claims::{Moment, Times};
use crate::token::jwk::JwkSet;
use crate::token::{Algorithm, SecretForm, parse};

/// Seconds that clocks may differ.
const LEEWAY: f64 = 60.0;
const TOKEN_MAX: usize = 16 * 1024;

/// Why an ID token is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A newer key set may have its key: of this name, if it gives one.
    NoKey(Option<String>),
    Bad(&'static str),
}

/// What an ID token must say.
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub client: &'a str,
    /// Of the login; a token that came with a refresh need not have one.
    pub nonce: Option<&'a str>,
    pub access_token: Option<&'a str>,
    /// Seconds since 1970.
    pub now: u64,
}

/// The claims of a good ID token.
pub fn verify(token: &str, keys: &JwkSet, expected: &Expected<'_>) -> Result<Value, Problem> {
    let bad = |what| Err(Problem::Bad(what));
    let Ok(token) = parse(token.as_bytes(), TOKEN_MAX) else { return bad("it cannot be decoded") };
    if token.algorithm.is_symmetric() {
        return bad("its algorithm is not one of public keys");
    }
    let claims = &token.claims;
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return bad("it is of another issuer");
    }
    let kid = token.header.get("kid").and_then(Value::as_str);
    let Some(key) = keys.find(kid, token.algorithm) else {
        return Err(Problem::NoKey(kid.map(str::to_owned)));
    };
    if key.verify(SecretForm::Plain, token.message, &token.signature).is_err() {
        return bad("its signature is wrong");
    }
    let client = |v: &Value| v.as_str() == Some(expected.client);
    let several = match claims.get("aud") {
        Some(Value::Array(list)) if list.iter().any(client) => list.len() > 1,
        Some(one) if client(one) => false,
        _ => return bad("it is for another client"),
    };
    match claims.get("azp") {
        Some(party) if !client(party) => return bad("it was given to another client"),
        None if several => return bad("it does not say to which client it was given"),
        _ => {}
    }
    let (times, now) = (Times::of(claims), expected.now as f64);
    if !matches!(times.exp, Moment::At(exp) if exp > now - LEEWAY) {
        return bad("it has expired");
    }
    if !matches!(times.iat, Moment::At(iat) if iat < now + LEEWAY) {
        return bad("it is of the future");
    }
    if claims.get("sub").and_then(Value::as_str).is_none_or(str::is_empty) {
        return bad("it has no subject");
    }
    if let Some(nonce) = expected.nonce
        && claims.get("nonce").and_then(Value::as_str) != Some(nonce)
    {
        return bad("it is not of this login");
    }
    if let (Some(hash), Some(token_of)) = (claims.get("at_hash"), expected.access_token)
        && hash.as_str() != Some(half_hash(token.algorithm, token_of).as_str())
    {
        return bad("it came with another access token");
    }
    Ok(token.claims)
}

/// `at_hash`: the left half of the digest that the algorithm signs.
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let name = algorithm.name();
    let by = match () {
        () if name.ends_with("384") => &digest::SHA384,
        () if name.ends_with("512") || name == "EdDSA" => &digest::SHA512,
        () => &digest::SHA256,
    };
    let digest = digest::digest(by, text.as_bytes());
    let bytes = digest.as_ref();
    URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() / 2])
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use serde_json::json;

    use super::*;
    use crate::token::publish;
    use crate::token::sign::{Signer, encode, to_pem};

    #[test]
    fn every_claim_of_an_id_token_counts() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a pair");
        let pem = to_pem("PRIVATE KEY", pair.to_pkcs8v1().expect("a key").as_ref());
        let jwk = publish::jwk(Algorithm::ES256, &pem, false).expect("a key");
        let kid = jwk["kid"].clone();
        let keys = JwkSet::from_value(&json!({"keys": [jwk]})).expect("a set");
        let signer = Signer::private_pem(Algorithm::ES256, &pem).expect("a signer");
        let now = 1_700_000_000_u64;
        let check = |change: Value, want: Option<&str>| {
            let mut claims = json!({"iss": "https://i.test", "aud": "c", "sub": "ann", "nonce": "n", "iat": now, "exp": now + 60});
            change.as_object().into_iter().flatten().for_each(|(n, v)| claims[n] = v.clone());
            let token = encode(&signer, &[("kid", kid.clone())], &claims).expect("a token");
            let expected = Expected {
                issuer: "https://i.test",
                client: "c",
                nonce: Some("n"),
                access_token: Some("at"),
                now,
            };
            let got = verify(&token, &keys, &expected).err();
            assert_eq!(got, want.map(|w| Problem::Bad(match_static(w))), "{change}");
        };
        check(json!({}), None);
        check(json!({"at_hash": half_hash(Algorithm::ES256, "at")}), None);
        check(
            json!({"at_hash": half_hash(Algorithm::ES256, "other")}),
            Some("it came with another access token"),
        );
        check(json!({"iss": "https://j.test"}), Some("it is of another issuer"));
        check(json!({"aud": "d"}), Some("it is for another client"));
        check(json!({"aud": ["c", "d"], "azp": "c"}), None);
        check(json!({"aud": ["c", "d"]}), Some("it does not say to which client it was given"));
        check(json!({"azp": "d"}), Some("it was given to another client"));
        check(json!({"nonce": "m"}), Some("it is not of this login"));
        check(json!({"nonce": null}), Some("it is not of this login"));
        check(json!({"exp": now - 60}), Some("it has expired"));
        check(json!({"exp": "never"}), Some("it has expired"));
        check(json!({"iat": now + 61}), Some("it is of the future"));
        check(json!({"sub": ""}), Some("it has no subject"));
        let expected =
            Expected { issuer: "https://i.test", client: "c", nonce: None, access_token: None, now };
        let claims = json!({"iss": "https://i.test", "aud": "c", "sub": "ann", "iat": now, "exp": now + 60});
        let other = encode(&signer, &[("kid", "x".into())], &claims).expect("a token");
        assert_eq!(verify(&other, &keys, &expected), Err(Problem::NoKey(Some("x".into()))));
        let secret = Signer::secret(Algorithm::HS256, &[7; 32]).expect("a signer");
        let symmetric = encode(&secret, &[], &claims).expect("a token");
        assert_eq!(
            verify(&symmetric, &keys, &expected),
            Err(Problem::Bad("its algorithm is not one of public keys"))
        );
        assert_eq!(verify("a.b.c", &keys, &expected), Err(Problem::Bad("it cannot be decoded")));
    }

    fn match_static(text: &str) -> &'static str {
        [
            "it came with another access token",
            "it is of another issuer",
            "it is for another client",
            "it does not say to which client it was given",
            "it was given to another client",
            "it is not of this login",
            "it has expired",
            "it is of the future",
            "it has no subject",
        ]
        .into_iter()
        .find(|known| *known == text)
        .expect("a reason")
    }
}
