//! `gateway:`, what Kong keeps in kong.conf: the typed form with every default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::acme::AcmeSettings;
use super::schema::Record;
use crate::source::Spanned;

/// The settings of the process, after the file; command-line flags are laid over them.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub listeners: Vec<Listener>,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    pub trusted_ips: Vec<IpNet>,
    pub real_ip_header: String,
    pub real_ip_recursive: bool,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub tls: TlsSettings,
    /// Certificates that gw orders itself.
    pub acme: Option<AcmeSettings>,
    pub admin: Option<SocketAddr>,
    /// Name servers to ask; empty for the system's.
    pub dns_servers: Vec<SocketAddr>,
    pub access_log: AccessLog,
    /// Where counters of limits of a day and longer survive a restart.
    pub counter_file: Option<PathBuf>,
    /// The Redis of plugins that name none; a URL alone is its field `url`.
    pub redis: Option<Record>,
    /// Further request headers that clients can never set.
    pub identity_headers: Vec<String>,
    /// Headers that frameworks take for a rewritten URL; removed from requests.
    pub strip_headers: Vec<String>,
    pub router_flavor: RouterFlavor,
    /// `router_order: documented` instead of the order that Kong really uses.
    pub router_order_documented: bool,
    /// Answers carry `Proxy-Status` (RFC 9209).
    pub proxy_status: bool,
    /// Errors are problem details (RFC 9457) instead of Kong's bodies.
    pub problem_details: bool,
    /// HTTP/2 clients may open WebSockets (RFC 8441).
    pub websocket_over_http2: bool,
    /// Seconds to finish what is in flight after SIGTERM.
    pub drain: Duration,
}

/// Which of Kong's routers the file was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouterFlavor {
    #[default]
    TraditionalCompatible,
    Traditional,
    Expressions,
}

/// One address to accept connections on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub addr: Address,
    pub tls: bool,
    /// A PROXY protocol header comes before everything else.
    pub proxy_protocol: bool,
    /// Permissions of a Unix socket's file.
    pub mode: u32,
}

impl Listener {
    /// A listener for clear text, or for TLS.
    pub fn new(addr: Address, tls: bool) -> Self {
        Self { addr, tls, proxy_protocol: false, mode: SOCKET_MODE }
    }
}

/// Permissions of a Unix socket's file unless the config says otherwise: its owner and group may connect.
pub const SOCKET_MODE: u32 = 0o660;

/// Where connections are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Ip(SocketAddr),
    /// The path of a socket's file.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // The kernel has room for 107 bytes and an end.
            return match path.starts_with('/') && path.len() < 108 {
                true => Ok(Self::Unix(PathBuf::from(path))),
                false => Err("expected an absolute path of at most 107 bytes after `unix:`".to_owned()),
            };
        }
        text.parse().map(Self::Ip).map_err(|_| "expected ADDRESS:PORT or unix:/PATH".to_owned())
    }
}

/// Bounds on size and count. Requests beyond them are refused, never truncated.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the request target, 414 beyond.
    pub uri: usize,
    /// Bytes of all header lines, 431 beyond.
    pub header_bytes: usize,
    pub header_count: usize,
    /// Bytes of a request body, 413 beyond; 0 is no bound (Kong's default).
    pub body: u64,
    /// Bytes of a body that a policy needs whole.
    pub buffered_body: usize,
    /// Bytes of a request's body that are waited for before a target is asked, where the route buffers requests.
    pub request_buffer: usize,
    pub connections: usize,
    pub connections_per_ip: usize,
    pub requests_per_connection: usize,
    pub h2_streams: u32,
    /// Bytes of memory that the process may use, 503 near it; 0 is what the system allows.
    pub memory: u64,
}

/// How long anything may take.
#[derive(Debug, Clone)]
pub struct Timeouts {
    pub tls_handshake: Duration,
    /// From the first byte of a request to the end of its headers.
    pub header: Duration,
    /// Between reads of a request body.
    pub body: Duration,
    pub keep_alive: Duration,
    /// A client that takes nothing.
    pub write: Duration,
    /// An upstream connection waiting in the pool.
    pub upstream_idle: Duration,
}

/// TLS towards clients and upstreams.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub min_version_1_3: bool,
    pub verify_upstreams: bool,
    /// CA bundle for upstreams beside the system's.
    pub upstream_ca: Option<CaFile>,
    pub client_auth: ClientAuth,
    pub client_ca: Option<PathBuf>,
    /// Files with keys of session tickets, which other gateways may have too; without any they are random.
    pub ticket_keys: Vec<PathBuf>,
}

/// A file with authorities.
#[derive(Debug, Clone)]
pub struct CaFile {
    pub path: Spanned<PathBuf>,
    /// What is in it; `None` where files are not read, or this one could not be, which was reported.
    pub pem: Option<String>,
}

impl TlsSettings {
    /// The authorities of `upstream_ca`.
    pub fn upstream_authorities(&self) -> Option<&str> {
        self.upstream_ca.as_ref()?.pem.as_deref()
    }
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    #[default]
    None,
    Optional,
    Required,
}

/// Where one JSON line a request goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLog {
    #[default]
    Off,
    Stdout,
    File(PathBuf),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uri: 8 * 1024,
            header_bytes: 32 * 1024,
            header_count: 100,
            body: 0,
            buffered_body: 10 * 1024 * 1024,
            request_buffer: 64 * 1024,
            connections: 50_000,
            connections_per_ip: 0,
            requests_per_connection: 10_000,
            h2_streams: 100,
            memory: 0,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            tls_handshake: s(10),
            header: s(10),
            body: s(60),
            keep_alive: s(60),
            write: s(60),
            upstream_idle: s(30),
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            workers: 0,
            trusted_ips: Vec::new(),
            real_ip_header: "X-Real-IP".to_owned(),
            real_ip_recursive: false,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            tls: TlsSettings::default(),
            acme: None,
            admin: None,
            dns_servers: Vec::new(),
            access_log: AccessLog::default(),
            counter_file: None,
            redis: None,
            identity_headers: Vec::new(),
            strip_headers: ["X-Original-URL", "X-Rewrite-URL", "X-Envoy-Original-Path"]
                .map(str::to_owned)
                .to_vec(),
            router_flavor: RouterFlavor::default(),
            router_order_documented: false,
            proxy_status: false,
            problem_details: false,
            websocket_over_http2: false,
            drain: Duration::from_secs(30),
        }
    }
}
