//! The compiled config: immutable, ids into boxed slices, shared by all workers.

pub mod consumers;
pub mod publish;
pub mod reloads;
pub mod shared;
pub mod upstream;

use ahash::AHashMap;

use crate::model::Gateway;
use crate::policy::Step;

macro_rules! ids {
    ($($name:ident)*) => { $(
        #[doc = concat!("An index into the snapshot, for a ", stringify!($name), ".")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
    )* };
}
ids! { RouteId ServiceId ConsumerId ChainId ClassId UpstreamId }

/// Everything a worker needs to serve.
#[derive(Default)]
pub struct Snapshot {
    /// Counts up with every published snapshot of the process.
    pub generation: u64,
    pub gateway: Gateway,
    pub router: crate::route::Router,
    pub routes: Box<[Route]>,
    pub services: Box<[Service]>,
    pub consumers: Box<[Consumer]>,
    pub consumer_index: consumers::ConsumerIndex,
    pub credentials: Credentials,
    /// Compiled policies, shared by chains.
    pub steps: Box<[Step]>,
    pub chains: Box<[Chain]>,
    /// The chain of requests that match no route (global plugins).
    pub no_route_chain: Option<ChainId>,
    /// Request headers that are removed from every client request.
    pub stripped_headers: crate::message::strip::StripSet,
    /// For the TLS listeners, where there are any.
    pub server_tls: Option<std::sync::Arc<rustls::ServerConfig>>,
    /// What certificates gw orders itself.
    pub acme: Option<std::sync::Arc<crate::acme::Acme>>,
    pub upstreams: Box<[std::sync::Arc<upstream::UpstreamConfig>]>,
    pub certificates: Box<[Certificate]>,
    /// State that outlives it.
    pub shared: std::sync::Arc<shared::Shared>,
}

/// The policies of a route for one class of consumers, in order.
#[derive(Default, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Position in [`crate::policy::order::ORDER`] and index into [`Snapshot::steps`].
    pub steps: Box<[(u16, u32)]>,
    /// Whether any of them filters responses ([`crate::policy::Policy::filters_response`]).
    pub filters: bool,
}

/// A route, without what the router has compiled away.
pub struct Route {
    pub id: String,
    pub name: Option<String>,
    pub service: Option<ServiceId>,
    /// Accepts plain http, or only https (see `https_redirect_status_code`).
    pub protocols: Protocols,
    pub https_redirect_status_code: u16,
    pub strip_path: bool,
    pub preserve_host: bool,
    pub path_handling_v1: bool,
    pub request_buffering: bool,
    pub response_buffering: bool,
    /// The chain before anyone is identified, and for consumers without plugins of their own.
    pub chain: ChainId,
    /// Names for metrics and logs, interned across snapshots.
    pub labels: std::sync::Arc<Labels>,
    /// Other chains, by the consumer's class.
    pub class_chains: Vec<(ClassId, ChainId)>,
}

/// What a route and its service are called in metrics and logs.
#[derive(Debug, PartialEq, Eq, Hash, Clone)]
pub struct Labels {
    /// Name, else host; empty where there is no service.
    pub service: String,
    /// Name, else id.
    pub route: String,
}

/// The protocols of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    pub http: bool,
    pub https: bool,
    pub grpc: bool,
    pub grpcs: bool,
}

/// A service: where requests go.
pub struct Service {
    pub id: String,
    pub name: Option<String>,
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
    /// The `Host` that it gets: host, and port unless it is the scheme's own.
    pub authority: String,
    /// `/` if the config gives none.
    pub path: String,
    pub retries: u16,
    pub connect_timeout: std::time::Duration,
    pub write_timeout: std::time::Duration,
    pub read_timeout: std::time::Duration,
    /// The upstream of that name, which then stands for the host.
    pub upstream: Option<UpstreamId>,
    /// For https and grpcs; the name is the service's host.
    pub tls: Option<crate::tls::ClientTls>,
    /// Spoken to over HTTP/2, as gRPC services are in any case.
    pub http2: bool,
}

impl Service {
    /// Whether it takes gRPC calls alone.
    pub fn is_grpc(&self) -> bool {
        matches!(self.scheme, Scheme::Grpc | Scheme::Grpcs)
    }
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    Grpc,
    Grpcs,
}

impl Scheme {
    /// The port that is meant when none is written.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::Grpc => 80,
            Self::Https | Self::Grpcs => 443,
        }
    }
}

/// A consumer.
#[derive(Debug, Clone)]
pub struct Consumer {
    pub id: String,
    pub username: Option<String>,
    pub custom_id: Option<String>,
    /// Groups of its acls.
    pub acl_groups: Vec<String>,
    pub class: Option<ClassId>,
}

/// Every credential, by what a client shows.
#[derive(Default)]
pub struct Credentials {
    /// By `key`.
    pub jwt: AHashMap<String, Credential<crate::token::verify::Key>>,
    /// By SHA-256 of the key.
    pub key_auth: AHashMap<crate::policy::key_auth::Fingerprint, Credential<Option<KeyEnd>>>,
    /// By username; several consumers may have one of the same name only by mistake.
    pub basic_auth: AHashMap<String, Credential<BasicSecret>>,
    /// By username; the secret is prepared.
    pub hmac_auth: AHashMap<String, Credential<Vec<u8>>>,
    /// By SHA-256 of the access token.
    pub oauth2: AHashMap<crate::policy::key_auth::Fingerprint, Credential<OAuth2Token>>,
}

/// SHA-1 of password and consumer id, as Kong stores it.
#[derive(Clone)]
pub struct BasicSecret(pub [u8; 20]);

/// When a key with a `ttl` is gone, in Unix seconds; in so few bits because most keys have none.
pub type KeyEnd = std::num::NonZeroU32;

/// An access token that the config lists.
pub struct OAuth2Token {
    pub client_id: String,
    /// The one service that it is good for.
    pub service: Option<ServiceId>,
    /// The last second, since 1970, in which it is good.
    pub good_until: Option<u64>,
    pub scope: Option<String>,
    /// Who uses the application.
    pub user: Option<String>,
}

/// A credential and its owner.
pub struct Credential<T> {
    pub id: String,
    pub consumer: ConsumerId,
    pub data: T,
}

/// A server certificate with the names it is served for.
pub struct Certificate {
    pub snis: Vec<String>,
    /// PEM pairs: the certificate and, where given, the alternative of the other key type.
    pub pairs: Vec<(String, String)>,
}

impl Snapshot {
    /// A snapshot that nothing can be served by: only what a log line says of a route and a consumer, both the first.
    pub fn names_only(route: Option<&Route>, consumer: Option<&Consumer>) -> Self {
        let route = route.map(|r| Route {
            id: String::new(),
            name: None,
            service: None,
            protocols: r.protocols,
            https_redirect_status_code: r.https_redirect_status_code,
            strip_path: r.strip_path,
            preserve_host: r.preserve_host,
            path_handling_v1: r.path_handling_v1,
            request_buffering: r.request_buffering,
            response_buffering: r.response_buffering,
            chain: ChainId(0),
            labels: std::sync::Arc::clone(&r.labels),
            class_chains: Vec::new(),
        });
        Self {
            routes: route.into_iter().collect(),
            consumers: consumer.cloned().into_iter().collect(),
            ..Self::default()
        }
    }
}
