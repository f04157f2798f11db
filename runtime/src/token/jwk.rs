//! JSON Web Key sets (RFC 7517), as issuers publish them.

use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::Family;
use super::verify::{Key, rsa_parameters};
use super::{Algorithm, json, roca};

/// The most keys of a set.
pub const MAX_KEYS: usize = 100;

/// The keys of one issuer, prepared for verifying.
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    kid: Option<String>,
    /// One for each algorithm that the key may be used with.
    prepared: Vec<Key>,
}

impl JwkSet {
    /// Reads a set. Keys for other purposes than signatures, or of kinds that gw does not know, are left out, as issuers
    /// publish such beside the others; a set in which nothing is left, or that is contradictory, is an error.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set = json::parse(text).map_err(|e| format!("the key set is not well-formed JSON: {e}"))?;
        Self::from_value(&set)
    }

    /// Reads a set that anybody can read: secrets in it are left out, as they are none.
    pub fn parse_public(text: &[u8]) -> Result<Self, String> {
        let mut set = json::parse(text).map_err(|e| format!("the key set is not well-formed JSON: {e}"))?;
        if let Some(keys) = set.get_mut("keys").and_then(Value::as_array_mut) {
            keys.retain(|k| k["kty"] != "oct");
        }
        Self::from_value(&set)
    }

    /// The same for JSON that has been read.
    pub fn from_value(set: &Value) -> Result<Self, String> {
        let Some(list) = set.get("keys").and_then(Value::as_array) else {
            return Err("the key set has no list `keys`".into());
        };
        if list.len() > MAX_KEYS {
            return Err(format!("the key set has {} keys; at most {MAX_KEYS} are taken", list.len()));
        }
        let symmetric = list.iter().filter(|k| k["kty"] == "oct").count();
        if symmetric > 0 && symmetric < list.len() {
            return Err("the key set mixes secrets with public keys".into());
        }
        let kid = |jwk: &Value| jwk.get("kid").and_then(Value::as_str).map(str::to_owned);
        let (mut keys, mut problems) = (Vec::<Entry>::new(), Vec::new());
        for (i, jwk) in list.iter().enumerate() {
            let earlier = &list[..i];
            let kid = match kid(jwk) {
                Some(id) if earlier.iter().any(|k| kid(k).as_ref() == Some(&id)) => {
                    return Err(format!("two keys have the `kid` {id:?}"));
                }
                kid => kid,
            };
            match prepare(jwk) {
                Ok(prepared) => keys.push(Entry { kid, prepared }),
                Err(problem) => problems.push(format!("key {:?}: {problem}", kid.unwrap_or_default())),
            }
        }
        if keys.is_empty() {
            return Err(format!("the key set has no key that verifies signatures ({})", problems.join("; ")));
        }
        Ok(Self { keys })
    }

    /// Whether a key has this name.
    pub fn names(&self, kid: &str) -> bool {
        self.keys.iter().any(|k| k.kid.as_deref() == Some(kid))
    }

    /// The key for a token: the one that `kid` names, else the only one for the algorithm. Never one of several.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|k| kid.is_none_or(|kid| k.kid.as_deref() == Some(kid)))
            .flat_map(|k| &k.prepared)
            .filter(|k| k.algorithm() == algorithm);
        let key = fitting.next()?;
        fitting.next().is_none().then_some(key)
    }
}

impl JwkSet {
    /// The keys by `kid` and algorithms, in words.
    pub fn described(&self) -> String {
        let one = |entry: &Entry| {
            let names: Vec<&str> = entry.prepared.iter().map(|k| k.algorithm().name()).collect();
            format!("{:?} ({})", entry.kid.as_deref().unwrap_or(""), names.join(" "))
        };
        self.keys.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

fn prepare(jwk: &Value) -> Result<Vec<Key>, String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|u| u != "sig") {
        return Err("its `use` is not `sig`".into());
    }
    let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
    if jwk.get("key_ops").is_some_and(|ops| !verifies(ops)) {
        return Err("its `key_ops` do not have `verify`".into());
    }
    let algorithms = match text("alg") {
        Some(name) => vec![Algorithm::parse(name).ok_or_else(|| format!("its `alg` {name:?} is unknown"))?],
        None => usual_algorithms(text("kty"), text("crv")),
    };
    if algorithms.is_empty() {
        return Err("its `kty` or `crv` is unknown".into());
    }
    algorithms.into_iter().map(|a| prepare_for(jwk, a)).collect()
}

/// What a key without `alg` may be used with.
fn usual_algorithms(kty: Option<&str>, crv: Option<&str>) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match (kty, crv) {
        (Some("RSA"), _) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        (Some("EC"), Some("P-256")) => vec![ES256],
        (Some("EC"), Some("P-384")) => vec![ES384],
        (Some("EC"), Some("P-521")) => vec![ES512],
        (Some("OKP"), Some("Ed25519")) => vec![EdDSA],
        _ => Vec::new(),
    }
}

fn prepare_for(jwk: &Value, algorithm: Algorithm) -> Result<Key, String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let encoded = text(name).ok_or_else(|| format!("it has no `{name}`"))?;
        URL_SAFE_NO_PAD.decode(encoded).map_err(|_| format!("its `{name}` is not base64url"))
    };
    let kind = |kty: &str, crv: Option<&str>| {
        let fits = text("kty") == Some(kty) && (crv.is_none() || text("crv") == crv);
        fits.then_some(())
            .ok_or_else(|| format!("it is not {}, which {algorithm} takes", algorithm.key_kind()))
    };
    match algorithm.family() {
        Family::Hmac => {
            kind("oct", None)?;
            let secret = bytes("k")?;
            let least = match algorithm {
                Algorithm::HS512 => 64,
                Algorithm::HS384 => 48,
                _ => 32,
            };
            if secret.len() < least {
                return Err(format!("its secret is shorter than the {least} bytes that {algorithm} takes"));
            }
            Ok(Key::hmac(algorithm, &secret))
        }
        Family::Rsa => {
            kind("RSA", None)?;
            let (n, e) = (bytes("n")?, bytes("e")?);
            let components = RsaPublicKeyComponents { n: without_zeros(&n), e: without_zeros(&e) };
            if !(256..=1024).contains(&components.n.len()) {
                let bits = components.n.len() * 8;
                return Err(format!("its modulus has {bits} bits; {algorithm} takes 2048 to 8192"));
            }
            if roca::is_weak(components.n) {
                return Err("its private part can be computed (CVE-2017-15361); make a new key".into());
            }
            let parameters = rsa_parameters(algorithm);
            let key = parameters.and_then(|p| components.to_parsed_public_key(p).ok());
            key.map(|key| Key::parsed(algorithm, key))
                .ok_or_else(|| format!("it is not {}, which {algorithm} takes", algorithm.key_kind()))
        }
        Family::Ec => {
            let (curve, size) = match algorithm {
                Algorithm::ES256 => ("P-256", 32),
                Algorithm::ES384 => ("P-384", 48),
                _ => ("P-521", 66),
            };
            kind("EC", Some(curve))?;
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != size || y.len() != size {
                return Err(format!("its coordinates are not {size} bytes long"));
            }
            Key::public_der(algorithm, &[&[4], x.as_slice(), y.as_slice()].concat())
        }
        Family::Ed => {
            kind("OKP", Some("Ed25519"))?;
            Key::public_der(algorithm, &bytes("x")?)
        }
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    &bytes[start..]
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::super::sign::{Signer, encode};
    use super::super::{SecretForm, parse};
    use super::*;

    #[test]
    fn keys_are_found_by_kid_or_where_there_is_no_choice() {
        let jwk = |kid: &str, pair: &EcdsaKeyPair| {
            let point = pair.public_key().as_ref();
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": part(&point[1..33]), "y": part(&point[33..])})
        };
        let make = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a pair");
        let (a, b) = (make(), make());
        let encryption = json!({"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"});
        let set =
            JwkSet::from_value(&json!({"keys": [jwk("a", &a), jwk("b", &b), encryption]})).expect("a set");
        let find = |kid| set.find(kid, Algorithm::ES256);
        assert!(find(None).is_none(), "there are two");
        assert!(find(Some("c")).is_none() && set.find(Some("a"), Algorithm::ES384).is_none());

        let signer =
            Signer::pkcs8(Algorithm::ES256, a.to_pkcs8v1().expect("a key").as_ref()).expect("a signer");
        let token = encode(&signer, &[], &json!({})).expect("a token");
        let token = parse(token.as_bytes(), 8192).expect("it decodes");
        let verifies = |key: &Key| key.verify(SecretForm::Plain, token.message, &token.signature).is_ok();
        assert!(find(Some("a")).is_some_and(verifies) && !find(Some("b")).is_some_and(verifies));
        let alone = JwkSet::from_value(&json!({"keys": [jwk("a", &a)]})).expect("a set");
        assert!(alone.find(None, Algorithm::ES256).is_some_and(verifies));
        let twice = JwkSet::from_value(&json!({"keys": [jwk("a", &a), jwk("a", &b)]}));
        assert!(twice.is_err_and(|e| e.contains("kid")));
    }

    #[test]
    fn unusable_sets_are_refused() {
        let long = URL_SAFE_NO_PAD.encode([7; 32]);
        let check = |set: Value, want: &str| {
            let error = JwkSet::from_value(&set).expect_err(want);
            assert!(error.contains(want), "{set}: {error}");
        };
        check(json!({}), "no list `keys`");
        check(json!({"keys": []}), "no key that verifies");
        check(json!({"keys": [{"kty": "oct", "alg": "HS256", "k": "AAAA"}]}), "shorter than the 32 bytes");
        check(json!({"keys": [{"kty": "oct", "alg": "A256GCM", "k": long}]}), "unknown");
        check(json!({"keys": [{"kty": "oct", "k": long}]}), "`kty` or `crv` is unknown");
        check(json!({"keys": [{"kty": "oct", "alg": "HS256", "k": long}, {"kty": "RSA"}]}), "mixes");
        check(json!({"keys": [{"kty": "RSA", "alg": "ES256"}]}), "it is not an EC key on P-256");
        check(
            json!({"keys": [{"kty": "RSA", "alg": "RS256", "n": "AQAB", "e": "AQ"}]}),
            "its modulus has 24 bits",
        );
        check(json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}), "not 32 bytes");
        check(
            json!({"keys": [{"kty": "EC", "crv": "P-256", "x": long, "y": long}]}),
            "this is not an EC key",
        );
        check(json!({"keys": [{"kty": "EC", "crv": "P-256", "key_ops": ["sign"]}]}), "key_ops");
        check(json!({"keys": vec![0; 101]}), "at most 100");
        assert!(JwkSet::parse(b"{\"keys\":[],\"keys\":[]}").is_err());
    }
}
