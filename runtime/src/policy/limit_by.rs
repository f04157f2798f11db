//! By whom, or by what, a limit counts: a consumer, an address, a header, a claim, or several of them together.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};

use crate::diag::Diagnostic;
use crate::diag::codes;
use crate::diag::suggest::nearest;
use crate::exchange::Exchange;
use crate::limit::{Identifier, Key};
use crate::message::FieldName;
use crate::policy::Cx;
use crate::source::Spanned;

/// What counters belong to.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitBy {
    parts: Vec<Part>,
    /// How many bits of an IPv6 address count: a client usually has a whole /64.
    ipv6_prefix: u8,
}

/// One thing about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The consumer; a caller who is none, by its credential.
    Consumer,
    Credential,
    Ip,
    Service,
    Route,
    /// The upstream that the service names as its host, else the service.
    Upstream,
    /// The path in normal form.
    Path,
    /// Whether the path is this one (Kong's `limit_by: path`).
    OnePath(String),
    Header(FieldName),
    /// A claim of the verified token; dots descend into objects.
    Claim(String),
}

/// The words of a `by` list, for documentation and for messages.
const WORDS: [&str; 9] =
    ["consumer", "credential", "ip", "service", "route", "upstream", "path", "header:NAME", "claim:NAME"];

impl LimitBy {
    /// By one thing, addresses in full, as Kong counts.
    pub fn one(part: Part) -> Self {
        Self { parts: vec![part], ipv6_prefix: 128 }
    }

    /// The same, with this many bits of an IPv6 address.
    #[must_use]
    pub fn with_ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits.min(128);
        self
    }

    /// Reads a `by` list; an empty one is by consumer. `None` after a finding.
    pub fn read(words: &[Spanned<String>], ipv6_prefix: u8, cx: &mut Cx<'_>) -> Option<Self> {
        let mut parts = Vec::new();
        for word in words {
            let part = match word.value.split_once(':') {
                None => match word.value.as_str() {
                    "consumer" => Some(Part::Consumer),
                    "credential" => Some(Part::Credential),
                    "ip" => Some(Part::Ip),
                    "service" => Some(Part::Service),
                    "route" => Some(Part::Route),
                    "upstream" => Some(Part::Upstream),
                    "path" => Some(Part::Path),
                    _ => None,
                },
                Some(("header", name)) if is_field_name(name) => Some(Part::Header(FieldName::new(name))),
                Some(("claim", name)) if !name.is_empty() => Some(Part::Claim(name.to_owned())),
                Some(_) => None,
            };
            let Some(part) = part else {
                let message = format!("`{}` is nothing that a limit can count by", word.value);
                let finding = Diagnostic::new(&codes::INVALID_VALUE, word.span, message);
                let help = match nearest(&word.value, WORDS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("write one of {}", WORDS.map(|w| format!("`{w}`")).join(", ")),
                };
                cx.diags.push(finding.help(help));
                return None;
            };
            if parts.contains(&part) {
                let message = format!("`{}` is in the list twice", word.value);
                cx.report(&codes::INVALID_VALUE, word.span, message);
                return None;
            }
            parts.push(part);
        }
        if parts.is_empty() {
            parts.push(Part::Consumer);
        }
        Some(Self { parts, ipv6_prefix: ipv6_prefix.min(128) })
    }

    /// What stands in a counter's scope to keep what clients choose apart from the ids of consumers; empty for a single
    /// thing that clients do not choose.
    pub fn tag(&self) -> String {
        let word = |p: &Part| match p {
            Part::Consumer => "consumer".to_owned(),
            Part::Credential => "credential".to_owned(),
            Part::Ip => "ip".to_owned(),
            Part::Service => "service".to_owned(),
            Part::Route => "route".to_owned(),
            Part::Upstream => "upstream".to_owned(),
            Part::Path | Part::OnePath(_) => "path".to_owned(),
            Part::Header(name) => format!("header={}", name.as_str().to_ascii_lowercase()),
            Part::Claim(name) => format!("claim={name}"),
        };
        match self.parts.as_slice() {
            [Part::Consumer | Part::Credential | Part::Ip | Part::Service | Part::OnePath(_)] => {
                String::new()
            }
            parts => format!(":{}", parts.iter().map(word).collect::<Vec<_>>().join("+")),
        }
    }

    /// The things, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The key of a request's counters within `scope`.
    pub fn key(&self, scope: &str, x: &Exchange) -> Key {
        let mut key = Key::default();
        self.write(&mut key, scope, x);
        key
    }

    /// Makes `key` the key of a request's counters within `scope`.
    pub fn write(&self, key: &mut Key, scope: &str, x: &Exchange) {
        if let [part] = self.parts.as_slice() {
            match part.value(x, self) {
                Some(Value::Text(text)) => key.rewrite(scope, Identifier::Text(&text)),
                Some(Value::Ip(ip)) => key.rewrite(scope, Identifier::Ip(ip)),
                None => self.write_address(key, scope, x),
            }
            return;
        }
        let values = self.parts.iter().map(|p| p.value(x, self));
        if !compose(key, scope, values) {
            self.write_address(key, scope, x);
        }
    }

    /// The key of this consumer's counters for requests of this route, where that says it all.
    pub fn key_of(
        &self,
        scope: &str,
        consumer: &str,
        route: Option<&str>,
        service: Option<&str>,
    ) -> Option<Key> {
        let mut values = Vec::new();
        for part in &self.parts {
            let id = match part {
                Part::Consumer => Some(consumer),
                Part::Route => route,
                Part::Service => service,
                _ => return None,
            };
            values.push(id.map(|id| Value::Text(Cow::Borrowed(id.as_bytes()))));
        }
        let mut key = Key::default();
        match values.as_slice() {
            [Some(Value::Text(text))] => key.rewrite(scope, Identifier::Text(text)),
            [_] => return None,
            _ => {
                compose(&mut key, scope, values.into_iter());
            }
        }
        Some(key)
    }

    /// Who is nobody else is counted by address.
    fn write_address(&self, key: &mut Key, scope: &str, x: &Exchange) {
        match address(x, self.ipv6_prefix) {
            Value::Text(text) => key.rewrite(scope, Identifier::Text(&text)),
            Value::Ip(ip) => key.rewrite(scope, Identifier::Ip(ip)),
        }
    }
}

enum Value<'a> {
    Text(Cow<'a, [u8]>),
    Ip(IpAddr),
}

impl Part {
    fn value<'a>(&self, x: &'a Exchange, by: &LimitBy) -> Option<Value<'a>> {
        let credential = || x.identity.as_ref()?.credential_id.as_deref();
        let found = match self {
            Self::Consumer => x.consumer().map(|c| c.id.as_str()).or_else(credential),
            Self::Credential => credential(),
            Self::Ip => return Some(address(x, by.ipv6_prefix)),
            Self::Service => {
                x.service.and_then(|s| x.snapshot.services.get(s.0 as usize)).map(|s| s.id.as_str())
            }
            Self::Upstream => {
                let service = x.service.and_then(|s| x.snapshot.services.get(s.0 as usize));
                let upstream = |id: crate::snapshot::UpstreamId| x.snapshot.upstreams.get(id.0 as usize);
                let id = service.and_then(|s| s.upstream).and_then(upstream).map(|u| u.id.as_str());
                id.or(service.map(|s| s.id.as_str()))
            }
            Self::Route => x.route.and_then(|r| x.snapshot.routes.get(r.0 as usize)).map(|r| r.id.as_str()),
            Self::Path => Some(x.request.path.as_str()),
            // Kong compares the raw path; another spelling of the same path must not escape the limit.
            Self::OnePath(path) => {
                let same = x.request.raw_path == *path || x.request.path == *path;
                return same.then(|| Value::Text(Cow::Owned(path.clone().into_bytes())));
            }
            Self::Header(name) => {
                return x.request.fields.get(name).map(|v| Value::Text(Cow::Borrowed(v)));
            }
            Self::Claim(name) => {
                return claim(x, name).map(|text| Value::Text(Cow::Owned(text.into_bytes())));
            }
        };
        found.map(|text| Value::Text(Cow::Borrowed(text.as_bytes())))
    }
}

/// The client's address, or the network that counts as one client.
fn address(x: &Exchange, ipv6_prefix: u8) -> Value<'_> {
    match x.client.ip {
        IpAddr::V6(ip) if ipv6_prefix < 128 => {
            let kept = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix)).unwrap_or(0);
            Value::Ip(IpAddr::V6(Ipv6Addr::from(u128::from(ip) & kept)))
        }
        // The peer's address was written out when it connected.
        ip if ip == x.client.peer.ip() => Value::Text(Cow::Borrowed(x.client.peer_text.as_bytes())),
        ip => Value::Ip(ip),
    }
}

/// A claim as text: of this very name, else along the dots.
fn claim(x: &Exchange, name: &str) -> Option<String> {
    let claims = x.identity.as_ref()?.claims.as_deref()?;
    let found = claims
        .get(name)
        .or_else(|| name.split('.').try_fold(claims, |at, step| at.get(step)))
        .filter(|v| !v.is_null())?;
    Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

/// Several things as one identifier. Each has its length in front, so that no client can make two of its values look like
/// another's; what is absent counts as empty. False if all are absent.
fn compose<'a>(key: &mut Key, scope: &str, values: impl Iterator<Item = Option<Value<'a>>>) -> bool {
    use std::io::Write as _;
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|out| {
        out.clear();
        let mut any = false;
        for value in values {
            any |= value.is_some();
            let ip;
            let bytes: &[u8] = match &value {
                Some(Value::Text(text)) => text,
                Some(Value::Ip(addr)) => {
                    ip = addr.to_string();
                    ip.as_bytes()
                }
                None => b"",
            };
            // Writing to memory cannot fail.
            let _ = write!(out, "{}{}=", if out.is_empty() { "" } else { "," }, bytes.len());
            out.extend_from_slice(bytes);
        }
        if any {
            key.rewrite(scope, Identifier::Text(out));
        }
        any
    })
}

fn is_field_name(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::json;

    use super::*;
    use crate::exchange::Identity;
    use crate::policy::testing;
    use crate::snapshot::ConsumerId;

    fn by(parts: &[Part]) -> LimitBy {
        LimitBy { parts: parts.to_vec(), ipv6_prefix: 64 }
    }

    #[track_caller]
    fn check(parts: &[Part], request: &str, consumer: Option<u32>, want: &str) {
        let mut x = testing::exchange(request);
        if let Some(n) = consumer {
            let claims = json!({"tenant": "t1", "https://a.test/b": 7, "realm": {"id": "r9"}, "none": null});
            x.identity = Some(Identity {
                consumer: Some(ConsumerId(n)),
                credential_id: Some("cred".to_owned()),
                claims: Some(Rc::new(claims)),
                ..Identity::default()
            });
        }
        assert_eq!(by(parts).key("s", &x).as_str(), format!("s:{want}"), "{parts:?} of {request}");
    }

    #[test]
    fn one_thing_is_itself_and_an_address_stands_in_for_what_is_not_there() {
        use Part::{Claim, Consumer, Credential, Header, Ip, OnePath};
        let v6 = "GET /a\nclient-ip: 2001:db8:1:2:3:4:5:6";
        check(&[Consumer], v6, Some(0), testing::ALICE);
        check(&[Credential], v6, Some(0), "cred");
        check(&[Consumer], v6, None, "2001:db8:1:2::");
        check(&[Ip], v6, Some(0), "2001:db8:1:2::");
        check(&[Ip], "GET /\nclient-ip: 10.0.0.9", None, "10.0.0.9");
        check(&[Header(FieldName::new("X-T"))], "GET /\nx-t: a", None, "a");
        check(&[Header(FieldName::new("X-T"))], "GET /", None, "127.0.0.1");
        check(&[OnePath("/a".into())], "GET /a", None, "/a");
        for (name, want) in [("tenant", "t1"), ("https://a.test/b", "7"), ("realm.id", "r9")] {
            check(&[Claim(name.into())], "GET /", Some(0), want);
        }
        for absent in ["none", "other", "realm.no"] {
            check(&[Claim(absent.into())], "GET /", Some(0), "127.0.0.1");
        }
        assert_eq!(
            LimitBy::one(Part::Ip).key("s", &testing::exchange(v6)).as_str(),
            "s:2001:db8:1:2:3:4:5:6"
        );
    }

    #[test]
    fn several_things_cannot_be_confused() {
        use Part::{Header, Ip};
        let (a, b) = (Header(FieldName::new("X-A")), Header(FieldName::new("X-B")));
        let both = [a.clone(), b];
        check(&both, "GET /\nX-A: p,1=q\nX-B: r", None, "5=p,1=q,1=r");
        check(&both, "GET /\nX-A: p\nX-B: q,1=r", None, "1=p,5=q,1=r");
        check(&both, "GET /\nX-B: r", None, "0=,1=r");
        check(&both, "GET /", None, "127.0.0.1");
        check(&[Ip, a], "GET /", None, "9=127.0.0.1,0=");
    }

    #[test]
    fn a_consumers_key_is_known_without_a_request() {
        let (x, snapshot) = (by(&[Part::Consumer]), testing::snapshot());
        let mut request = testing::exchange_in(snapshot, "GET /");
        request.identity = Some(Identity { consumer: Some(ConsumerId(0)), ..Identity::default() });
        assert_eq!(x.key_of("s", testing::ALICE, None, None), Some(x.key("s", &request)));
        let two = by(&[Part::Consumer, Part::Route]);
        assert_eq!(
            two.key_of("s", "c", Some("r"), None).map(|k| k.as_str().to_owned()),
            Some("s:1=c,1=r".into())
        );
        assert_eq!(by(&[Part::Consumer, Part::Ip]).key_of("s", "c", None, None), None);
    }
}
