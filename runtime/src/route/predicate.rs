//! What a route asks beside host and path.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::Regex;

use super::{Query, RouteSpec};
use crate::message::FieldName;

/// The predicates of a route, compiled. All must hold; within one, any value is enough.
#[derive(Default)]
pub struct Predicates {
    methods: Vec<String>,
    headers: Vec<(FieldName, Values)>,
    snis: Vec<String>,
    sources: Vec<Endpoint>,
    destinations: Vec<Endpoint>,
}

enum Values {
    /// Lower-case.
    Texts(Vec<String>),
    Pattern(Regex),
}

struct Endpoint {
    net: Option<IpNet>,
    port: Option<u16>,
}

impl Predicates {
    /// Compiles those of a route.
    pub fn new(spec: &RouteSpec) -> Result<Self, String> {
        let mut headers = Vec::with_capacity(spec.headers.len());
        for (name, values) in &spec.headers {
            let pattern = match values.as_slice() {
                [one] => one.strip_prefix("~*"),
                _ => None,
            };
            let values = match pattern {
                Some(p) => Values::Pattern(super::compile_regex(&p.to_lowercase())?),
                None => Values::Texts(values.iter().map(|v| v.to_lowercase()).collect()),
            };
            headers.push((FieldName::new(name), values));
        }
        Ok(Self {
            methods: spec.methods.clone(),
            headers,
            snis: spec.snis.iter().map(|s| s.trim_end_matches('.').to_ascii_lowercase()).collect(),
            sources: endpoints(&spec.sources)?,
            destinations: endpoints(&spec.destinations)?,
        })
    }

    /// Whether all hold.
    pub fn hold(&self, q: &Query<'_>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| m == q.method))
            && self.headers.iter().all(|(name, values)| header_holds(q, name, values))
            && sni_holds(&self.snis, q.sni)
            && endpoint_holds(&self.sources, q.source)
            && endpoint_holds(&self.destinations, q.destination)
    }
}

fn header_holds(q: &Query<'_>, name: &FieldName, values: &Values) -> bool {
    q.fields.all(name).any(|value| {
        let value = String::from_utf8_lossy(value).to_lowercase();
        match values {
            Values::Texts(texts) => texts.contains(&value),
            Values::Pattern(p) => p.is_match(&value),
        }
    })
}

/// Names apply to TLS connections only: plain ones pass.
fn sni_holds(snis: &[String], name: Option<&str>) -> bool {
    let Some(name) = name else { return true };
    snis.is_empty() || snis.iter().any(|s| wildcard(s, name.trim_end_matches('.')))
}

/// `*.x`, `x.*` or equal.
pub fn wildcard(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => name.ends_with(suffix),
        (None, Some(prefix)) => name.starts_with(prefix),
        (None, None) => pattern == name,
    }
}

fn endpoints(written: &[(Option<String>, Option<u16>)]) -> Result<Vec<Endpoint>, String> {
    let parse = |text: &String| {
        let net = text.parse::<IpNet>().ok();
        net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .ok_or_else(|| format!("`{text}` is neither an address nor a network"))
    };
    written
        .iter()
        .map(|(ip, port)| Ok(Endpoint { net: ip.as_ref().map(parse).transpose()?, port: *port }))
        .collect()
}

fn endpoint_holds(all: &[Endpoint], at: std::net::SocketAddr) -> bool {
    let fits = |e: &Endpoint| {
        e.net.is_none_or(|n| n.contains(&at.ip().to_canonical())) && e.port.is_none_or(|p| p == at.port())
    };
    all.is_empty() || all.iter().any(fits)
}
