//! Reading certificates: what `gw certs show` prints and `gw certs renew` repeats.

use std::net::IpAddr;

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use super::Purpose;

/// What a certificate says.
#[derive(Debug, serde::Serialize)]
pub struct Description {
    pub subject: String,
    pub issuer: String,
    /// Hexadecimal.
    pub serial: String,
    #[serde(skip)]
    pub common_name: Option<String>,
    /// Alternative names: hosts, addresses, URIs, mail addresses.
    pub names: Vec<String>,
    #[serde(with = "time_text")]
    pub not_before: OffsetDateTime,
    #[serde(with = "time_text")]
    pub not_after: OffsetDateTime,
    pub key: String,
    pub is_ca: bool,
    /// `server`, `client`.
    pub usages: Vec<&'static str>,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
}

mod time_text {
    use time::OffsetDateTime;
    pub fn serialize<S: serde::Serializer>(at: &OffsetDateTime, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::date_time(*at))
    }
}

/// A moment as `2026-03-01T12:00:00Z`.
pub fn date_time(at: OffsetDateTime) -> String {
    let (d, t) = (at.date(), at.time());
    let month: u8 = d.month().into();
    format!("{:04}-{month:02}-{:02}T{:02}:{:02}:{:02}Z", d.year(), d.day(), t.hour(), t.minute(), t.second())
}

impl Description {
    /// Whole days from `now` to the end; negative once it has expired.
    pub fn days_left(&self, now: OffsetDateTime) -> i64 {
        (self.not_after - now).whole_days()
    }

    /// What the certificate is for, if it is for one thing.
    pub fn purpose(&self) -> Option<Purpose> {
        match self.usages[..] {
            ["server"] => Some(Purpose::Server),
            ["client"] => Some(Purpose::Client),
            _ => None,
        }
    }
}

/// Describes every certificate of a PEM text.
pub fn describe(pem: &str) -> anyhow::Result<Vec<Description>> {
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|e| anyhow::anyhow!("this is not well-formed PEM: {e:?}"))?;
        let (_, certificate) = X509Certificate::from_der(&der).context("the certificate is malformed")?;
        found.push(one(&certificate, &der)?);
    }
    anyhow::ensure!(!found.is_empty(), "there is no certificate in it");
    Ok(found)
}

fn one(certificate: &X509Certificate<'_>, der: &[u8]) -> anyhow::Result<Description> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |e| &e.value.general_names).iter().map(name).collect();
    let extended = certificate.extended_key_usage().ok().flatten();
    let mut usages = Vec::new();
    if let Some(usage) = extended {
        usages.extend(usage.value.server_auth.then_some("server"));
        usages.extend(usage.value.client_auth.then_some("client"));
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    Ok(Description {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: hex(certificate.raw_serial()),
        common_name: certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .map(str::to_owned),
        names,
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
        key: key(certificate),
        is_ca: certificate.is_ca(),
        usages,
        fingerprint: hex(digest(&SHA256, der).as_ref()),
    })
}

/// The host names of `names` that an authority may not sign for, because it is constrained to others.
pub fn outside(authority: &str, names: &[String]) -> anyhow::Result<Vec<String>> {
    let der = CertificateDer::from_pem_slice(authority.as_bytes())
        .map_err(|e| anyhow::anyhow!("this is not well-formed PEM: {e:?}"))?;
    let (_, certificate) = X509Certificate::from_der(&der).context("the certificate is malformed")?;
    let constraints = certificate.name_constraints().ok().flatten();
    let Some(permitted) = constraints.and_then(|c| c.value.permitted_subtrees.as_ref()) else {
        return Ok(Vec::new());
    };
    let domains: Vec<&str> = permitted
        .iter()
        .filter_map(|subtree| match &subtree.base {
            GeneralName::DNSName(domain) => Some(*domain),
            _ => None,
        })
        .collect();
    let within = |name: &str| {
        let name = name.trim_start_matches("*.");
        domains.iter().any(|d| name == *d || name.strip_suffix(d).is_some_and(|rest| rest.ends_with('.')))
    };
    let is_host = |n: &&String| !n.contains(['@', ':', '/']) && n.parse::<IpAddr>().is_err();
    Ok(names.iter().filter(is_host).filter(|n| !within(n)).cloned().collect())
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => {
            (*text).to_owned()
        }
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.map_or_else(|_| "(malformed address)".to_owned(), |a| a.to_string())
        }
        other => other.to_string(),
    }
}

fn key(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA, {} bits", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("EC, {} bits", point.key_size()),
        Ok(_) | Err(_) => match certificate.public_key().algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".to_owned(),
            other => format!("algorithm {other}"),
        },
    }
}
