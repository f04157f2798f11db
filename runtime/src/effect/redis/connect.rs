//! Opens a connection to Redis: TCP, TLS, login, script. No timeout of its own.

use std::io;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisError, Value};
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{script, sentinel};
use crate::limit::RedisSettings;
use crate::limit::redis::{Address, RedisTls, Sentinels};
use crate::tls::Unverified;

/// How many pipelines may wait to be written.
const QUEUE: usize = 4096;

/// What drives a connection: it ends when the connection does.
pub type Driver = LocalBoxFuture<'static, ()>;

/// Where a link leads.
#[derive(Clone, Debug)]
pub enum Place {
    /// Always there.
    Fixed(Address),
    /// Wherever the sentinels say that the master is.
    Master(Sentinels),
}

impl Place {
    /// Whether another server may take this one's part.
    pub fn may_move(&self) -> bool {
        matches!(self, Self::Master(_))
    }
}

/// A connection that many requests share. The script is made known on it, which also proves that Redis executes commands.
pub async fn open(
    settings: &RedisSettings,
    place: &Place,
) -> Result<(MultiplexedConnection, Driver), RedisError> {
    let address = match place {
        Place::Fixed(address) => address.clone(),
        Place::Master(sentinels) => sentinel::find_master(settings, sentinels).await?,
    };
    let login = Login {
        username: settings.username.as_deref(),
        password: settings.password.as_deref(),
        database: settings.database,
    };
    let (mut connection, mut driver) = dial(settings.tls.as_ref(), &address, &login).await?;
    let mut hello = Pipeline::new();
    hello.cmd("SCRIPT").arg("LOAD").arg(script::SOURCE);
    if place.may_move() {
        hello.cmd("ROLE");
    }
    let answers = drive(&mut driver, connection.send_packed_commands(&hello, 0, hello.len())).await?;
    for answer in answers {
        match answer {
            // A user who may not load scripts may still send them.
            Value::ServerError(e) if e.code() == "NOPERM" => {}
            Value::ServerError(e) => return Err(e.into()),
            Value::Array(role) if role.first() != Some(&Value::BulkString(b"master".to_vec())) => {
                return Err(io::Error::other("the sentinels name a server that is no master").into());
            }
            _ => {}
        }
    }
    Ok((connection, driver))
}

/// Who logs in, and to what.
pub struct Login<'a> {
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub database: i64,
}

/// Opens a connection: TCP, TLS, login.
pub async fn dial(
    tls: Option<&RedisTls>,
    address: &Address,
    login: &Login<'_>,
) -> Result<(MultiplexedConnection, Driver), RedisError> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
    tcp.set_nodelay(true)?;
    match tls {
        None => log_in(login, tcp).await,
        Some(tls) => {
            let name = tls.server_name.clone().unwrap_or_else(|| address.host.clone());
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::new(client_config(tls)?)).connect(name, tcp).await?;
            log_in(login, stream).await
        }
    }
}

async fn log_in<S>(login: &Login<'_>, stream: S) -> Result<(MultiplexedConnection, Driver), RedisError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut info =
        RedisConnectionInfo::default().set_db(login.database).set_lib_name("gw", env!("CARGO_PKG_VERSION"));
    if let Some(password) = login.password {
        info = info.set_password(password);
        if let Some(username) = login.username {
            info = info.set_username(username);
        }
    }
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
    let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
    Ok((connection, Box::pin(driver)))
}

/// Waits for an answer on a connection that nobody drives yet.
pub async fn drive<T>(
    driver: &mut Driver,
    asked: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    tokio::select! {
        answer = asked => answer,
        () = driver => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
    }
}

fn client_config(tls: &RedisTls) -> io::Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    if !tls.verify {
        let any = Arc::new(Unverified(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth());
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = &tls.authorities {
        let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        roots.add_parsable_certificates(own.map_err(io::Error::other)?);
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|_| {
            io::Error::other(
                "neither the system nor `gateway.tls.upstream_ca` has certificates to verify redis against",
            )
        })?;
    Ok(builder.with_webpki_verifier(verifier).with_no_client_auth())
}
