//! The account with an ACME server: its key, and requests signed with it (RFC 8555 section 6.2).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::token::publish::thumbprint;

/// Bytes in base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An account: its key on P-256, and the URL by which the server knows it once it does.
pub struct Account {
    pair: EcdsaKeyPair,
    /// PKCS#8.
    der: Vec<u8>,
    pub url: Option<String>,
}

/// By what a request names its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// The key itself: for requests before there is an account.
    Key,
    /// The account's URL.
    Url(&'a str),
}

impl Account {
    /// A new key, which no server knows yet.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, String> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| "no key can be made".to_owned())?;
        Self::of(der.as_ref().to_vec(), None)
    }

    fn of(der: Vec<u8>, url: Option<String>) -> Result<Self, String> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_| "the account's key is no P-256 key in PKCS#8".to_owned())?;
        Ok(Self { pair, der, url })
    }

    /// As it is kept.
    pub fn to_text(&self) -> String {
        let document = json!({ "url": self.url, "key": STANDARD.encode(&self.der) });
        format!("{document:#}\n")
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// It is no account; the text is not quoted.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|_| "the account that was kept is no JSON".to_owned())?;
        let key = document["key"].as_str().and_then(|k| STANDARD.decode(k).ok());
        let key = key.ok_or("the account that was kept has no key")?;
        Self::of(key, document["url"].as_str().map(str::to_owned))
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        // 4, then the coordinates.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32.min(point.len().saturating_sub(1)));
        json!({ "kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y) })
    }

    /// What answers a challenge with this token (RFC 8555 section 8.1).
    ///
    /// # Errors
    /// Never with a key of this kind.
    pub fn key_authorization(&self, token: &str) -> Result<String, String> {
        Ok(format!("{token}.{}", thumbprint(&self.jwk())?))
    }

    /// A signed request's body; an empty payload is that of POST-as-GET.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn sign(
        &self,
        url: &str,
        nonce: &str,
        by: By<'_>,
        payload: Option<&Value>,
    ) -> Result<String, String> {
        let mut header = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        match by {
            By::Key => header["jwk"] = self.jwk(),
            By::Url(account) => header["kid"] = account.into(),
        }
        let payload = payload.map(Value::to_string).unwrap_or_default();
        let (header, payload) = (base64url(header.to_string().as_bytes()), base64url(payload.as_bytes()));
        let message = format!("{header}.{payload}");
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message.as_bytes())
            .map_err(|_| "signing with the account's key failed".to_owned())?;
        let signature = base64url(signature.as_ref());
        Ok(json!({ "protected": header, "payload": payload, "signature": signature }).to_string())
    }
}

/// External account binding: the authority's own key says whose account this is (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    pub kid: String,
    key: Vec<u8>,
}

impl Binding {
    /// Reads the key, which authorities give in base64url.
    ///
    /// # Errors
    /// It is none, or empty; it is not quoted.
    pub fn new(kid: &str, key: &str) -> Result<Self, &'static str> {
        let key = key.trim();
        let bytes = URL_SAFE_NO_PAD.decode(key).or_else(|_| URL_SAFE.decode(key)).ok();
        match bytes.filter(|b| !b.is_empty()) {
            Some(key) => Ok(Self { kid: kid.to_owned(), key }),
            None => Err("the key is not in base64url"),
        }
    }

    /// What goes into the request for a new account at `url`.
    pub fn sign(&self, url: &str, account: &Account) -> Value {
        let header = json!({ "alg": "HS256", "kid": self.kid, "url": url });
        let header = base64url(header.to_string().as_bytes());
        let payload = base64url(account.jwk().to_string().as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        let signature = base64url(hmac::sign(&key, format!("{header}.{payload}").as_bytes()).as_ref());
        json!({ "protected": header, "payload": payload, "signature": signature })
    }
}

/// The SHA-256 of a key authorization, which a certificate for TLS-ALPN-01 carries.
pub fn digest_of(key_authorization: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, key_authorization.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    fn part(document: &Value, name: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(document[name].as_str().unwrap()).unwrap()
    }

    fn signed(document: &Value) -> String {
        format!("{}.{}", document["protected"].as_str().unwrap(), document["payload"].as_str().unwrap())
    }

    #[test]
    fn requests_are_signed_with_the_key_that_they_name() {
        let account = Account::generate().unwrap();
        let payload = json!({ "a": 1 });
        for (by, payload) in [(By::Key, Some(&payload)), (By::Url("https://a.test/1"), None)] {
            let text = account.sign("https://a.test/x", "n0nce", by, payload).unwrap();
            let document: Value = serde_json::from_str(&text).unwrap();
            let header: Value = serde_json::from_slice(&part(&document, "protected")).unwrap();
            assert_eq!(
                (&header["alg"], &header["nonce"], &header["url"]),
                (&json!("ES256"), &json!("n0nce"), &json!("https://a.test/x"))
            );
            match by {
                By::Key => assert!(header["kid"].is_null() && header["jwk"] == account.jwk()),
                By::Url(url) => assert!(header["jwk"].is_null() && header["kid"] == *url),
            }
            let want = payload.map(Value::to_string).unwrap_or_default();
            assert_eq!(part(&document, "payload"), want.as_bytes());
            let key =
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, account.pair.public_key().as_ref().to_vec());
            key.verify(signed(&document).as_bytes(), &part(&document, "signature")).unwrap();
        }
    }

    #[test]
    fn an_account_is_kept_and_read() {
        let mut account = Account::generate().unwrap();
        account.url = Some("https://a.test/acct/1".to_owned());
        let again = Account::from_text(&account.to_text()).unwrap();
        assert_eq!((again.jwk(), &again.url), (account.jwk(), &account.url));
        let answer = account.key_authorization("tok").unwrap();
        assert_eq!(answer, again.key_authorization("tok").unwrap());
        assert!(answer.starts_with("tok.") && answer.len() == 4 + 43, "{answer}");
        for bad in ["", "{}", "{\"key\":\"!\"}", "{\"key\":\"AAAA\"}", "[1]"] {
            assert!(Account::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_binding_signs_the_accounts_key() {
        let account = Account::generate().unwrap();
        let binding = Binding::new("kid-1", "c2VjcmV0").unwrap();
        assert!(binding == Binding::new("kid-1", "c2VjcmV0\n").unwrap());
        let document = binding.sign("https://a.test/new", &account);
        let header: Value = serde_json::from_slice(&part(&document, "protected")).unwrap();
        assert_eq!(header, json!({ "alg": "HS256", "kid": "kid-1", "url": "https://a.test/new" }));
        assert_eq!(serde_json::from_slice::<Value>(&part(&document, "payload")).unwrap(), account.jwk());
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        hmac::verify(&key, signed(&document).as_bytes(), &part(&document, "signature")).unwrap();
        for bad in ["", "!", "a b"] {
            assert!(Binding::new("k", bad).is_err(), "{bad}");
        }
    }
}
