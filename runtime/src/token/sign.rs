//! Making tokens: with a secret, or with a private key.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Map, Value};

use super::algorithm::Family;
use super::{Algorithm, pem};

/// A key that signs with one algorithm. It has no `Debug` that could show the key.
pub struct Signer {
    algorithm: Algorithm,
    key: Material,
}

enum Material {
    /// Everything that `jsonwebtoken` signs with.
    Common(EncodingKey, jsonwebtoken::Algorithm),
    /// ES512, which `jsonwebtoken` does not have.
    P521(Box<EcdsaKeyPair>),
}

impl Signer {
    /// A signer with a shared secret.
    pub fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, String> {
        match common(algorithm) {
            Some(name) if algorithm.is_symmetric() => {
                Ok(Self { algorithm, key: Material::Common(EncodingKey::from_secret(secret), name) })
            }
            _ => Err(format!("{algorithm} signs with a private key, not with a secret")),
        }
    }

    /// A signer with the private key of a PEM: `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY`.
    pub fn private_pem(algorithm: Algorithm, text: &str) -> Result<Self, String> {
        let blocks = pem::blocks(text)?;
        let Some(block) = blocks.iter().find(|b| b.label.ends_with("PRIVATE KEY")) else {
            return Err(format!("there is a `{}` but no private key", blocks[0].label));
        };
        match block.label.as_str() {
            "ENCRYPTED PRIVATE KEY" => Err("the private key is encrypted; decrypt it first".into()),
            "RSA PRIVATE KEY" if algorithm.family() == Family::Rsa => {
                let key = EncodingKey::from_rsa_der(&block.der);
                Self::checked(algorithm, key)
            }
            "EC PRIVATE KEY" if algorithm.family() == Family::Ec => Self::sec1(algorithm, &block.der),
            "PRIVATE KEY" => Self::pkcs8(algorithm, &block.der),
            label => {
                Err(format!("a `{label}` cannot sign {algorithm}, which takes {}", algorithm.key_kind()))
            }
        }
    }

    /// A signer with a private key in PKCS#8 DER.
    pub fn pkcs8(algorithm: Algorithm, der: &[u8]) -> Result<Self, String> {
        let key = match algorithm.family() {
            Family::Hmac => return Err(format!("{algorithm} signs with a secret, not with a private key")),
            Family::Rsa => {
                // `jsonwebtoken` takes RSA keys as PKCS#1, which is what PKCS#8 wraps.
                EncodingKey::from_rsa_pem(to_pem("PRIVATE KEY", der).as_bytes())
                    .map_err(|_| wrong_key(algorithm))?
            }
            Family::Ec if algorithm == Algorithm::ES512 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, der)
                    .map_err(|_| wrong_key(algorithm))?;
                return Ok(Self { algorithm, key: Material::P521(Box::new(pair)) });
            }
            Family::Ec => EncodingKey::from_ec_der(der),
            Family::Ed => EncodingKey::from_ed_der(der),
        };
        Self::checked(algorithm, key)
    }

    /// A signer with an EC key as `openssl ecparam -genkey` writes it (RFC 5915).
    fn sec1(algorithm: Algorithm, der: &[u8]) -> Result<Self, String> {
        let curve = match algorithm {
            Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        let pair = EcdsaKeyPair::from_private_key_der(curve, der).map_err(|_| wrong_key(algorithm))?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| wrong_key(algorithm))?;
        Self::pkcs8(algorithm, pkcs8.as_ref())
    }

    /// Finds out by signing whether the key is of the right kind: the library only notices then.
    fn checked(algorithm: Algorithm, key: EncodingKey) -> Result<Self, String> {
        let name = common(algorithm).ok_or_else(|| wrong_key(algorithm))?;
        let signer = Self { algorithm, key: Material::Common(key, name) };
        signer.sign(b"").map_err(|_| wrong_key(algorithm))?;
        Ok(signer)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The signature of a message, in base64url.
    pub fn sign(&self, message: &[u8]) -> Result<String, String> {
        match &self.key {
            Material::Common(key, name) => {
                jsonwebtoken::crypto::sign(message, key, *name).map_err(|e| format!("signing failed: {e}"))
            }
            Material::P521(pair) => {
                let signature =
                    pair.sign(&SystemRandom::new(), message).map_err(|_| "signing failed".to_owned())?;
                Ok(URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }
}

/// Signs claims. The header has `alg` and `typ`, and what `header` adds or replaces.
pub fn encode(signer: &Signer, header: &[(&str, Value)], claims: &Value) -> Result<String, String> {
    let mut fields = Map::new();
    fields.insert("alg".into(), signer.algorithm.name().into());
    fields.insert("typ".into(), "JWT".into());
    for (name, value) in header {
        fields.insert((*name).into(), value.clone());
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&Value::Object(fields)), part(claims));
    let signature = signer.sign(message.as_bytes())?;
    Ok(format!("{message}.{signature}"))
}

/// DER as PEM.
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|b| char::from(*b)));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

fn wrong_key(algorithm: Algorithm) -> String {
    format!("this is not {} with its private part, which {algorithm} signs with", algorithm.key_kind())
}

fn common(algorithm: Algorithm) -> Option<jsonwebtoken::Algorithm> {
    algorithm.name().parse().ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::super::{Key, SecretForm, parse};
    use super::*;

    /// Private and public PEMs.
    struct Pair {
        private: Vec<String>,
        public: Vec<String>,
    }

    fn rsa(size: KeySize) -> Pair {
        let pair = aws_lc_rs::rsa::KeyPair::generate(size).expect("a key pair");
        let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("a key encodes");
        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            pair.public_key().as_der().expect("a key encodes");
        Pair {
            private: vec![to_pem("PRIVATE KEY", pkcs8.as_ref())],
            public: vec![
                to_pem("PUBLIC KEY", spki.as_ref()),
                to_pem("RSA PUBLIC KEY", pair.public_key().as_ref()),
            ],
        }
    }

    fn ec(curve: &'static EcdsaSigningAlgorithm) -> Pair {
        let pair = EcdsaKeyPair::generate(curve).expect("a key pair");
        let pkcs8 = pair.to_pkcs8v1().expect("a key encodes");
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().expect("a key encodes");
        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            pair.public_key().as_der().expect("a key encodes");
        Pair {
            private: vec![to_pem("PRIVATE KEY", pkcs8.as_ref()), to_pem("EC PRIVATE KEY", sec1.as_ref())],
            public: vec![to_pem("PUBLIC KEY", spki.as_ref())],
        }
    }

    fn ed() -> Pair {
        let pair = Ed25519KeyPair::generate().expect("a key pair");
        let pkcs8 = pair.to_pkcs8().expect("a key encodes");
        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            pair.public_key().as_der().expect("a key encodes");
        Pair {
            private: vec![to_pem("PRIVATE KEY", pkcs8.as_ref())],
            public: vec![to_pem("PUBLIC KEY", spki.as_ref())],
        }
    }

    /// Every private form signs and every public form verifies; another algorithm of the same family does not.
    fn check(algorithm: Algorithm, pair: &Pair) {
        for private in &pair.private {
            let signer =
                Signer::private_pem(algorithm, private).unwrap_or_else(|e| panic!("{algorithm}: {e}"));
            let token = encode(&signer, &[("kid", "k".into())], &json!({"iss": "a"})).expect("it signs");
            for public in &pair.public {
                let key = Key::public_pem(algorithm, public).unwrap_or_else(|e| panic!("{algorithm}: {e}"));
                let parsed = parse(token.as_bytes(), 8192).expect("it decodes");
                assert_eq!(parsed.algorithm, algorithm);
                assert_eq!(parsed.header["kid"], "k");
                let verify = |m: &[u8], s: &[u8]| key.verify(SecretForm::Plain, m, s).is_ok();
                assert!(verify(parsed.message, &parsed.signature), "{algorithm}");
                let mut flipped = parsed.signature.clone();
                flipped[7] ^= 1;
                assert!(!verify(parsed.message, &flipped), "{algorithm}");
                assert!(!verify(&parsed.message[1..], &parsed.signature), "{algorithm}");
                assert!(!verify(parsed.message, &parsed.signature[1..]), "{algorithm}");
                assert!(!verify(parsed.message, &[]), "{algorithm}");
                let zeros = vec![0; parsed.signature.len()];
                assert!(!verify(parsed.message, &zeros), "{algorithm}");
            }
        }
    }

    #[test]
    fn what_is_signed_is_verified() {
        let small = rsa(KeySize::Rsa2048);
        for name in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
            check(Algorithm::parse(name).expect("an algorithm"), &small);
        }
        let (p256, p384, p521) = (
            ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ec(&ECDSA_P521_SHA512_FIXED_SIGNING),
        );
        check(Algorithm::ES256, &p256);
        check(Algorithm::ES384, &p384);
        check(Algorithm::ES512, &p521);
        check(Algorithm::EdDSA, &ed());

        for (algorithm, pair) in [
            (Algorithm::ES256, &p384),
            (Algorithm::ES384, &p256),
            (Algorithm::ES512, &p256),
            (Algorithm::RS256, &p256),
            (Algorithm::EdDSA, &p256),
            (Algorithm::ES256, &small),
            (Algorithm::HS256, &small),
        ] {
            assert!(Signer::private_pem(algorithm, &pair.private[0]).is_err(), "{algorithm}");
            assert!(Key::public_pem(algorithm, &pair.public[0]).is_err(), "{algorithm}");
        }
        let error =
            Key::public_pem(Algorithm::ES256, &p256.private[0]).expect_err("a private key is not public");
        assert!(error.contains("private key"), "{error}");
        assert!(!format!("{:?}", Key::public_pem(Algorithm::ES256, &p256.public[0])).contains('['));
    }

    #[test]
    fn secrets_sign_and_verify() {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let signer = Signer::secret(algorithm, b"secret").expect("a secret signs");
            let token = encode(&signer, &[], &json!({})).expect("it signs");
            let parsed = parse(token.as_bytes(), 8192).expect("it decodes");
            let ok = |secret: &[u8], form| {
                Key::hmac(algorithm, secret).verify(form, parsed.message, &parsed.signature).is_ok()
            };
            assert!(ok(b"secret", SecretForm::Plain));
            assert!(!ok(b"secreu", SecretForm::Plain));
            assert!(ok(b"c2VjcmV0", SecretForm::Base64));
            assert!(!ok(b"c2VjcmV0", SecretForm::Plain));
        }
        assert!(Signer::secret(Algorithm::RS256, b"secret").is_err());
    }
}
