//! `gateway.acme`: certificates that gw orders itself.

use std::path::PathBuf;
use std::time::Duration;

use super::gateway::CaFile;
use super::read::Reader;
use super::schema::{Field, Kind, Record, Rule, TEXT};
use crate::diag::{Diagnostic, codes};
use crate::source::Spanned;

/// Where certificates are ordered unless the config says otherwise.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Most names; each gets a certificate of its own.
const DOMAINS_MAX: usize = 1000;

/// The fields of `gateway.acme`.
pub const FIELDS: &[Field] = &[
    Field::new("server", Kind::Str(Rule::Url), "URL of the ACME server's directory; `https` only.")
        .default("\"https://acme-v02.api.letsencrypt.org/directory\""),
    Field::new("ca", TEXT, "File with the authorities by which the ACME server itself is verified, instead of the system's."),
    Field::new("terms_of_service_agreed", Kind::Bool, "That you agree to the terms of service of the ACME server. Without it nothing is ordered.")
        .required(),
    Field::new("email", TEXT, "Whom the ACME server may write to."),
    Field::new("domains", Kind::Set(&TEXT), "Names to have certificates for, one each; no wildcards, no addresses. What `certificates` has a name for goes before.")
        .required(),
    Field::new("challenge", Kind::Enum(&["http-01", "tls-alpn-01"]), "How gw proves that a name is its own: over a plain listener that the internet reaches on port 80, or over a TLS listener that it reaches on port 443.")
        .default("\"tls-alpn-01\""),
    Field::new("key_type", Kind::Enum(&["ecdsa", "rsa"]), "The certificates' keys: P-256, or RSA with 2048 bits.").default("\"ecdsa\""),
    Field::new("renew_before", Kind::Num { min: 0.01, max: 365.0 }, "When a certificate is renewed: below 1 the part of its lifetime that is left, else days before its end. At most two thirds of its lifetime before its end.")
        .default("0.33"),
    Field::new("external_account", Kind::Record(EXTERNAL_ACCOUNT), "The account with the authority that the ACME account is to belong to, where the authority asks for one (external account binding)."),
    Field::new("storage", TEXT, "Where account, keys and certificates are kept: a folder, or `redis` for the server of `gateway.redis`. Gateways that share it order each certificate once.")
        .required(),
];

const EXTERNAL_ACCOUNT: &[Field] = &[
    Field::new("kid", TEXT, "The key's identifier, from the authority.").required(),
    Field::new("hmac_key", TEXT, "The key, in base64url: `${ACME_HMAC_KEY}` takes it from the environment.")
        .required()
        .secret(),
];

/// What to order, where, and how.
#[derive(Debug, Clone)]
pub struct AcmeSettings {
    /// URL of the directory.
    pub server: String,
    pub ca: Option<CaFile>,
    pub email: Option<String>,
    /// Lower-case, each once.
    pub domains: Vec<Spanned<String>>,
    pub challenge: Spanned<Challenge>,
    pub key_type: KeyType,
    pub renew_before: RenewBefore,
    pub external_account: Option<ExternalAccount>,
    pub storage: Storage,
}

/// How a name is proved (RFC 8555 section 8.3, RFC 8737).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    Http01,
    TlsAlpn01,
}

impl Challenge {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// A certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    Ecdsa,
    Rsa,
}

/// When to renew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RenewBefore {
    /// The part of the lifetime that is left.
    Part(f64),
    /// Time before the end.
    Time(Duration),
}

/// External account binding (RFC 8555 section 7.3.4).
#[derive(Clone)]
pub struct ExternalAccount {
    pub kid: String,
    /// The key as written.
    pub hmac_key: Spanned<String>,
}

/// Without the key.
impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Where everything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    Folder(PathBuf),
    /// The Redis of `gateway.redis`; where it is named.
    Redis(crate::source::Span),
}

/// Reads the section; `None` after a finding that leaves nothing to order.
pub(super) fn read(reader: &mut Reader<'_, '_>, record: &Record) -> Option<AcmeSettings> {
    let mut wrong = |span, message: &str, help: &str| {
        let message = format!("`gateway.acme`: {message}");
        reader.diags.push(Diagnostic::new(&codes::INVALID_VALUE, span, message).help(help));
    };
    if record.bool_opt("terms_of_service_agreed") == Some(false) {
        let span = record.span_of("terms_of_service_agreed");
        let help = "read the ACME server's terms of service and set `terms_of_service_agreed: true`, or remove `acme`";
        wrong(span, "nothing can be ordered without agreement to the terms of service", help);
    }
    let server = record.spanned_str("server")?;
    if !server.starts_with("https://") {
        wrong(server.span, "`server` must begin with `https://`", "ACME is spoken over TLS only");
    }
    let mut domains = Vec::new();
    for domain in record.strings("domains") {
        let name = domain.value.trim_end_matches('.').to_ascii_lowercase();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if name.parse::<std::net::IpAddr>().is_ok() || name.contains(':') {
            wrong(
                domain.span,
                "`domains` are names, and this is an address",
                "give the name that clients ask for",
            );
        } else if name.contains('*') {
            let help = "name each host; a wildcard takes a challenge over DNS, which gw does not do";
            wrong(domain.span, "a wildcard cannot be proved over HTTP or TLS", help);
        } else if !plain || name.len() > 253 || name.split('.').any(|l| l.is_empty() || l.len() > 63) {
            wrong(domain.span, "this is no host name", "write names beyond ASCII in their `xn--` form");
        } else {
            domains.push(Spanned::new(name, domain.span));
        }
    }
    if record.strings("domains").is_empty() && record.given("domains") {
        wrong(
            record.span_of("domains"),
            "there are no `domains` to order certificates for",
            "name at least one",
        );
    }
    if domains.len() > DOMAINS_MAX {
        wrong(
            record.span_of("domains"),
            "there are more than 1000 `domains`",
            "spread them over several gateways",
        );
    }
    let external = record.record("external_account");
    let external_account = external.and_then(|r| {
        Some(ExternalAccount { kid: r.str("kid")?.to_owned(), hmac_key: r.spanned_str("hmac_key")? })
    });
    let storage = record.spanned_str("storage")?;
    let before = record.num("renew_before").unwrap_or(0.33);
    Some(AcmeSettings {
        server: server.value,
        ca: record.spanned_str("ca").map(|path| CaFile { path: path.map(PathBuf::from), pem: None }),
        email: record.str("email").map(str::to_owned),
        domains,
        challenge: Spanned::new(
            match record.str("challenge") {
                Some("http-01") => Challenge::Http01,
                _ => Challenge::TlsAlpn01,
            },
            record.span_of("challenge"),
        ),
        key_type: match record.str("key_type") {
            Some("rsa") => KeyType::Rsa,
            _ => KeyType::Ecdsa,
        },
        renew_before: match before < 1.0 {
            true => RenewBefore::Part(before),
            false => RenewBefore::Time(Duration::from_secs_f64(before * 86_400.0)),
        },
        external_account,
        storage: match storage.as_str() {
            "redis" => Storage::Redis(storage.span),
            folder => Storage::Folder(PathBuf::from(folder)),
        },
    })
}
