//! Keys, requests and certificates: what is sent to be signed, what comes back, and when it is to be renewed.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::account::digest_of;
use crate::model::acme::{KeyType, RenewBefore};
use crate::tls;

/// A key, and the request for a certificate of it.
pub struct Request {
    /// PKCS#8 in PEM.
    pub key: String,
    /// The signing request, in DER.
    pub der: Vec<u8>,
}

impl Request {
    /// A fresh key and a request for this name.
    ///
    /// # Errors
    /// No key could be made.
    pub fn new(domain: &str, key_type: KeyType) -> Result<Self, String> {
        let key = match key_type {
            KeyType::Ecdsa => KeyPair::generate(),
            KeyType::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        };
        let key = key.map_err(|e| format!("no key can be made: {e}"))?;
        let mut params = CertificateParams::new([domain.to_owned()]).map_err(|e| e.to_string())?;
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&key)
            .map_err(|e| format!("no request can be made for `{domain}`: {e}"))?;
        Ok(Self { key: key.serialize_pem(), der: request.der().to_vec() })
    }
}

/// The certificate that proves a name to who checks a TLS-ALPN-01 challenge (RFC 8737 section 3).
///
/// # Errors
/// No key could be made.
pub fn proof(domain: &str, key_authorization: &str) -> Result<Arc<CertifiedKey>, String> {
    let key = KeyPair::generate().map_err(|e| format!("no key can be made: {e}"))?;
    let mut params = CertificateParams::new([domain.to_owned()]).map_err(|e| e.to_string())?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest_of(key_authorization))];
    let cert = params.self_signed(&key).map_err(|e| e.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).map_err(|e| e.to_string())?;
    let key = any_supported_type(&key).map_err(|e| e.to_string())?;
    // Not compared with each other: the critical extension makes the certificate one that no verifier would take.
    Ok(Arc::new(CertifiedKey::new(vec![cert.der().clone()], key)))
}

/// A certificate of ours with its key.
pub struct Ours {
    pub key: Arc<CertifiedKey>,
    /// Key and chain in PEM, as they are kept.
    pub pem: String,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
}

/// Without the key.
impl std::fmt::Debug for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ours").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Ours {
    /// Reads key and chain, and sees that they belong together and are for this name.
    ///
    /// # Errors
    /// Why they cannot be served; the text is not quoted.
    pub fn read(pem: &str, domain: &str) -> Result<Self, String> {
        let key = tls::certified(&(pem.to_owned(), pem.to_owned())).map_err(|e| e.to_string())?;
        let first = key.cert.first().ok_or("there is no certificate")?;
        let (_, parsed) =
            X509Certificate::from_der(first).map_err(|_| "the certificate cannot be read".to_owned())?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let is_it =
            |n: &GeneralName<'_>| matches!(n, GeneralName::DNSName(n) if n.eq_ignore_ascii_case(domain));
        if !names.iter().any(|e| e.value.general_names.iter().any(is_it)) {
            return Err(format!("the certificate is not for `{domain}`"));
        }
        let validity = parsed.validity();
        let seconds = |t: i64| u64::try_from(t).unwrap_or(0);
        let (not_before, not_after) =
            (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()));
        Ok(Self { key, pem: pem.to_owned(), not_before, not_after })
    }

    /// When it is to be renewed, in Unix seconds.
    pub fn renew_at(&self, before: RenewBefore) -> u64 {
        renew_at(self.not_before, self.not_after, before)
    }
}

/// However early renewal is asked for, a third of the lifetime passes first: else a certificate that lives shorter than
/// that would be ordered without end.
fn renew_at(not_before: u64, not_after: u64, before: RenewBefore) -> u64 {
    let lifetime = not_after.saturating_sub(not_before);
    let before = match before {
        RenewBefore::Part(part) => (lifetime as f64 * part) as u64,
        RenewBefore::Time(time) => time.as_secs(),
    };
    not_after.saturating_sub(before.min(lifetime / 3 * 2))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A certificate as an authority might issue it, with its key in front.
    pub(crate) fn issued(domain: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([domain.to_owned()]).unwrap().self_signed(&key).unwrap();
        format!("{}{}", key.serialize_pem(), cert.pem())
    }

    #[test]
    fn only_what_can_be_served_is_ours() {
        let pem = issued("a.test");
        let ours = Ours::read(&pem, "A.test").unwrap();
        assert!(ours.not_before < ours.not_after && ours.pem == pem);
        assert!(!format!("{ours:?}").contains("PRIVATE"));
        assert_eq!(Ours::read(&pem, "b.test").unwrap_err(), "the certificate is not for `b.test`");
        let other = issued("a.test");
        let (key, _) = other.split_once("-----BEGIN CERTIFICATE").unwrap();
        let (_, cert) = pem.split_once("-----BEGIN CERTIFICATE").unwrap();
        let mixed = format!("{key}-----BEGIN CERTIFICATE{cert}");
        for bad in ["", "x", key, &mixed] {
            assert!(Ours::read(bad, "a.test").is_err());
        }
    }

    #[test]
    fn requests_are_for_the_name_and_keys_of_their_type() {
        for (key_type, algorithm) in
            [(KeyType::Ecdsa, "1.2.840.10045.2.1"), (KeyType::Rsa, "1.2.840.113549.1.1.1")]
        {
            let request = Request::new("a.test", key_type).unwrap();
            let (_, parsed) =
                x509_parser::certification_request::X509CertificationRequest::from_der(&request.der).unwrap();
            let info = &parsed.certification_request_info;
            assert_eq!(info.subject_pki.algorithm.algorithm.to_id_string(), algorithm);
            assert!(request.der.windows(6).any(|w| w == b"a.test"));
        }
    }

    #[test]
    fn a_proof_carries_the_answers_hash() {
        let key = proof("a.test", "token.thumbprint").unwrap();
        let (_, parsed) = X509Certificate::from_der(&key.cert[0]).unwrap();
        let found =
            parsed.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(found.critical);
        assert_eq!(&found.value[2..], digest_of("token.thumbprint"));
    }

    #[test]
    fn renewal_is_due_before_the_end_but_never_at_once() {
        let check = |days: u64, before, want_days: f64| {
            let at = renew_at(0, days * 86_400, before);
            assert_eq!(at, (want_days * 86_400.0) as u64, "{days} {before:?}");
        };
        let days = |n: u64| RenewBefore::Time(Duration::from_secs(n * 86_400));
        check(90, RenewBefore::Part(0.5), 45.0);
        check(90, days(30), 60.0);
        check(90, days(60), 30.0);
        check(90, days(365), 30.0);
        check(6, days(30), 2.0);
        check(6, RenewBefore::Part(0.99), 2.0);
    }
}
