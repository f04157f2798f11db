//! Where a request carries its token: query, cookies, header fields.

use std::borrow::Cow;

use crate::message::{FieldName, RequestHead, names, query_pairs};

/// Where to look.
#[derive(Debug, Default)]
pub struct Places {
    pub query: Vec<String>,
    pub cookies: Vec<String>,
    pub headers: Vec<FieldName>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    /// A query argument of the right name without a value.
    Unrecognizable,
    /// The same token may stand in several places.
    One(Cow<'a, [u8]>),
    /// Tokens that differ.
    Several,
}

impl<'a> Found<'a> {
    fn add(&mut self, token: Cow<'a, [u8]>) {
        if token.is_empty() {
            return;
        }
        match self {
            Self::Nothing => *self = Self::One(token),
            Self::One(known) if *known == token => {}
            _ => *self = Self::Several,
        }
    }

    fn add_bare(&mut self) {
        match self {
            Self::Nothing | Self::Unrecognizable => *self = Self::Unrecognizable,
            _ => *self = Self::Several,
        }
    }
}

impl Places {
    /// Looks in every place.
    pub fn search<'a>(&self, request: &'a RequestHead) -> Found<'a> {
        let mut found = Found::Nothing;
        if let Some(query) = request.query.as_deref().filter(|q| self.may_be_in(q)) {
            for (_, value) in query_pairs(query).filter(|(name, _)| self.query.contains(name)) {
                match value {
                    Some(value) => found.add(Cow::Owned(value.into_bytes())),
                    None => found.add_bare(),
                }
            }
        }
        for name in &self.cookies {
            if let Some(value) = cookie(request, name.as_bytes()) {
                found.add(Cow::Borrowed(value));
            }
        }
        for name in &self.headers {
            if let Some(token) = request.fields.get(name).and_then(bearer) {
                found.add(Cow::Borrowed(token));
            }
        }
        found
    }

    /// Whether decoding the query is worth while: most have no token.
    fn may_be_in(&self, query: &str) -> bool {
        let escaped = |q: &str| q.bytes().any(|b| matches!(b, b'%' | b'+'));
        self.query.iter().any(|name| query.contains(name.as_str()))
            || (!self.query.is_empty() && escaped(query))
    }
}

/// What follows the first `Bearer` or `bearer` with space behind it, wherever that stands.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let space = |b: &u8| matches!(b, b' ' | b'\t' | 0x0b | 0x0c);
    memchr::memmem::find_iter(value, b"earer").find_map(|at| {
        let initial = value.get(at.checked_sub(1)?)?;
        let rest = &value[at + 5..];
        let token_at = rest.iter().position(|b| !space(b))?;
        (matches!(initial, b'B' | b'b') && token_at > 0).then_some(&rest[token_at..])
    })
}

/// The first cookie of that name. Names compare without case and values are taken as they are, as nginx does.
fn cookie<'a>(request: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    let spaces = |b: &u8| *b == b' ';
    request.fields.all(const { &names::COOKIE }).find_map(|line| {
        line.split(|b| *b == b';').find_map(|pair| {
            let pair = pair.iter().position(|b| !spaces(b)).map(|at| &pair[at..])?;
            let rest = pair.get(name.len()..).filter(|_| pair[..name.len()].eq_ignore_ascii_case(name))?;
            let equals = rest.iter().position(|b| !spaces(b))?;
            let value = rest[equals..].strip_prefix(b"=")?;
            Some(value.iter().position(|b| !spaces(b)).map_or(&[][..], |at| &value[at..]))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            query: vec!["jwt".into(), "token".into()],
            cookies: vec!["Silly".into(), "x".into()],
            headers: vec![FieldName::new("Authorization"), FieldName::new("X-Auth")],
        }
    }

    #[test]
    fn tokens_are_found_wherever_they_may_stand() {
        let check = |query: Option<&str>, fields: &[(&str, &str)], want: Found<'_>| {
            let mut request = RequestHead { query: query.map(str::to_owned), ..RequestHead::default() };
            for (name, value) in fields {
                request.fields.push(name.as_bytes(), value.as_bytes());
            }
            assert_eq!(places().search(&request), want, "{query:?} {fields:?}");
        };
        let one = |token: &str| Found::One(Cow::Owned(token.as_bytes().to_vec()));
        check(None, &[], Found::Nothing);
        check(Some("jwt=a.b.c&x=1"), &[], one("a.b.c"));
        check(Some("%6Awt=a%2Eb"), &[], one("a.b"));
        check(Some("jwt="), &[], Found::Nothing);
        check(Some("jwt"), &[], Found::Unrecognizable);
        check(Some("jwt&token"), &[], Found::Unrecognizable);
        check(Some("jwt&token=a"), &[], Found::Several);
        check(Some("jwt=a&jwt=b"), &[], Found::Several);
        check(Some("jwt=a&token=a"), &[("Authorization", "Bearer a")], one("a"));
        check(Some("JWT=a"), &[], Found::Nothing);
        check(None, &[("Authorization", "bearer \t a.b ")], one("a.b "));
        check(None, &[("authorization", "Bearer a b")], one("a b"));
        check(None, &[("authorization", "Token bearers Bearer a")], one("a"));
        check(None, &[("authorization", "xBearer a")], one("a"));
        check(None, &[("authorization", "Bearer")], Found::Nothing);
        check(None, &[("authorization", "BEARER a")], Found::Nothing);
        check(None, &[("authorization", "Bearera")], Found::Nothing);
        check(None, &[("authorization", "Basic a")], Found::Nothing);
        check(None, &[("X-Auth", "Bearer a"), ("X-Auth", "Bearer b")], one("a"));
        check(None, &[("X-Auth", "Bearer a"), ("Authorization", "Bearer b")], Found::Several);
        check(None, &[("Cookie", "a=1; silly = t.t; SILLY=u")], one("t.t"));
        check(None, &[("Cookie", "sillyx=1;"), ("Cookie", "x=q")], one("q"));
        check(None, &[("Cookie", "silly=")], Found::Nothing);
    }
}
