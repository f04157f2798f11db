//! Tokens that must be refused, each for one reason: to see that a gateway refuses them.

use serde_json::{Value, json};

use super::super::sign::{Signer, encode};
use super::super::{Algorithm, pem};
use super::{MintError, Prepared};

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// `exp` is an hour ago.
    Expired,
    /// `nbf` is in an hour.
    Nbf,
    /// For another audience.
    Aud,
    /// From another issuer.
    Iss,
    /// A bit of the signature is flipped.
    Sig,
    /// `alg` is `none`, and there is no signature.
    AlgNone,
    /// HS256 with the public key as the secret.
    HsConfusion,
    /// Names a key that there is not.
    Kid,
    /// Is a logout token.
    Typ,
    /// Makes an extension mandatory.
    Crit,
    /// Never expires.
    NoExp,
}

impl Broken {
    /// Every kind, by its name on the command line.
    pub const ALL: &[(&str, Self)] = &[
        ("expired", Self::Expired),
        ("nbf", Self::Nbf),
        ("aud", Self::Aud),
        ("iss", Self::Iss),
        ("sig", Self::Sig),
        ("alg-none", Self::AlgNone),
        ("hs-confusion", Self::HsConfusion),
        ("kid", Self::Kid),
        ("typ", Self::Typ),
        ("crit", Self::Crit),
        ("no-exp", Self::NoExp),
    ];
}

const HOUR: u64 = 3600;

/// The token, broken.
pub fn encode_broken(mut token: Prepared, how: Broken, now: u64) -> Result<String, MintError> {
    let mut put = |name: &str, value: Value| token.claims[name] = value;
    match how {
        Broken::Expired => {
            put("iat", (now - 2 * HOUR).into());
            put("exp", (now - HOUR).into());
        }
        Broken::Nbf => put("nbf", (now + HOUR).into()),
        Broken::Aud => put("aud", "https://another-audience.invalid".into()),
        Broken::Iss => put("iss", "https://another-issuer.invalid".into()),
        Broken::Kid => token.set_header("kid", "no-such-key".into()),
        Broken::Typ => token.set_header("typ", "logout+jwt".into()),
        Broken::Crit => {
            token.set_header("crit", json!(["urn:example:unknown"]));
            token.set_header("urn:example:unknown", true.into());
        }
        Broken::NoExp => {
            if let Value::Object(claims) = &mut token.claims {
                claims.remove("exp");
            }
        }
        Broken::Sig | Broken::AlgNone | Broken::HsConfusion => {}
    }
    let text = match how {
        Broken::AlgNone => {
            token.set_header("alg", "none".into());
            let text = token.encode()?;
            return Ok(text[..=text.rfind('.').unwrap_or(0)].to_owned());
        }
        Broken::HsConfusion => {
            let key = token.public_pem.clone().ok_or(MintError::NothingToConfuse)?;
            let signer = Signer::secret(Algorithm::HS256, key.as_bytes()).map_err(MintError::Key)?;
            return encode(&signer, &token.header(), &token.claims).map_err(MintError::Key);
        }
        _ => token.encode()?,
    };
    Ok(if how == Broken::Sig { with_flipped_bit(&text) } else { text })
}

/// Changes the first character of the signature, which stands for six bits that all count.
fn with_flipped_bit(token: &str) -> String {
    let at = token.rfind('.').map_or(0, |dot| dot + 1);
    let other = if token[at..].starts_with('A') { 'B' } else { 'A' };
    let rest = token.get(at + 1..).unwrap_or("");
    format!("{}{other}{rest}", &token[..at])
}

/// The public key of a private one in PEM, as people take it for a secret.
pub fn public_pem(algorithm: Algorithm, private: &str) -> Option<String> {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::signature::KeyPair as _;
    let block = pem::blocks(private).ok()?.into_iter().find(|b| b.label == "PRIVATE KEY")?;
    let spki: PublicKeyX509Der<'_> = match algorithm.family() {
        super::super::algorithm::Family::Rsa => {
            aws_lc_rs::rsa::KeyPair::from_pkcs8(&block.der).ok()?.public_key().as_der().ok()?
        }
        super::super::algorithm::Family::Ed => {
            let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&block.der).ok()?;
            pair.public_key().as_der().ok()?
        }
        _ => {
            let signing = super::super::publish::curve(algorithm).2;
            let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(signing, &block.der).ok()?;
            pair.public_key().as_der().ok()?
        }
    };
    Some(super::super::sign::to_pem("PUBLIC KEY", spki.as_ref()))
}
