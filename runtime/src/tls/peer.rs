//! What a client's certificate says of the client. It has been verified by the listener's authorities by then.

use ::aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// The client at the other end of a connection, by its certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// Distinguished name.
    pub subject: String,
    pub common_name: Option<String>,
    /// Alternative names: URIs (SPIFFE), hosts, mail addresses.
    pub uris: Vec<String>,
    pub hosts: Vec<String>,
    pub mails: Vec<String>,
    /// Certificates that the client sent with its own, up to its authority.
    pub chain_length: usize,
    /// The value of `X-Forwarded-Client-Cert`, as Envoy writes it.
    pub forwarded: String,
}

/// Alternative names that are taken of a certificate; nobody has more identities.
const MOST_NAMES: usize = 64;

impl PeerCertificate {
    /// Reads the client's chain, its own certificate first. `None` if that is none, or malformed.
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let own = chain.first()?;
        let (_, certificate) = X509Certificate::from_der(own).ok()?;
        let mut this = Self {
            fingerprint: digest(&SHA256, own).as_ref().iter().map(|b| format!("{b:02x}")).collect(),
            subject: certificate.subject().to_string(),
            common_name: certificate
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .filter(|name| is_sound(name))
                .map(str::to_owned),
            chain_length: chain.len(),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|e| &e.value.general_names).take(MOST_NAMES) {
            let (list, text) = match name {
                GeneralName::URI(text) => (&mut this.uris, *text),
                GeneralName::DNSName(text) => (&mut this.hosts, *text),
                GeneralName::RFC822Name(text) => (&mut this.mails, *text),
                _ => continue,
            };
            if is_sound(text) {
                list.push(text.to_owned());
            }
        }
        this.forwarded = this.as_forwarded();
        Some(this)
    }

    fn as_forwarded(&self) -> String {
        let mut out = format!("Hash={};Subject=\"{}\"", self.fingerprint, quoted(&self.subject));
        for (key, names) in [("URI", &self.uris), ("DNS", &self.hosts)] {
            for name in names {
                // Bare only where nothing in it could end the value.
                match name.contains([',', ';', '=', '"', '\\', ' ']) {
                    true => out.push_str(&format!(";{key}=\"{}\"", quoted(name))),
                    false => out.push_str(&format!(";{key}={name}")),
                }
            }
        }
        out
    }

    /// Every name, the most specific first: URIs, mail addresses, hosts, the common name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let lists = [&self.uris, &self.mails, &self.hosts];
        lists.into_iter().flatten().chain(&self.common_name).map(String::as_str)
    }
}

/// Whether a text can be handed on in a header.
fn is_sound(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control)
}

fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect::<String>().replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn der(cn: &str, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, cn);
        params.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn certificates_are_read_and_forwarded_as_envoy_writes_them() {
        let text = |s: &str| s.to_owned().try_into().expect("ASCII");
        let own = der(
            "alice \"a\"; URI=x",
            vec![
                SanType::URI(text("spiffe://t/ns/a")),
                SanType::URI(text("u:x;Hash=0")),
                SanType::DnsName(text("a.test")),
                SanType::Rfc822Name(text("a@t.test")),
            ],
        );
        let peer = PeerCertificate::of(&[own]).expect("it is read");
        assert_eq!(peer.fingerprint.len(), 64);
        let names: Vec<&str> = peer.names().collect();
        assert_eq!(names, ["spiffe://t/ns/a", "u:x;Hash=0", "a@t.test", "a.test", "alice \"a\"; URI=x"]);
        let want = format!(
            "Hash={};Subject=\"CN=alice \\\"a\\\"; URI=x\";URI=spiffe://t/ns/a;URI=\"u:x;Hash=0\";DNS=a.test",
            peer.fingerprint
        );
        assert_eq!(peer.forwarded, want);
        let odd = PeerCertificate::of(&[der("a\r\nX: y", Vec::new())]).expect("it is read");
        assert!(odd.common_name.is_none() && !odd.forwarded.contains('\n'), "{odd:?}");
        assert_eq!(PeerCertificate::of(&[]), None);
        assert_eq!(PeerCertificate::of(&[CertificateDer::from(vec![0x30, 1])]), None);
    }
}
