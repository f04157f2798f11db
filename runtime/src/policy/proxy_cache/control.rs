//! What `Cache-Control` and content types say.

use crate::message::{FieldName, Fields};

/// The directives of all `Cache-Control` fields, lower-case.
pub struct Directives(Vec<(String, Option<String>)>);

impl Directives {
    /// Those of a request or response.
    pub fn of(fields: &Fields) -> Self {
        Self::named(fields, "Cache-Control")
    }

    /// Those of fields with another name.
    pub fn named(fields: &Fields, name: &str) -> Self {
        let name = FieldName::new(name);
        let mut all = Vec::new();
        for value in fields.all(&name) {
            for directive in members(&String::from_utf8_lossy(value)) {
                let (name, value) = match directive.split_once('=') {
                    Some((name, value)) => (name, Some(value.trim().trim_matches('"').to_owned())),
                    None => (directive, None),
                };
                let name = name.trim().to_ascii_lowercase();
                if !name.is_empty() {
                    all.push((name, value));
                }
            }
        }
        Self(all)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The seconds of a directive, where they are digits and nothing else; so many that they do not fit are the most.
    pub fn whole_seconds(&self, name: &str) -> Option<u64> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        let digits = value.as_deref()?;
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().unwrap_or(u64::MAX))
    }

    /// Whether the directive is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// The seconds that a directive names. One without a number names any: `max-stale` alone is no bound.
    pub fn seconds(&self, name: &str) -> Option<u64> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        match value {
            Some(text) => text.parse().ok(),
            None => Some(u64::MAX),
        }
    }
}

/// The members of a list; commas within quotes belong to a member.
fn members(list: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let ends = |c: char| {
        let ends = c == ',' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        ends
    };
    list.split(ends).collect()
}

/// How many seconds a shared cache may give an answer again, from its directives or its date of expiry.
pub fn lifetime(said: &Directives, fields: &Fields, now_s: u64) -> Option<u64> {
    if let Some(seconds) = said.seconds("s-maxage").or_else(|| said.seconds("max-age")) {
        return Some(seconds);
    }
    let expires = fields.text(&FieldName::new("Expires"))?;
    let at = httpdate::parse_http_date(expires).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(at.as_secs().saturating_sub(now_s))
}

/// A content type, lower-case: type, subtype, parameters in order of name.
#[derive(Debug, PartialEq, Eq)]
pub struct Media {
    kind: String,
    subtype: String,
    parameters: Vec<(String, String)>,
}

impl Media {
    /// Reads `type/subtype; name=value`.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let mut parts = lower.split(';');
        let (kind, subtype) = parts.next()?.trim().split_once('/')?;
        if kind.is_empty() || subtype.is_empty() {
            return None;
        }
        let mut parameters: Vec<(String, String)> = parts
            .filter_map(|p| p.trim().split_once('='))
            .map(|(n, v)| (n.trim().to_owned(), v.trim().trim_matches('"').to_owned()))
            .collect();
        parameters.sort();
        Some(Self { kind: kind.to_owned(), subtype: subtype.to_owned(), parameters })
    }

    /// Whether a listed type, which may have `*` in it, stands for an answer's.
    pub fn admits(&self, other: &Self) -> bool {
        let same = |listed: &str, real: &str| listed == "*" || listed == real;
        same(&self.kind, &other.kind)
            && same(&self.subtype, &other.subtype)
            && self.parameters == other.parameters
    }
}
