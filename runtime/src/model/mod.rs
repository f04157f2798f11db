//! The typed model: what a config says, with the place of everything it says.
//!
//! References are still names here ([`Spanned`] text), as written; `check` resolves them and `compile` turns them into
//! ids. Everything is a plain value: no behaviour, no I/O.

pub mod acme;
pub mod entities;
pub mod gateway;
pub mod gateway_read;
pub mod ids;
pub mod interpolate;
mod lower;
mod paths;
pub mod read;
pub mod redis;
pub mod rules;
pub mod schema;

pub use gateway::Gateway;
pub use lower::{LISTS, Lower};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use schema::{Record, Val};

use crate::source::{FileId, Span, Spanned};

/// A whole config, after nesting was flattened: children carry the reference to their parent.
#[derive(Debug, Default)]
pub struct Model {
    /// What gw takes from `gateway:`.
    pub gateway: Gateway,
    /// The same as written, with the defaults filled in and the places of what was given; empty without the section.
    pub gateway_record: Record,
    pub services: Vec<Service>,
    pub routes: Vec<Route>,
    pub consumers: Vec<Consumer>,
    pub consumer_groups: Vec<ConsumerGroup>,
    pub plugins: Vec<Plugin>,
    pub upstreams: Vec<Upstream>,
    pub targets: Vec<Target>,
    pub certificates: Vec<Certificate>,
    pub ca_certificates: Vec<CaCertificate>,
    pub snis: Vec<Sni>,
    pub credentials: Vec<Credential>,
    pub oauth2_tokens: Vec<OAuth2Token>,
    /// `tests:`, as written.
    pub tests: Option<Spanned<Val>>,
    /// Where values of the environment stand, and what to show instead of them (`${NAME}`).
    pub masked: HashMap<Span, String>,
    /// Places of secrets, and of whatever may be one: values of unknown fields where secrets are expected. What is
    /// written there is never shown.
    pub hidden: Vec<Span>,
    /// Files that could not be parsed, so that nothing in them is known to be secret or open.
    pub unparsed: Vec<FileId>,
    /// Lists of which something could not be read, which was reported: a reference into them that finds nothing may
    /// be no mistake.
    pub unreadable: HashSet<&'static str>,
    /// The files that plugins may name.
    pub files: crate::env::Files,
}

impl Model {
    /// A text as a diagnostic may show it: never the value of an environment variable.
    pub fn shown<'a>(&'a self, text: &'a Spanned<String>) -> &'a str {
        self.masked.get(&text.span).map_or(text.value.as_str(), String::as_str)
    }
}

/// A reference to another entity by name or id, as written, or the index of the parent it is nested in.
#[derive(Clone, Debug, PartialEq)]
pub enum Ref {
    /// By text: endpoint key or id.
    Name(Spanned<String>),
    /// Nested: index into the parent's vector in [`Model`].
    Parent(usize),
}

/// `services[]`.
#[derive(Debug, Default, Clone)]
pub struct Service {
    pub span: Span,
    /// Derived (UUIDv5) where the file gives none, as Kong derives it.
    pub id: String,
    pub name: Option<Spanned<String>>,
    pub protocol: Spanned<String>,
    pub host: Spanned<String>,
    pub port: u16,
    /// Whether the file says the port, by itself or in `url`.
    pub port_given: bool,
    pub path: Option<Spanned<String>>,
    pub retries: u16,
    /// Milliseconds, as the two below.
    pub connect_timeout: u64,
    pub write_timeout: u64,
    pub read_timeout: u64,
    pub client_certificate: Option<Spanned<String>>,
    pub tls_verify: Option<bool>,
    pub tls_verify_depth: Option<u8>,
    pub ca_certificates: Vec<Spanned<String>>,
    pub http2: bool,
    pub enabled: bool,
}

/// `routes[]`.
#[derive(Debug, Default, Clone)]
pub struct Route {
    pub span: Span,
    pub id: String,
    pub name: Option<Spanned<String>>,
    pub service: Option<Ref>,
    /// Shared by all that do not give any.
    pub protocols: Arc<[Spanned<String>]>,
    pub methods: Vec<Spanned<String>>,
    pub hosts: Vec<Spanned<String>>,
    /// As written: `/prefix` or `~/regex`.
    pub paths: Vec<Spanned<String>>,
    /// Header name to accepted values; `~*regex` is a pattern.
    pub headers: Vec<(Spanned<String>, Vec<Spanned<String>>)>,
    pub snis: Vec<Spanned<String>>,
    /// CIDR or address, and port.
    pub sources: Vec<(Option<String>, Option<u16>)>,
    pub destinations: Vec<(Option<String>, Option<u16>)>,
    pub regex_priority: i64,
    pub strip_path: bool,
    pub preserve_host: bool,
    /// `path_handling: v1`.
    pub path_handling_v1: bool,
    pub https_redirect_status_code: u16,
    pub request_buffering: bool,
    pub response_buffering: bool,
    /// The `expressions` flavor.
    pub expression: Option<Spanned<String>>,
    pub priority: u64,
    pub created_at: i64,
}

/// `consumers[]`.
#[derive(Debug, Default, Clone)]
pub struct Consumer {
    pub span: Span,
    pub id: String,
    pub username: Option<Spanned<String>>,
    pub custom_id: Option<Spanned<String>>,
    /// Names of consumer groups, from the consumer's own list.
    pub groups: Vec<Spanned<String>>,
}

/// `consumer_groups[]`.
#[derive(Debug, Default, Clone)]
pub struct ConsumerGroup {
    pub span: Span,
    pub id: String,
    pub name: Spanned<String>,
    /// Usernames or ids of the members listed in the group itself.
    pub consumers: Vec<Spanned<String>>,
}

/// `plugins[]`, wherever it was written.
#[derive(Debug, Default, Clone)]
pub struct Plugin {
    pub span: Span,
    pub id: String,
    pub name: Spanned<String>,
    pub instance_name: Option<Spanned<String>>,
    pub service: Option<Ref>,
    pub route: Option<Ref>,
    pub consumer: Option<Ref>,
    pub consumer_group: Option<Ref>,
    pub enabled: bool,
    pub protocols: Vec<Spanned<String>>,
    /// Read against the policy's own table. Empty for a plugin that gw does not have.
    pub config: Record,
}

/// `upstreams[]`; fields beyond the name stay in the record (`balance` compiles them).
#[derive(Debug, Default, Clone)]
pub struct Upstream {
    pub span: Span,
    pub id: String,
    pub name: Spanned<String>,
    pub record: Record,
}

/// `targets[]`.
#[derive(Debug, Default, Clone)]
pub struct Target {
    pub span: Span,
    pub id: String,
    pub upstream: Option<Ref>,
    /// Host and port, the port defaulted to 8000.
    pub host: Spanned<String>,
    pub port: u16,
    pub weight: u32,
}

/// `certificates[]`.
#[derive(Debug, Default, Clone)]
pub struct Certificate {
    pub span: Span,
    pub id: String,
    pub cert: Spanned<String>,
    pub key: Spanned<String>,
    pub cert_alt: Option<Spanned<String>>,
    pub key_alt: Option<Spanned<String>>,
}

/// `ca_certificates[]`.
#[derive(Debug, Default, Clone)]
pub struct CaCertificate {
    pub span: Span,
    pub id: String,
    pub cert: Spanned<String>,
}

/// `snis[]`.
#[derive(Debug, Default, Clone)]
pub struct Sni {
    pub span: Span,
    pub name: Spanned<String>,
    pub certificate: Option<Ref>,
}

/// A credential of any kind.
#[derive(Debug, Default, Clone)]
pub struct Credential {
    pub span: Span,
    pub id: String,
    pub consumer: Option<Ref>,
    pub kind: CredentialKind,
    /// Read against the kind's table: `key`, `secret`, `username`, `password`, `group`, ...
    pub record: Record,
    /// `_transform: false`: a basic-auth password is a hash already.
    pub hashed: bool,
}

/// `oauth2_tokens[]`: an access token that was issued beforehand.
#[derive(Debug, Default, Clone)]
pub struct OAuth2Token {
    pub span: Span,
    pub id: String,
    /// The application it was issued to; nested, an index into [`Model::credentials`].
    pub credential: Option<Ref>,
    pub service: Option<Ref>,
    /// Read against [`entities::oauth2_token::FIELDS`].
    pub record: Record,
}

/// The kinds of credential, by their entity in the file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    #[default]
    KeyAuth,
    Jwt,
    BasicAuth,
    HmacAuth,
    Acl,
    OAuth2,
}
