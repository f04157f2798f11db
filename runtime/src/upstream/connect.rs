//! Opening a connection to an upstream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};

use super::pool::{Key, UpstreamConn};
use super::unix;
use crate::http1::Buffer;
use crate::tls::ClientTls;
use crate::worker::io::Io;

/// Why no connection came about.
#[derive(Debug)]
pub enum ConnectError {
    Timeout,
    Refused(io::Error),
    Tls(io::Error),
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => f.write_str("connecting took too long"),
            Self::Refused(e) => write!(f, "connecting failed: {e}"),
            Self::Tls(e) => write!(f, "the TLS handshake failed: {e}"),
        }
    }
}

/// Connects to `addr`, with TLS where `tls` says so, within `timeout`.
pub async fn connect(
    addr: SocketAddr,
    tls: Option<&ClientTls>,
    timeout: Duration,
) -> Result<UpstreamConn, ConnectError> {
    let open = async {
        if let Some(path) = unix::path_of(addr) {
            // Nobody listens in between, and there is no name to ask for.
            return match tls {
                Some(_) => Err(ConnectError::Tls(io::ErrorKind::Unsupported.into())),
                None => UnixStream::connect(path).await.map(Io::Unix).map_err(ConnectError::Refused),
            };
        }
        let tcp = TcpStream::connect(addr).await.map_err(ConnectError::Refused)?;
        let _ = tcp.set_nodelay(true);
        let Some(tls) = tls else { return Ok(Io::Tcp(tcp)) };
        let name = ServerName::try_from(tls.name.to_string())
            .map_err(|e| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
        let stream = connector.connect(name, tcp).await.map_err(ConnectError::Tls)?;
        Ok(Io::Client(Box::new(stream)))
    };
    let io = tokio::time::timeout(timeout, open).await.map_err(|_| ConnectError::Timeout)??;
    Ok(UpstreamConn { io, buffer: Buffer::default(), key: Key::new(addr, tls), requests: 0 })
}
