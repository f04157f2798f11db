//! Certificates for development: an authority, and what it signs for servers and clients.

pub mod inspect;
pub mod p12;
pub mod store;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, string::Ia5String,
};
use time::{Duration, OffsetDateTime};

/// Days that an authority lives.
pub const CA_DAYS: u32 = 730;
/// Days that a server's or client's certificate lives.
pub const LEAF_DAYS: u32 = 90;
/// More days than clients accept of a server's certificate.
pub const MAX_LEAF_DAYS: u32 = 398;
/// What every server certificate is good for.
pub const LOCAL_HOSTS: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// A certificate and its private key, in PEM.
pub struct Pair {
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Server,
    Client,
}

/// A certificate to be signed.
#[derive(Clone, Debug)]
pub struct Request {
    pub purpose: Purpose,
    /// DNS names, one leftmost `*` allowed, and IP addresses; for a client its names.
    pub names: Vec<String>,
    pub days: u32,
}

/// Below which names a development authority signs: what leads nowhere on the internet.
pub const LOCAL_NAMES: &[&str] = &["localhost", "test", "internal", "local", "home.arpa"];

/// Makes a self-signed authority on P-256. It may sign end-entity certificates only, and with `constrained` only for
/// [`LOCAL_NAMES`], private and local addresses, and what else is named: whoever steals its key can pass for nobody else.
pub fn authority(now: OffsetDateTime, constrained: Option<&[String]>) -> anyhow::Result<Pair> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // Authorities of one name with several keys confuse trust stores, so the name tells them apart.
    let id: String = key.public_key_raw().iter().rev().take(4).map(|b| format!("{b:02x}")).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("gw development CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Some(further) = constrained {
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: permitted(further), excluded_subtrees: Vec::new() });
    }
    lifetime(&mut params, now, CA_DAYS);
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn permitted(further: &[String]) -> Vec<GeneralSubtree> {
    const V4: &[([u8; 4], u8)] =
        &[([127, 0, 0, 0], 8), ([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16)];
    let names = LOCAL_NAMES.iter().map(|&n| n.to_owned()).chain(further.iter().cloned());
    let mut all: Vec<GeneralSubtree> =
        names.map(|n| GeneralSubtree::DnsName(n.trim_start_matches("*.").to_owned())).collect();
    all.extend(V4.iter().map(|(ip, bits)| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(*ip, *bits))));
    let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
    let local = [0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    all.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(loopback, 128)));
    all.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(local, 7)));
    all
}

/// What is wrong with a certificate that is made for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Broken {
    /// It ended yesterday.
    Expired,
    /// It begins tomorrow.
    NotYet,
    /// It is for another host.
    WrongHost,
    /// Nobody but itself has signed it.
    SelfSigned,
    /// An authority has signed it that nobody trusts.
    WrongCa,
    /// It is a client's where a server's is wanted, or the other way round.
    WrongUse,
}

/// A certificate that must be refused for one reason.
pub fn issue_broken(ca: &Pair, request: &Request, how: Broken, now: OffsetDateTime) -> anyhow::Result<Pair> {
    let mut request = request.clone();
    match how {
        Broken::Expired => issue(ca, &request, now - Duration::days(i64::from(request.days) + 1)),
        Broken::NotYet => issue(ca, &request, now + Duration::days(1)),
        Broken::WrongHost => {
            request.names = vec!["wrong-host.test".to_owned()];
            issue(ca, &request, now)
        }
        Broken::WrongCa => issue(&authority(now, None)?, &request, now),
        Broken::WrongUse => {
            request.purpose = match request.purpose {
                Purpose::Server => Purpose::Client,
                Purpose::Client => Purpose::Server,
            };
            issue(ca, &request, now)
        }
        Broken::SelfSigned => {
            let key = KeyPair::generate()?;
            let certificate = leaf(&request, now)?.self_signed(&key)?;
            Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
        }
    }
}

/// Has `ca` sign a certificate for a fresh key on P-256.
pub fn issue(ca: &Pair, request: &Request, now: OffsetDateTime) -> anyhow::Result<Pair> {
    let ca_key = KeyPair::from_pem(&ca.key).context("the authority's key cannot be read")?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, ca_key)
        .context("the authority's certificate cannot be read")?;
    let key = KeyPair::generate()?;
    let mut params = leaf(request, now)?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// What stands in a server's or client's certificate.
fn leaf(request: &Request, now: OffsetDateTime) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    // A client that is called by a word is so by its common name: among the alternative names it would be a host, for
    // which a constrained authority does not sign.
    let is_word = |n: &&String| request.purpose == Purpose::Client && !n.contains(['.', ':', '@']);
    let (words, names): (Vec<&String>, Vec<&String>) = request.names.iter().partition(is_word);
    anyhow::ensure!(words.len() <= 1, "a client can have one plain name, and these are {}", words.len());
    params.subject_alt_names = names.iter().map(|n| alt_name(n)).collect::<Result<_, _>>()?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    // A common name holds 64 characters; verifiers look at the alternative names anyway.
    if let Some(name) = words.iter().chain(&names).find(|n| n.len() <= 64) {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match request.purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    lifetime(&mut params, now, request.days);
    Ok(params)
}

/// The local hosts and `hosts`, each once.
pub fn server_names(hosts: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for host in LOCAL_HOSTS.iter().copied().chain(hosts.iter().map(String::as_str)) {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        if !names.contains(&host) {
            names.push(host);
        }
    }
    names
}

/// Whether a certificate can be for this name: an address, or a host name whose leftmost label may be `*`.
pub fn is_certifiable(name: &str) -> bool {
    if name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    plain.len() <= 253 && plain.split('.').all(label)
}

fn alt_name(name: &str) -> anyhow::Result<SanType> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let text = || Ia5String::try_from(name.to_owned()).with_context(|| format!("`{name}` is not ASCII"));
    if name.contains("://") {
        return Ok(SanType::URI(text()?));
    }
    if name.contains('@') {
        return Ok(SanType::Rfc822Name(text()?));
    }
    anyhow::ensure!(is_certifiable(name), "`{name}` is neither a host name nor an IP address");
    Ok(SanType::DnsName(text()?))
}

fn lifetime(params: &mut CertificateParams, now: OffsetDateTime, days: u32) {
    // An hour back, for clients whose clock is slow.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days.into());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

    use super::*;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
    }

    /// Whether a client that trusts only `ca` finishes a handshake with `host`.
    fn accepts(chain: &str, key: &str, ca: &str, host: &str) -> bool {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(ca)).expect("an authority");
        let client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![der(chain)], key)
            .expect("certificate and key belong together");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut server = rustls::ServerConnection::new(Arc::new(server)).expect("a server");
        for _ in 0..4 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("memory");
            server.read_tls(&mut &wire[..]).expect("memory");
            if server.process_new_packets().is_err() {
                return false;
            }
            wire.clear();
            server.write_tls(&mut wire).expect("memory");
            client.read_tls(&mut &wire[..]).expect("memory");
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        !client.is_handshaking() && !server.is_handshaking()
    }

    #[test]
    fn clients_that_trust_the_authority_accept_its_certificates() {
        let now = OffsetDateTime::now_utc();
        let ca = authority(now, Some(&[])).expect("it is made");
        let names = server_names(&["api.test".into(), "*.wild.test".into(), "LOCALHOST".into()]);
        let request = Request { purpose: Purpose::Server, names, days: LEAF_DAYS };
        let Pair { certificate: chain, key } = issue(&ca, &request, now).expect("it is made");
        let ca = ca.certificate;
        for host in ["localhost", "127.0.0.1", "::1", "api.test", "a.wild.test"] {
            assert!(accepts(&chain, &key, &ca, host), "{host}");
        }
        for host in ["other.test", "wild.test", "127.0.0.2"] {
            assert!(!accepts(&chain, &key, &ca, host), "{host}");
        }
        let other = authority(now, None).expect("it is made");
        assert!(!accepts(&chain, &key, &other.certificate, "localhost"), "another authority");
    }

    #[test]
    fn a_constrained_authority_certifies_local_names_alone() {
        let now = OffsetDateTime::now_utc();
        let of = |allowed: &[String], host: &str| {
            let ca = authority(now, Some(allowed)).expect("it is made");
            let names = vec![host.to_owned()];
            let request = Request { purpose: Purpose::Server, names, days: LEAF_DAYS };
            let Pair { certificate, key } = issue(&ca, &request, now).expect("it is made");
            accepts(&certificate, &key, &ca.certificate, host)
        };
        for host in
            ["localhost", "a.localhost", "api.test", "db.internal", "127.0.0.1", "10.1.2.3", "::1", "fd00::1"]
        {
            assert!(of(&[], host), "{host}");
        }
        for host in ["example.com", "nottest", "8.8.8.8", "2001:db8::1"] {
            assert!(!of(&[], host), "{host}");
        }
        let ca = authority(now, Some(&[])).expect("it is made").certificate;
        let names =
            ["a.test", "test", "x.nottest", "10.0.0.1", "spiffe://t/x", "*.example.com"].map(str::to_owned);
        assert_eq!(inspect::outside(&ca, &names).expect("it is read"), ["x.nottest", "*.example.com"]);
        let allowed = ["example.com".to_owned()];
        assert!(of(&allowed, "api.example.com") && !of(&allowed, "example.org"));
    }

    #[test]
    fn broken_certificates_are_refused() {
        use clap::ValueEnum as _;
        let now = OffsetDateTime::now_utc();
        let ca = authority(now, Some(&[])).expect("it is made");
        let request = Request { purpose: Purpose::Server, names: server_names(&[]), days: LEAF_DAYS };
        for how in Broken::value_variants() {
            let made = issue_broken(&ca, &request, *how, now).expect("it is made");
            assert!(!accepts(&made.certificate, &made.key, &ca.certificate, "localhost"), "{how:?}");
        }
        let good = issue(&ca, &request, now).expect("it is made");
        assert!(accepts(&good.certificate, &good.key, &ca.certificate, "localhost"));
    }

    #[test]
    fn only_names_of_hosts_are_certified() {
        for good in ["a", "a.b", "*.a.b", "127.0.0.1", "::1", "[::1]", "my_host"] {
            assert!(is_certifiable(good), "{good}");
        }
        for bad in ["", "a..b", "a.*", "*", "a b", "é.test", "*.*.a"] {
            assert!(!is_certifiable(bad), "{bad}");
        }
    }
}
