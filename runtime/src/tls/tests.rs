//! Handshakes without sockets: which certificate, version and group come about.

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::{ClientConnection, NamedGroup, ProtocolVersion, ServerConnection};

use super::*;

fn pair(name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> PemPair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let cert = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (cert.pem(), key.serialize_pem())
}

fn client(
    change: impl FnOnce(&mut CryptoProvider),
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    change(&mut provider);
    let provider = Arc::new(provider);
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth()
}

/// What a handshake came to: the certificate that was shown, the version and the group; or why it failed.
fn handshake(
    server: &Arc<ServerConfig>,
    client: ClientConfig,
    name: &str,
) -> Result<(CertificateDer<'static>, ProtocolVersion, NamedGroup), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut c = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut s = ServerConnection::new(Arc::clone(server)).unwrap();
    while c.is_handshaking() || s.is_handshaking() {
        let mut bytes = Vec::new();
        while c.wants_write() {
            c.write_tls(&mut bytes).unwrap();
        }
        s.read_tls(&mut bytes.as_slice()).unwrap();
        s.process_new_packets()?;
        let mut bytes = Vec::new();
        while s.wants_write() {
            s.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            c.read_tls(&mut bytes).unwrap();
        }
        c.process_new_packets()?;
    }
    let group = c.negotiated_key_exchange_group().unwrap().name();
    Ok((c.peer_certificates().unwrap()[0].clone().into_owned(), c.protocol_version().unwrap(), group))
}

fn served(
    named: &[(Vec<String>, Vec<PemPair>)],
    default: &PemPair,
    settings: &TlsSettings,
) -> Arc<ServerConfig> {
    let named = named.iter().map(|(n, p)| (n.as_slice(), p.as_slice())).collect();
    let certs = ServerCertificates { default: Some(default.clone()), named, ordered: None };
    server_config(&certs, settings, &Tickets::default()).unwrap()
}

#[test]
fn the_certificate_fits_the_name_and_what_the_client_can_verify() {
    let (ecdsa, rsa) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256);
    let default = pair("default.test", ecdsa);
    let both = [pair("a.test", rsa), pair("a.test", ecdsa)];
    let wild = pair("*.b.test", ecdsa);
    let named =
        [(vec!["a.test".to_owned()], both.to_vec()), (vec!["*.b.test".to_owned()], vec![wild.clone()])];
    let server = served(&named, &default, &TlsSettings::default());
    let check = |name: &str, rsa_only: bool, want: &PemPair| {
        let mut config = client(|_| {}, rustls::ALL_VERSIONS);
        if rsa_only {
            let verifier = Unverified(Arc::new(aws_lc_rs::default_provider()));
            config.dangerous().set_certificate_verifier(Arc::new(RsaOnly(verifier)));
        }
        let (shown, ..) = handshake(&server, config, name).unwrap();
        assert_eq!(shown, certificates(&want.0).unwrap()[0], "{name} {rsa_only}");
    };
    check("a.test", false, &both[1]);
    check("a.test", true, &both[0]);
    check("A.Test", false, &both[1]);
    check("x.b.test", false, &wild);
    check("b.test", false, &default);
    check("x.y.b.test", false, &default);
    check("other.test", false, &default);
}

/// A client that verifies RSA alone.
#[derive(Debug)]
struct RsaOnly(Unverified);

impl ServerCertVerifier for RsaOnly {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_server_cert(cert, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]
    }
}

#[test]
fn the_version_is_no_older_than_allowed() {
    let default = pair("a.test", &rcgen::PKCS_ECDSA_P256_SHA256);
    for (min_version_1_3, versions, want) in [
        (false, rustls::ALL_VERSIONS, Some(ProtocolVersion::TLSv1_3)),
        (false, &[&rustls::version::TLS12][..], Some(ProtocolVersion::TLSv1_2)),
        (true, rustls::ALL_VERSIONS, Some(ProtocolVersion::TLSv1_3)),
        (true, &[&rustls::version::TLS12], None),
    ] {
        let settings = TlsSettings { min_version_1_3, ..TlsSettings::default() };
        let got = handshake(&served(&[], &default, &settings), client(|_| {}, versions), "a.test");
        assert_eq!(got.ok().map(|(_, version, _)| version), want, "{min_version_1_3} {versions:?}");
    }
}

#[test]
fn a_client_that_prefers_a_post_quantum_group_gets_it() {
    let default = pair("a.test", &rcgen::PKCS_ECDSA_P256_SHA256);
    let server = served(&[], &default, &TlsSettings::default());
    let hybrid: &'static dyn rustls::crypto::SupportedKxGroup = kx_group::X25519MLKEM768;
    for (groups, want) in [
        (vec![hybrid, kx_group::X25519], NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519], NamedGroup::X25519),
        (vec![kx_group::SECP256R1], NamedGroup::secp256r1),
    ] {
        let config = client(|p| p.kx_groups = groups, rustls::ALL_VERSIONS);
        assert_eq!(handshake(&server, config, "a.test").unwrap().2, want);
    }
}
