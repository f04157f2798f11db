//! TLS towards clients and upstreams: all of rustls's configuration in one place.

pub mod lasting;
pub mod peer;
pub mod tickets;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::acme::Certificates;
use crate::acme::state::{ACME_TLS, Proofs};
use crate::model::gateway::{ClientAuth, TlsSettings};
use lasting::Tickets;

/// A server certificate with its key, and the names it is for.
#[derive(Debug)]
struct Served {
    names: Vec<String>,
    /// One key, or two of different types.
    keys: Vec<Arc<CertifiedKey>>,
}

/// PEM texts of a certificate chain and its key.
pub type PemPair = (String, String);

/// Everything that the TLS listeners serve: names (lower-case, `*.x` allowed) and PEM pairs.
pub struct ServerCertificates<'a> {
    /// Served where no name fits; the first of the others if there is none.
    pub default: Option<PemPair>,
    pub named: Vec<(&'a [String], &'a [PemPair])>,
    /// What gw orders itself, for names that the others are not for.
    pub ordered: Option<Arc<Certificates>>,
}

/// How TLS is spoken to an upstream.
#[derive(Clone)]
pub struct ClientTls {
    pub config: Arc<ClientConfig>,
    /// The name to ask for and to verify, where verification is on.
    pub name: Arc<str>,
}

/// AES-128-GCM first: its hash has hardware support where AES-256's SHA-384 has none, which shows in handshakes.
fn provider() -> Arc<CryptoProvider> {
    let mut p = aws_lc_rs::default_provider();
    p.cipher_suites.sort_by_key(|s| !format!("{:?}", s.suite()).contains("AES_128_GCM"));
    Arc::new(p)
}

fn invalid(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: {error}"))
}

/// The certificates of a PEM text.
pub fn certificates(pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|e| invalid("the certificate is no valid PEM", e))?;
    if all.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no certificate in the PEM text"));
    }
    Ok(all)
}

/// When the first certificate of a PEM text ends, in Unix seconds.
pub fn not_after(pem: &str) -> Option<u64> {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let first = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&first).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

pub(crate) fn certified(pair: &PemPair) -> io::Result<Arc<CertifiedKey>> {
    let chain = certificates(&pair.0)?;
    let key = PrivateKeyDer::from_pem_slice(pair.1.as_bytes())
        .map_err(|e| invalid("the key is no valid PEM", e))?;
    let key =
        CertifiedKey::from_der(chain, key, &provider()).map_err(|e| invalid("certificate and key", e))?;
    Ok(Arc::new(key))
}

/// The configuration of the TLS listeners, whose sessions can be resumed with `tickets`.
pub fn server_config(
    certs: &ServerCertificates<'_>,
    settings: &TlsSettings,
    tickets: &Tickets,
) -> io::Result<Arc<ServerConfig>> {
    let mut served = Vec::new();
    for (names, pairs) in &certs.named {
        let keys = pairs.iter().map(certified).collect::<io::Result<_>>()?;
        served.push(Served { names: names.to_vec(), keys });
    }
    let default = certs.default.as_ref().map(certified).transpose()?;
    let fallback = match (default, served.first()) {
        (Some(key), _) => vec![key],
        (None, Some(first)) => first.keys.clone(),
        // Until the first is there, handshakes are refused: a stand-in would only teach clients to take anything.
        (None, None) if certs.ordered.is_some() => Vec::new(),
        (None, None) => {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "a TLS listener has no certificate to serve",
            ));
        }
    };
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version_1_3 {
        true => &[&rustls::version::TLS13],
        false => rustls::ALL_VERSIONS,
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|e| invalid("TLS versions", e))?;
    let mut rules = format!("{:?}", settings.client_auth).into_bytes();
    let builder = match settings.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        auth => {
            let path = settings.client_ca.as_deref().ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "client certificates are asked for, but there is no `client_ca`",
                )
            })?;
            let roots = Arc::new(roots_of(path, &mut rules)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match auth {
                ClientAuth::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| invalid("`client_ca`", e))?)
        }
    };
    let mut config =
        builder.with_cert_resolver(Arc::new(BySni { served, ordered: certs.ordered.clone(), fallback }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.send_tls13_tickets = 2;
    config.ticketer = tickets.get(&rules, &tickets::read(&settings.ticket_keys)?)?;
    Ok(Arc::new(config))
}

/// How TLS is spoken with who checks TLS-ALPN-01 challenges (RFC 8737): nobody else gets that far, and no request either.
pub fn challenge_config(certificates: Arc<Certificates>) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|e| invalid("TLS versions", e))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Proofs(certificates)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The authorities of a file, whose text is added to `read`.
fn roots_of(path: &Path, read: &mut Vec<u8>) -> io::Result<RootCertStore> {
    let pem = std::fs::read_to_string(path).map_err(|e| invalid(&path.display().to_string(), e))?;
    read.extend_from_slice(pem.as_bytes());
    let mut roots = RootCertStore::empty();
    for cert in certificates(&pem)? {
        roots.add(cert).map_err(|e| invalid(&path.display().to_string(), e))?;
    }
    Ok(roots)
}

/// Chooses by server name, then by what the client can verify.
#[derive(Debug)]
struct BySni {
    served: Vec<Served>,
    ordered: Option<Arc<Certificates>>,
    fallback: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let name = hello.server_name().map(|n| n.trim_end_matches('.').to_ascii_lowercase());
        let configured = name.as_deref().and_then(|n| self.find(n));
        if let (None, Some(ordered), Some(name)) = (configured, &self.ordered, &name)
            && let Some(key) = ordered.find(name)
        {
            return Some(key);
        }
        let keys = configured.unwrap_or(&self.fallback);
        let usable = |k: &&Arc<CertifiedKey>| k.key.choose_scheme(schemes).is_some();
        // ECDSA costs the server a fraction of RSA.
        let ecdsa = |k: &&Arc<CertifiedKey>| k.key.algorithm() == rustls::SignatureAlgorithm::ECDSA;
        let best = keys.iter().filter(usable).find(ecdsa).or_else(|| keys.iter().find(usable));
        // Where none is usable, the handshake fails for want of a common cipher suite or signature, and says so; without a
        // key it would speak of denied access, which scanners and clients take for something else.
        best.or_else(|| keys.first()).cloned()
    }
}

impl BySni {
    /// What the config has for a name, which is lower-case.
    fn find(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let parent = name.split_once('.').map(|(_, p)| format!("*.{p}"));
        let with =
            |n: &str| self.served.iter().find(|s| s.names.iter().any(|x| x == n)).map(|s| s.keys.as_slice());
        with(name).or_else(|| parent.and_then(|p| with(&p)))
    }
}

/// How an upstream's certificate is judged and what is shown to it.
#[derive(Default)]
pub struct ClientSettings<'a> {
    pub verify: bool,
    /// PEM of certificate authorities; the system's where empty.
    pub ca: Vec<&'a str>,
    pub client_certificate: Option<&'a PemPair>,
    /// Offer HTTP/2.
    pub h2: bool,
}

/// The system's authorities, where upstreams are verified by them.
fn system_roots(settings: &ClientSettings<'_>) -> Option<Vec<CertificateDer<'static>>> {
    (settings.verify && settings.ca.is_empty()).then(|| rustls_native_certs::load_native_certs().certs)
}

/// The configuration for connections to an upstream.
pub fn client_config(settings: &ClientSettings<'_>) -> io::Result<Arc<ClientConfig>> {
    client_config_with(settings, system_roots(settings))
}

fn client_config_with(
    settings: &ClientSettings<'_>,
    system_roots: Option<Vec<CertificateDer<'static>>>,
) -> io::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid("TLS versions", e))?;
    let builder = if settings.verify {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system_roots.unwrap_or_default());
        for pem in &settings.ca {
            for cert in certificates(pem)? {
                roots.add(cert).map_err(|e| invalid("a CA certificate", e))?;
            }
        }
        builder.with_root_certificates(roots)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider())))
    };
    let mut config = match settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.1.as_bytes())
                .map_err(|e| invalid("the client key is no valid PEM", e))?;
            builder
                .with_client_auth_cert(certificates(&pair.0)?, key)
                .map_err(|e| invalid("client certificate and key", e))?
        }
    };
    config.alpn_protocols = if settings.h2 { vec![b"h2".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(Arc::new(config))
}

/// Takes any certificate: Kong's default for upstreams and for Redis. `gw validate` warns wherever this is in force.
#[derive(Debug)]
pub(crate) struct Unverified(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
