//! HTTP messages as every part of the data plane sees them: one canonical form, whatever the wire spoke.
//!
//! Knows nothing of sockets, routes or policies.

pub mod fields;
pub mod name;
pub mod strip;

pub use fields::Fields;
pub use name::{FieldName, names, tags};

/// The HTTP version that a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    H10,
    #[default]
    H11,
    H2,
}

/// A request's head. All strings are reused from request to request on a connection.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// As received: a token of at most 16 bytes, upper case by convention.
    pub method: String,
    /// The raw path of the target, without query; begins with `/`.
    pub raw_path: String,
    /// The raw query without `?`; `Some("")` for a bare `?`.
    pub query: Option<String>,
    /// `raw_path` in normal form (Kong's): what routes match and upstreams get.
    pub path: String,
    /// The `Host` field or `:authority`, as received.
    pub host: String,
    pub version: Version,
    /// Every field but `Host`.
    pub fields: Fields,
    /// What shapes errors of the gateway in place of `Accept` and `Content-Type`, where a policy has changed these.
    pub error_type: Option<String>,
}

impl RequestHead {
    /// Makes the head ready for the next request, keeping its memory.
    pub fn clear(&mut self) {
        self.method.clear();
        self.raw_path.clear();
        self.query = None;
        self.path.clear();
        self.host.clear();
        self.version = Version::H11;
        self.fields.clear();
        self.error_type = None;
    }

    /// The host without port, as received.
    pub fn host_name(&self) -> &str {
        split_port(&self.host).0
    }

    /// The first decoded value of a query argument. Names and values are percent-decoded, `+` is a space.
    pub fn query_arg(&self, name: &str) -> Option<String> {
        query_pairs(self.query.as_deref().unwrap_or(""))
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.unwrap_or_default())
    }
}

/// A response's head.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    pub status: u16,
    pub fields: Fields,
}

/// Host and port of an authority; IPv6 literals keep their brackets.
pub fn split_port(authority: &str) -> (&str, Option<u16>) {
    let digits = authority.bytes().rev().take_while(u8::is_ascii_digit).count();
    let name = authority.len() - digits;
    match authority.as_bytes()[..name].last() {
        Some(b':') if digits > 0 => match authority[name..].parse() {
            Ok(port) => (&authority[..name - 1], Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

/// The pairs of a query, decoded; a name without `=` has no value.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (String, Option<String>)> {
    query.split('&').filter(|p| !p.is_empty()).map(|pair| match pair.split_once('=') {
        Some((k, v)) => (form_decode(k), Some(form_decode(v))),
        None => (form_decode(pair), None),
    })
}

/// Decodes `%XX` and `+`. Bytes that are no UTF-8 become U+FFFD; a broken escape stays as it is.
pub fn form_decode(text: &str) -> String {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 2;
            }
            (b'+', ..) => out.push(b' '),
            (b, ..) => out.push(b),
        }
        i += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_split_at_the_port() {
        for (text, want) in [
            ("a.test", ("a.test", None)),
            ("a.test:80", ("a.test", Some(80))),
            ("[::1]", ("[::1]", None)),
            ("[::1]:8443", ("[::1]", Some(8443))),
            ("a:99999", ("a:99999", None)),
        ] {
            assert_eq!(split_port(text), want, "{text}");
        }
    }

    #[test]
    fn queries_decode() {
        let pairs: Vec<_> = query_pairs("a=1&b&c=%20x+y&&d=%zz").collect();
        let v = |s: &str| Some(s.to_owned());
        assert_eq!(
            pairs,
            [("a".into(), v("1")), ("b".into(), None), ("c".into(), v(" x y")), ("d".into(), v("%zz"))]
        );
    }
}
