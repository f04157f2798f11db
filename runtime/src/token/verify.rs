//! Verifying a signature with a key that was prepared at load.

use std::sync::Arc;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, VerificationAlgorithm};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls_pki_types::CertificateDer;

use super::{Algorithm, pem, roca};
use crate::model::schema::Record;

/// A key that verifies tokens of one algorithm, whatever a token says of itself. Cheap to clone.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    material: Arc<Material>,
}

#[expect(clippy::large_enum_variant, reason = "always behind an `Arc`")]
enum Material {
    /// The secret as written, and what it says when read as base64url.
    Hmac {
        plain: hmac::Key,
        decoded: Option<hmac::Key>,
    },
    Public(ParsedPublicKey),
    /// The credential has no key for its algorithm: every token is refused.
    Absent,
}

/// How a shared secret is written in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SecretForm {
    /// Its bytes are the key.
    #[default]
    Plain,
    /// It is the base64url of the key.
    Base64,
}

/// Why a signature was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no key, or the secret is not base64 although it should be.
    NoKey,
    /// The signature does not belong to key and message.
    BadSignature,
}

impl Key {
    /// A key from a secret's bytes.
    pub fn hmac(algorithm: Algorithm, secret: &[u8]) -> Self {
        let digest = hmac_of(algorithm);
        let decoded = decode_secret(secret).map(|bytes| hmac::Key::new(digest, &bytes));
        let material = Material::Hmac { plain: hmac::Key::new(digest, secret), decoded };
        Self { algorithm, material: Arc::new(material) }
    }

    /// A key from PEM: `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`.
    pub fn public_pem(algorithm: Algorithm, text: &str) -> Result<Self, String> {
        let blocks = pem::blocks(text)?;
        let block = blocks
            .iter()
            .find(|b| matches!(b.label.as_str(), "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE"));
        let Some(block) = block else {
            let label = &blocks[0].label;
            return Err(if label.contains("PRIVATE KEY") {
                format!("this is a private key (`{label}`); give the public key that belongs to it")
            } else {
                format!("`{label}` is neither `PUBLIC KEY`, `RSA PUBLIC KEY` nor `CERTIFICATE`")
            });
        };
        if block.label == "CERTIFICATE" {
            let der = CertificateDer::from(block.der.as_slice());
            let certificate = rustls::server::ParsedCertificate::try_from(&der)
                .map_err(|e| format!("the certificate cannot be read: {e}"))?;
            return Self::public_der(algorithm, &certificate.subject_public_key_info());
        }
        Self::public_der(algorithm, &block.der)
    }

    /// A key from SubjectPublicKeyInfo or PKCS#1 DER, or an Ed25519 key's 32 bytes.
    pub fn public_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, String> {
        let Some(verifier) = public_algorithm(algorithm) else {
            return Err(format!("{algorithm} takes a shared secret, not a public key"));
        };
        let wrong = || format!("this is not {}, which {algorithm} takes", algorithm.key_kind());
        if rsa_parameters(algorithm).is_some() {
            let key = aws_lc_rs::rsa::PublicKey::from_der(der).map_err(|_| wrong())?;
            let modulus = modulus(key.as_ref()).ok_or_else(wrong)?;
            let bits = bits(modulus);
            if !(2048..=8192).contains(&bits) {
                return Err(format!("this RSA key has {bits} bits; {algorithm} takes 2048 to 8192"));
            }
            if roca::is_weak(modulus) {
                return Err(
                    "this RSA key's private part can be computed (CVE-2017-15361); make a new key".into()
                );
            }
        }
        let key = ParsedPublicKey::new(verifier, der).map_err(|_| wrong())?;
        Ok(Self::parsed(algorithm, key))
    }

    /// A key that has been parsed for the algorithm.
    pub(super) fn parsed(algorithm: Algorithm, key: ParsedPublicKey) -> Self {
        Self { algorithm, material: Arc::new(Material::Public(key)) }
    }

    /// The key of a `jwt_secrets` entry.
    pub fn from_credential(record: &Record) -> Result<Self, String> {
        let name = record.str("algorithm").unwrap_or("HS256");
        let algorithm = Algorithm::parse(name).ok_or_else(|| format!("`{name}` is no algorithm of gw"))?;
        if algorithm.is_symmetric() {
            return match record.str("secret") {
                Some("") => Err("`secret` is empty, so that anyone could sign".into()),
                Some(secret) => Ok(Self::hmac(algorithm, secret.as_bytes())),
                None => Self::unknowable(algorithm),
            };
        }
        match record.str("rsa_public_key") {
            Some(text) => Self::public_pem(algorithm, text).map_err(|e| format!("`rsa_public_key`: {e}")),
            None => Ok(Self { algorithm, material: Arc::new(Material::Absent) }),
        }
    }

    /// A random secret that nobody learns: what Kong makes up where a config gives none.
    fn unknowable(algorithm: Algorithm) -> Result<Self, String> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| "the system gives no random bytes".to_owned())?;
        Ok(Self::hmac(algorithm, &secret))
    }

    /// The one algorithm that the key is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the key can verify anything.
    pub fn is_present(&self) -> bool {
        !matches!(*self.material, Material::Absent)
    }

    /// Checks `signature` over `message` (`header.payload` as received). Takes the same time for every wrong HMAC.
    pub fn verify(&self, form: SecretForm, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        let good = match (&*self.material, form) {
            (Material::Hmac { plain, .. }, SecretForm::Plain) => {
                hmac::verify(plain, message, signature).is_ok()
            }
            (Material::Hmac { decoded: Some(key), .. }, SecretForm::Base64) => {
                hmac::verify(key, message, signature).is_ok()
            }
            (Material::Public(key), _) => key.verify_sig(message, signature).is_ok(),
            (Material::Hmac { decoded: None, .. } | Material::Absent, _) => return Err(Refusal::NoKey),
        };
        if good { Ok(()) } else { Err(Refusal::BadSignature) }
    }
}

impl Key {
    /// [`Key::verify`] for a signature in base64url.
    pub fn verify_encoded(&self, form: SecretForm, message: &[u8], signature: &str) -> Result<(), Refusal> {
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refusal::BadSignature)?;
        self.verify(form, message, &signature)
    }
}

impl std::fmt::Debug for Key {
    /// Names the algorithm and nothing of the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The bytes of a secret in base64url. The standard alphabet and missing or present padding are taken too, as Kong
/// takes them.
pub fn decode_secret(secret: &[u8]) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let url_safe: Vec<u8> = secret
        .iter()
        .map(|b| match b {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    LENIENT.decode(url_safe).ok().filter(|bytes| !bytes.is_empty())
}

fn hmac_of(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

fn public_algorithm(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
        Algorithm::EdDSA => &signature::ED25519,
        other => rsa_parameters(other)?,
    })
}

/// The modulus in a PKCS#1 public key (a DER sequence that begins with it), without leading zeros.
fn modulus(pkcs1: &[u8]) -> Option<&[u8]> {
    let (_, sequence) = der_value(0x30, pkcs1)?;
    let (length, modulus) = der_value(0x02, sequence)?;
    let modulus = modulus.get(..length)?;
    let start = modulus.iter().position(|b| *b != 0)?;
    Some(&modulus[start..])
}

/// The length of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.len() * 8 - number.first().map_or(0, |b| b.leading_zeros() as usize)
}

/// The length that a DER value states, and everything from its first byte on.
fn der_value(tag: u8, der: &[u8]) -> Option<(usize, &[u8])> {
    let [found, first, rest @ ..] = der else { return None };
    if *found != tag {
        return None;
    }
    if *first < 0x80 {
        return Some((usize::from(*first), rest));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
    let length = length.iter().try_fold(0_usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)))?;
    Some((length, rest))
}

/// The RSA algorithms.
pub(super) fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_rsa_keys_are_refused() {
        // 1024 bits: the smallest that many an old config has.
        let mut der = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00, 0xc1];
        der.extend([0x55; 127]);
        der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        assert_eq!(modulus(&der).map(bits), Some(1024));
        let error = Key::public_der(Algorithm::RS256, &der).expect_err("it is too short");
        assert!(error.contains("has 1024 bits"), "{error}");
        for broken in [&der[..3], &der[..20], &[], &[0x30, 0xff], &[0x30, 0x02, 0x02, 0x01]] {
            assert!(Key::public_der(Algorithm::RS256, broken).is_err());
            assert_eq!(modulus(broken), None);
        }
    }

    #[test]
    fn secrets_decode_in_either_alphabet() {
        for (text, want) in [
            ("c2VjcmV0", Some(&b"secret"[..])),
            ("-_-_", Some(&[0xfb, 0xff, 0xbf])),
            ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
            ("YQ", Some(b"a")),
            ("YQ==", Some(b"a")),
            ("Y", None),
            ("!", None),
            ("", None),
        ] {
            assert_eq!(decode_secret(text.as_bytes()).as_deref(), want, "{text}");
        }
    }
}
