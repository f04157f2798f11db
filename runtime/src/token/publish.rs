//! Keys as JSON Web Keys (RFC 7517): what an issuer publishes. The private part only where it is asked for.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, EcPrivateKeyBin, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::algorithm::Family;
use super::{Algorithm, Key, pem};

/// The key of a PEM, private or public, as a JSON Web Key for one algorithm. Its `kid` is its thumbprint (RFC 7638).
pub fn jwk(algorithm: Algorithm, text: &str, private: bool) -> Result<Value, String> {
    let blocks = pem::blocks(text)?;
    let secret = blocks.iter().find(|b| b.label.ends_with("PRIVATE KEY"));
    let mut jwk = match secret {
        Some(block) => from_private(algorithm, &block.label, &block.der, private)?,
        None if private => return Err("there is no private key in it".into()),
        None => {
            let block = blocks.iter().find(|b| b.label == "PUBLIC KEY");
            let block = block.ok_or("there is neither a `PRIVATE KEY` nor a `PUBLIC KEY` in it")?;
            from_public(algorithm, &block.der)?
        }
    };
    let kid = thumbprint(&jwk)?;
    let common = json!({"kid": kid, "alg": algorithm.name(), "use": "sig"});
    for (name, value) in common.as_object().into_iter().flatten() {
        jwk[name] = value.clone();
    }
    Ok(jwk)
}

/// The public part of a key, whatever else it has.
pub fn without_secrets(jwk: &Value) -> Value {
    const SECRET: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    let fields = jwk.as_object().into_iter().flatten();
    let public: Map<String, Value> = fields
        .filter(|(name, _)| !SECRET.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    Value::Object(public)
}

/// The hash by which a key is told from others (RFC 7638).
pub fn thumbprint(jwk: &Value) -> Result<String, String> {
    let needed: &[&str] = match jwk["kty"].as_str() {
        Some("RSA") => &["e", "kty", "n"],
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("OKP") => &["crv", "kty", "x"],
        Some("oct") => &["k", "kty"],
        _ => return Err("the key has no `kty` that is known".into()),
    };
    let members: Vec<String> =
        needed.iter().map(|name| format!("{}:{}", Value::from(*name), jwk[*name])).collect();
    let canonical = format!("{{{}}}", members.join(","));
    Ok(part(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref()))
}

fn part(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn wrong(algorithm: Algorithm) -> String {
    format!("this is not {}, which {algorithm} takes", algorithm.key_kind())
}

/// Name, size of a coordinate in bytes, and signing algorithm.
pub(super) fn curve(algorithm: Algorithm) -> (&'static str, usize, &'static EcdsaSigningAlgorithm) {
    match algorithm {
        Algorithm::ES384 => ("P-384", 48, &ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::ES512 => ("P-521", 66, &ECDSA_P521_SHA512_FIXED_SIGNING),
        _ => ("P-256", 32, &ECDSA_P256_SHA256_FIXED_SIGNING),
    }
}

/// From SubjectPublicKeyInfo, which ends with the key itself for curves.
fn from_public(algorithm: Algorithm, der: &[u8]) -> Result<Value, String> {
    // Has the last word on whether the key is of the right kind.
    Key::public_der(algorithm, der)?;
    let tail = |n: usize| der.len().checked_sub(n).map(|at| &der[at..]).ok_or_else(|| wrong(algorithm));
    match algorithm.family() {
        Family::Hmac => Err(wrong(algorithm)),
        Family::Rsa => {
            let key = aws_lc_rs::rsa::PublicKey::from_der(der).map_err(|_| wrong(algorithm))?;
            let (n, e) = (key.modulus(), key.exponent());
            let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
            Ok(json!({"kty": "RSA", "n": part(n), "e": part(e)}))
        }
        Family::Ec => {
            let (name, size, _) = curve(algorithm);
            match tail(2 * size + 1)? {
                [4, point @ ..] => Ok(
                    json!({"kty": "EC", "crv": name, "x": part(&point[..size]), "y": part(&point[size..])}),
                ),
                _ => Err("the key's point is compressed; write it uncompressed".into()),
            }
        }
        Family::Ed => Ok(json!({"kty": "OKP", "crv": "Ed25519", "x": part(tail(32)?)})),
    }
}

fn from_private(algorithm: Algorithm, label: &str, der: &[u8], private: bool) -> Result<Value, String> {
    let no = |_| wrong(algorithm);
    let unspecified = || wrong(algorithm);
    match algorithm.family() {
        Family::Hmac => Err(unspecified()),
        Family::Rsa => {
            let pair = match label {
                "RSA PRIVATE KEY" => aws_lc_rs::rsa::KeyPair::from_der(der),
                _ => aws_lc_rs::rsa::KeyPair::from_pkcs8(der),
            };
            let pair = pair.map_err(|_| unspecified())?;
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(no)?;
            let mut jwk = from_public(algorithm, spki.as_ref())?;
            if private {
                let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(no)?;
                let numbers = pkcs1_numbers(pkcs8.as_ref()).ok_or_else(unspecified)?;
                for (name, number) in ["d", "p", "q", "dp", "dq", "qi"].into_iter().zip(&numbers[2..]) {
                    jwk[name] = part(number).into();
                }
            }
            Ok(jwk)
        }
        Family::Ec => {
            let (_, _, signing) = curve(algorithm);
            let pair = match label {
                "EC PRIVATE KEY" => EcdsaKeyPair::from_private_key_der(signing, der),
                _ => EcdsaKeyPair::from_pkcs8(signing, der),
            };
            let pair = pair.map_err(|_| unspecified())?;
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(no)?;
            let mut jwk = from_public(algorithm, spki.as_ref())?;
            if private {
                let d: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(no)?;
                jwk["d"] = part(d.as_ref()).into();
            }
            Ok(jwk)
        }
        Family::Ed => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| unspecified())?;
            let mut jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": part(pair.public_key().as_ref())});
            if private {
                let seed = pair.seed().map_err(no)?;
                let seed: aws_lc_rs::encoding::Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(no)?;
                jwk["d"] = part(seed.as_ref()).into();
            }
            Ok(jwk)
        }
    }
}

/// The numbers of an RSA key in PKCS#8, from modulus to coefficient, without leading zeros.
fn pkcs1_numbers(pkcs8: &[u8]) -> Option<Vec<&[u8]>> {
    let (outer, _) = der(pkcs8, 0x30)?;
    let (_version, rest) = der(outer, 0x02)?;
    let (_algorithm, rest) = der(rest, 0x30)?;
    let (octets, _) = der(rest, 0x04)?;
    let (mut rest, _) = der(octets, 0x30)?;
    let mut numbers = Vec::new();
    while let Some((number, after)) = der(rest, 0x02) {
        let start = number.iter().position(|b| *b != 0).unwrap_or(number.len());
        numbers.push(&number[start..]);
        rest = after;
    }
    // The first one is the version.
    (numbers.len() == 9).then(|| numbers.split_off(1))
}

/// The content of a DER value with this tag, and what comes after it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, first, rest @ ..] = bytes else { return None };
    if *found != tag {
        return None;
    }
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long => {
            let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let add = |n: usize, b: &u8| n.checked_mul(256)?.checked_add(usize::from(*b));
            (length.iter().try_fold(0_usize, add)?, rest)
        }
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::super::jwk::JwkSet;
    use super::super::sign::{Signer, encode, to_pem};
    use super::super::{MAX_TOKEN, SecretForm, parse};
    use super::*;

    /// Private keys in PEM.
    fn pems(algorithm: Algorithm) -> String {
        let der = match algorithm.family() {
            Family::Rsa => {
                let pair =
                    aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a pair");
                let der: Pkcs8V1Der<'_> = pair.as_der().expect("it encodes");
                der.as_ref().to_vec()
            }
            Family::Ed => {
                Ed25519KeyPair::generate().and_then(|p| p.to_pkcs8()).expect("a pair").as_ref().to_vec()
            }
            _ => {
                let pair = EcdsaKeyPair::generate(curve(algorithm).2).expect("a pair");
                pair.to_pkcs8v1().expect("it encodes").as_ref().to_vec()
            }
        };
        to_pem("PRIVATE KEY", &der)
    }

    #[test]
    fn what_is_published_verifies_what_is_signed() {
        for algorithm in Algorithm::ALL.iter().copied().filter(|a| !a.is_symmetric()) {
            let pem = pems(algorithm);
            let public = jwk(algorithm, &pem, false).expect("a key");
            let private = jwk(algorithm, &pem, true).expect("a key");
            assert!(public.get("d").is_none() && private["d"].is_string(), "{algorithm}");
            assert_eq!(without_secrets(&private), public, "{algorithm}");
            let set = JwkSet::from_value(&json!({"keys": [public]})).expect("a set");
            let kid = public["kid"].as_str().expect("a text");
            let signer = Signer::private_pem(algorithm, &pem).expect("a signer");
            let token = encode(&signer, &[("kid", kid.into())], &json!({})).expect("a token");
            let token = parse(token.as_bytes(), MAX_TOKEN).expect("it decodes");
            let key = set.find(Some(kid), algorithm).expect("the key");
            assert!(key.verify(SecretForm::Plain, token.message, &token.signature).is_ok(), "{algorithm}");
        }
        let rsa = jwk(Algorithm::RS256, &pems(Algorithm::RS256), true).expect("a key");
        assert_eq!(rsa["p"].as_str().map(str::len), Some(171), "half of the modulus");
    }

    #[test]
    fn thumbprints_are_those_of_rfc_7638() {
        // The key of RFC 8037, appendix A, and the thumbprint that stands there.
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(thumbprint(&key).as_deref(), Ok("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
    }

    #[test]
    fn wrong_keys_are_refused() {
        let ec = pems(Algorithm::ES256);
        for (algorithm, private, want) in
            [(Algorithm::RS256, false, "not an RSA key"), (Algorithm::HS256, false, "shared secret")]
        {
            let error = jwk(algorithm, &ec, private).expect_err(want);
            assert!(error.contains(want), "{error}");
        }
        assert!(jwk(Algorithm::ES256, "x", false).is_err());
    }
}
