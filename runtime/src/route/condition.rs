//! What must hold of a request beside its host and its path.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use regex::Regex;

use super::{Query, pattern};
use crate::message::FieldName;

/// A value that a header must have.
#[derive(Debug)]
pub(super) enum HeaderValue {
    /// Lower-case.
    Text(String),
    /// Matched against the value in lower case.
    Pattern(Regex),
}

/// A server name as a route writes it, lower-case.
#[derive(Debug)]
pub(super) enum SniPattern {
    Exact(String),
    Suffix(String),
    Prefix(String),
}

/// An address, a port, or both.
#[derive(Debug)]
pub(super) struct Endpoint {
    net: Option<IpNet>,
    port: Option<u16>,
}

/// One criterion. Alternatives within it are OR, criteria among themselves AND.
#[derive(Debug)]
pub(super) enum Condition {
    Methods(Vec<String>),
    Header {
        name: FieldName,
        values: Vec<HeaderValue>,
    },
    Sni(Vec<SniPattern>),
    Source(Vec<Endpoint>),
    Destination(Vec<Endpoint>),
    /// Only connections of this kind: TLS or not.
    Tls(bool),
}

impl Condition {
    /// Whether the request meets it.
    pub(super) fn holds(&self, query: &Query<'_>) -> bool {
        match self {
            Self::Methods(methods) => methods.iter().any(|m| m == query.method),
            Self::Header { name, values } => {
                query.fields.all(name).any(|value| values.iter().any(|v| v.fits(value)))
            }
            // A server name exists only on TLS; without TLS the criterion is left out of account.
            Self::Sni(names) => query.sni.is_none_or(|sni| {
                let sni = sni.strip_suffix('.').unwrap_or(sni);
                names.iter().any(|n| n.fits(sni))
            }),
            Self::Source(ends) => ends.iter().any(|e| e.fits(query.source.ip(), query.source.port())),
            Self::Destination(ends) => ends.iter().any(|e| e.fits(query.destination.ip(), query.port)),
            Self::Tls(tls) => *tls == query.sni.is_some(),
        }
    }

    /// Why it does not hold, for people.
    pub(super) fn failure(&self, query: &Query<'_>) -> String {
        match self {
            Self::Methods(methods) => format!("method `{}` is not among {}", query.method, quoted(methods)),
            Self::Header { name, values } => {
                let expected = quoted(values);
                if query.fields.contains(name) {
                    format!("header `{}` has another value than {expected}", name.as_str())
                } else {
                    format!("header `{}` is absent; expected {expected}", name.as_str())
                }
            }
            Self::Sni(names) => {
                format!("TLS server name `{}` is not among {}", query.sni.unwrap_or(""), quoted(names))
            }
            Self::Source(ends) => format!("source `{}` is not among {}", query.source, quoted(ends)),
            Self::Destination(ends) => {
                format!(
                    "destination `{}:{}` is not among {}",
                    query.destination.ip(),
                    query.port,
                    quoted(ends)
                )
            }
            Self::Tls(true) => "the connection is not TLS".to_owned(),
            Self::Tls(false) => "the connection is TLS".to_owned(),
        }
    }
}

/// The list `a`, `b`, `c`, each in backticks.
pub(super) fn quoted<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| format!("`{item}`")).collect();
    items.join(", ")
}

impl HeaderValue {
    /// Reads a value as a route gives it; `~*` begins a pattern.
    pub(super) fn parse(text: &str) -> Result<Self, pattern::RegexProblem> {
        match text.strip_prefix("~*") {
            // Kong lowers the pattern too, which turns `\S` into `\s`.
            Some(regex) => pattern::compile(regex, &regex.to_lowercase()).map(Self::Pattern),
            None => Ok(Self::Text(text.to_lowercase())),
        }
    }

    /// A value that is not UTF-8 fits nothing.
    fn fits(&self, value: &[u8]) -> bool {
        let Ok(value) = std::str::from_utf8(value) else { return false };
        let value = match value.bytes().any(|b| b.is_ascii_uppercase() || b >= 0x80) {
            true => Cow::Owned(value.to_lowercase()),
            false => Cow::Borrowed(value),
        };
        match self {
            Self::Text(text) => *text == value,
            Self::Pattern(regex) => regex.is_match(&value),
        }
    }
}

impl std::fmt::Display for HeaderValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Pattern(regex) => write!(f, "~*{regex}"),
        }
    }
}

impl SniPattern {
    /// Reads `name`, `*.name` or `name.*`; a trailing dot means nothing.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let text = if text.len() > 1 { text.strip_suffix('.').unwrap_or(&text) } else { &text };
        if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.to_owned())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }

    fn fits(&self, sni: &str) -> bool {
        let (sni, same) = (sni.as_bytes(), |a: &[u8], b: &str| a.eq_ignore_ascii_case(b.as_bytes()));
        match self {
            Self::Exact(name) => same(sni, name),
            Self::Suffix(end) => sni.len() >= end.len() && same(&sni[sni.len() - end.len()..], end),
            Self::Prefix(start) => sni.len() >= start.len() && same(&sni[..start.len()], start),
        }
    }
}

impl std::fmt::Display for SniPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(end) => write!(f, "*{end}"),
            Self::Prefix(start) => write!(f, "{start}*"),
        }
    }
}

impl Endpoint {
    /// Reads an element of `sources` or `destinations`.
    pub(super) fn parse(address: Option<&str>, port: Option<u16>) -> Result<Self, String> {
        let net = address
            .map(|text| parse_net(text).ok_or_else(|| format!("`{text}` is not an address or a CIDR")));
        match (net.transpose()?, port) {
            (None, None) => Err("an element needs `ip`, `port`, or both".to_owned()),
            (net, port) => Ok(Self { net, port }),
        }
    }

    fn fits(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        self.net.is_none_or(|net| net.contains(&ip)) && self.port.is_none_or(|p| p == port)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.net, self.port) {
            (Some(net), Some(port)) => write!(f, "{net} port {port}"),
            (Some(net), None) => write!(f, "{net}"),
            (None, port) => write!(f, "port {}", port.unwrap_or(0)),
        }
    }
}

/// An address as a network of one, or a CIDR.
pub(super) fn parse_net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
