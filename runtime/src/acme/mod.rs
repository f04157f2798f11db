//! Certificates ordered from an ACME server (RFC 8555): the pure parts. What asks and waits is [`crate::effect::acme`].
//!
//! [`Acme`] is what a config asks for, compiled. [`Certificates`] is what there is now: certificates by name, and the
//! answers to challenges that are pending. Handshakes and requests read it; only the task that orders writes it.

pub mod account;
pub mod certificate;
pub mod messages;
pub mod state;

use std::sync::Arc;

use crate::limit::RedisSettings;
use crate::model::acme::{Challenge, KeyType, RenewBefore};
use crate::policy::call::{Endpoint, Transport, Url};
pub use state::Certificates;

/// What a config asks for.
pub struct Acme {
    /// URL of the ACME server's directory.
    pub server: String,
    pub transport: Transport,
    pub email: Option<String>,
    /// Lower-case, each once.
    pub domains: Vec<String>,
    pub challenge: Challenge,
    pub key_type: KeyType,
    pub renew_before: RenewBefore,
    pub external_account: Option<account::Binding>,
    pub storage: Storage,
    /// What there is; outlives configs.
    pub certificates: Arc<Certificates>,
    /// TLS towards who checks a TLS-ALPN-01 challenge; `None` with other challenges.
    pub challenge_tls: Option<Arc<rustls::ServerConfig>>,
}

/// Where account, keys and certificates are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    Folder(std::path::PathBuf),
    Redis(Arc<RedisSettings>),
}

impl Acme {
    /// Whether the other asks for the same, so that what is under way need not begin anew.
    pub fn is_same(&self, other: &Self) -> bool {
        self.server == other.server
            && self.transport == other.transport
            && self.email == other.email
            && self.domains == other.domains
            && self.challenge == other.challenge
            && self.key_type == other.key_type
            && self.renew_before == other.renew_before
            && self.external_account == other.external_account
            && self.storage == other.storage
    }

    /// What this server's data is kept under: two servers know nothing of each other's accounts.
    pub fn place(&self) -> String {
        let rest = self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        rest.chars().map(|c| if fits(c) { c } else { '_' }).take(200).collect()
    }

    /// The endpoint at a URL that the server named. It may be at a private address only on the host and port that the
    /// config itself names.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn endpoint(&self, url: &str) -> Result<Endpoint, &'static str> {
        let (own, told) = (Url::parse(&self.server)?, Url::parse(url)?);
        if !told.tls {
            return Err("it does not begin with `https://`");
        }
        let mut endpoint = self.transport.endpoint(url)?;
        endpoint.public_only = !(told.host.eq_ignore_ascii_case(own.host) && told.port == own.port);
        Ok(endpoint)
    }
}
