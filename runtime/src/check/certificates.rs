//! Certificates and keys: PEM that can be read, and pairs that belong together.

use std::sync::LazyLock;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::diag::{Diagnostic, Diags, codes};
use crate::model::Model;
use crate::source::Spanned;

static PROVIDER: LazyLock<CryptoProvider> = LazyLock::new(rustls::crypto::aws_lc_rs::default_provider);

pub(super) fn check(model: &Model, diags: &mut Diags) {
    for certificate in &model.certificates {
        pair(&certificate.cert, &certificate.key, ("cert", "key"), diags);
        if let (Some(cert), Some(key)) = (&certificate.cert_alt, &certificate.key_alt) {
            pair(cert, key, ("cert_alt", "key_alt"), diags);
        }
    }
    let gateway = &model.gateway;
    let acme = gateway.acme.as_ref().and_then(|a| a.ca.as_ref()).map(|f| ("acme.ca", f));
    let upstream = gateway.tls.upstream_ca.as_ref().map(|f| ("tls.upstream_ca", f));
    for (field, file) in upstream.into_iter().chain(acme) {
        let Some(Err(reason)) = file.pem.as_deref().map(chain) else { continue };
        let message = format!("`gateway.{field}`: the file has no certificates that can be used: {reason}");
        diags.push(Diagnostic::new(&codes::BAD_CERTIFICATE, file.path.span, message));
    }
    for ca in model.ca_certificates.iter().filter(|c| !c.cert.is_empty()) {
        if let Err(reason) = authority(&ca.cert) {
            let message = format!("`cert`: invalid certificate: {reason}");
            diags.push(Diagnostic::new(&codes::BAD_CERTIFICATE, ca.cert.span, message));
        }
    }
}

fn pair(cert: &Spanned<String>, key: &Spanned<String>, fields: (&str, &str), diags: &mut Diags) {
    // What is missing was reported.
    if cert.is_empty() || key.is_empty() {
        return;
    }
    let mut report = |at: &Spanned<String>, message: String, help: &str| {
        diags.push(Diagnostic::new(&codes::BAD_CERTIFICATE, at.span, message).help(help));
    };
    let from_file = "the value is the PEM text itself, as a block (`|`) or from the environment (`${NAME}`), not a file name";
    let chain = match chain(cert) {
        Ok(chain) => chain,
        Err(reason) => {
            return report(cert, format!("`{}`: invalid certificate: {reason}", fields.0), from_file);
        }
    };
    let Ok(private) = PrivateKeyDer::from_pem_slice(key.as_bytes()) else {
        return report(key, format!("`{}`: invalid key: no private key in PEM", fields.1), from_file);
    };
    match CertifiedKey::from_der(chain, private, &PROVIDER) {
        Ok(_) => {}
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => report(
            key,
            format!("`{}`: certificate does not match key", fields.1),
            "give the key with which the certificate was requested; the server's own certificate comes first in a chain",
        ),
        Err(Error::InvalidCertificate(reason)) => {
            report(cert, format!("`{}`: invalid certificate: {reason:?}", fields.0), from_file);
        }
        Err(error) => report(key, format!("`{}`: invalid key: {error}", fields.1), from_file),
    }
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("no certificate in PEM".to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(error.to_string()),
    }
}

/// One certificate that may sign others.
fn authority(pem: &str) -> Result<(), String> {
    let chain = chain(pem)?;
    let [certificate] = chain.as_slice() else {
        return Err("only one certificate must be present".to_owned());
    };
    RootCertStore::empty().add(certificate.clone()).map_err(|e| e.to_string())?;
    if is_authority(certificate) {
        Ok(())
    } else {
        Err("certificate does not appear to be a CA because it is missing the \"CA\" basic constraint"
            .to_owned())
    }
}

/// Whether the extension "basic constraints" says `cA TRUE`. The certificate was parsed, so that its bytes are DER.
fn is_authority(der: &[u8]) -> bool {
    const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];
    const TRUE: &[u8] = &[0x01, 0x01, 0xff];
    let Some(at) = der.windows(BASIC_CONSTRAINTS.len()).position(|w| w == BASIC_CONSTRAINTS) else {
        return false;
    };
    let mut rest = &der[at + BASIC_CONSTRAINTS.len()..];
    // Whether the extension is critical.
    rest = rest.strip_prefix(TRUE).unwrap_or(rest);
    // An octet string, in it a sequence, in it first the flag.
    matches!(rest, [0x04, _, 0x30, _, inner @ ..] if inner.starts_with(TRUE))
}
