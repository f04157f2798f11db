//! Opens a connection to Redis: TCP, TLS, login. No timeout of its own.

use std::io;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::limit::RedisSettings;
use crate::limit::redis::RedisTls;

/// How many commands may wait to be written.
const QUEUE: usize = 4096;

/// A connection that many requests share, and what drives it: it ends when the connection does.
pub async fn open(
    settings: &RedisSettings,
) -> Result<(MultiplexedConnection, LocalBoxFuture<'static, ()>), RedisError> {
    let tcp = TcpStream::connect((settings.host.as_str(), settings.port)).await?;
    tcp.set_nodelay(true)?;
    match &settings.tls {
        None => login(settings, tcp).await,
        Some(tls) => {
            let name = tls.server_name.clone().unwrap_or_else(|| settings.host.clone());
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::new(client_config(tls)?)).connect(name, tcp).await?;
            login(settings, stream).await
        }
    }
}

async fn login<S>(
    settings: &RedisSettings,
    stream: S,
) -> Result<(MultiplexedConnection, LocalBoxFuture<'static, ()>), RedisError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut info = RedisConnectionInfo::default()
        .set_db(settings.database)
        .set_lib_name("gw", env!("CARGO_PKG_VERSION"));
    if let Some(password) = &settings.password {
        info = info.set_password(password);
        if let Some(username) = &settings.username {
            info = info.set_username(username);
        }
    }
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
    let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
    Ok((connection, Box::pin(driver)))
}

fn client_config(tls: &RedisTls) -> io::Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    if !tls.verify {
        let any = Arc::new(AnyCertificate(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth());
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| io::Error::other("the system has no root certificates to verify redis against"))?;
    Ok(builder.with_webpki_verifier(verifier).with_no_client_auth())
}

/// Takes any certificate: what `ssl_verify: false` asks for. The handshake's signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
