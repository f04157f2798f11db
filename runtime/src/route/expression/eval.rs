//! Whether an expression is true of a request.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Comparison, Expression, Field, IntTest, Node, NodeKind, Test, TextTest};
use crate::route::Query;
use crate::route::lookup::{Matched, match_regex};

impl Expression {
    /// How much of the path the expression matched, and the groups of its regular expressions; none if it is false.
    pub(in crate::route) fn eval(&self, query: &Query<'_>) -> Option<Matched> {
        let mut matched = Matched::default();
        self.root.eval(query, &mut matched).then_some(matched)
    }

    /// The part of the expression that is false, for people.
    pub(in crate::route) fn failure(&self, query: &Query<'_>) -> String {
        let mut node = &self.root;
        while let NodeKind::And(left, right) = &node.kind {
            node = if left.eval(query, &mut Matched::default()) { right } else { left };
        }
        format!("`{}` is false", &self.text[node.range.clone()])
    }
}

impl Node {
    fn eval(&self, query: &Query<'_>, matched: &mut Matched) -> bool {
        match &self.kind {
            NodeKind::And(left, right) => left.eval(query, matched) && right.eval(query, matched),
            NodeKind::Or(left, right) => left.eval(query, matched) || right.eval(query, matched),
            // What a negated part matched is not what the request matched.
            NodeKind::Not(inner) => !inner.eval(query, &mut Matched::default()),
            NodeKind::Compare(comparison) => comparison.eval(query, matched),
        }
    }
}

impl Comparison {
    fn eval(&self, query: &Query<'_>, matched: &mut Matched) -> bool {
        let mut fold = Fold::new(self.any);
        match &self.field {
            Field::Method => fold.add(self.text(query.method, matched)),
            Field::Host => fold.add(self.text(query.host, matched)),
            Field::Path => fold.add(self.text(query.path, matched)),
            Field::Sni => query.sni.into_iter().for_each(|sni| fold.add(self.text(sni, matched))),
            Field::Protocol => {
                fold.add(self.text(if query.sni.is_some() { "https" } else { "http" }, matched));
            }
            Field::Header(name) => {
                for value in query.fields.all(name) {
                    // A value that is not text equals nothing, not even in a negative comparison.
                    fold.add(std::str::from_utf8(value).is_ok_and(|value| self.text(value, matched)));
                }
            }
            Field::QueryArg(name) => {
                for (key, value) in arguments(query.query) {
                    if key == *name {
                        fold.add(self.text(&value, matched));
                    }
                }
            }
            Field::Segments(first, last) => {
                let segments = segments(query.path, *first, *last);
                segments.into_iter().for_each(|s| fold.add(self.text(s, matched)));
            }
            Field::SegmentCount => {
                let trimmed = query.path.trim_matches('/');
                let count = if trimmed.is_empty() { 0 } else { trimmed.split('/').count() };
                fold.add(self.int(count as i64));
            }
            Field::SourcePort => fold.add(self.int(query.source.port().into())),
            Field::DestinationPort => fold.add(self.int(query.port.into())),
            Field::SourceIp => fold.add(self.ip(query.source.ip())),
            Field::DestinationIp => fold.add(self.ip(query.destination.ip())),
        }
        fold.result()
    }

    fn text(&self, value: &str, matched: &mut Matched) -> bool {
        let value = match self.lower && value.chars().any(char::is_uppercase) {
            true => Cow::Owned(value.to_lowercase()),
            false => Cow::Borrowed(value),
        };
        match &self.test {
            Test::Text(test, text) => {
                let holds = match test {
                    TextTest::Equals => value == *text,
                    TextTest::Differs => value != *text,
                    TextTest::StartsWith => value.starts_with(text.as_str()),
                    TextTest::EndsWith => value.ends_with(text.as_str()),
                    TextTest::Contains => value.contains(text.as_str()),
                    TextTest::PartOf => text.contains(&*value),
                    TextTest::NotPartOf => !text.contains(&*value),
                };
                if holds
                    && self.field == Field::Path
                    && matches!(test, TextTest::Equals | TextTest::StartsWith)
                {
                    matched.0 = text.len();
                }
                holds
            }
            Test::Regex(regex) => {
                let Some((length, captures)) = match_regex(regex, &value) else { return false };
                if self.field == Field::Path {
                    matched.0 = length;
                }
                for (name, text) in captures {
                    matched.1.retain(|(known, _)| *known != name);
                    matched.1.push((name, text));
                }
                true
            }
            Test::Int(..) | Test::Ip(..) | Test::Net(..) => false,
        }
    }

    fn int(&self, value: i64) -> bool {
        let Test::Int(test, number) = &self.test else { return false };
        match test {
            IntTest::Equals => value == *number,
            IntTest::Differs => value != *number,
            IntTest::Less => value < *number,
            IntTest::AtMost => value <= *number,
            IntTest::Greater => value > *number,
            IntTest::AtLeast => value >= *number,
        }
    }

    fn ip(&self, value: IpAddr) -> bool {
        let value = value.to_canonical();
        match &self.test {
            Test::Ip(equal, ip) => (value == *ip) == *equal,
            Test::Net(inside, net) => net.contains(&value) == *inside,
            Test::Text(..) | Test::Regex(_) | Test::Int(..) => false,
        }
    }
}

/// All or any of a field's values.
struct Fold {
    any: bool,
    seen: bool,
    holds: bool,
}

impl Fold {
    fn new(any: bool) -> Self {
        Self { any, seen: false, holds: !any }
    }

    fn add(&mut self, value: bool) {
        self.seen = true;
        self.holds = if self.any { self.holds || value } else { self.holds && value };
    }

    fn result(&self) -> bool {
        self.seen && self.holds
    }
}

/// The segments `first..=last` of a path, joined as they stand in it.
fn segments(path: &str, first: usize, last: usize) -> Option<&str> {
    let inner = path.trim_matches('/');
    if inner.is_empty() {
        return None;
    }
    let start = if first == 0 { 0 } else { memchr::memchr_iter(b'/', inner.as_bytes()).nth(first - 1)? + 1 };
    let mut ends = memchr::memchr_iter(b'/', &inner.as_bytes()[start..]).chain([inner.len() - start]);
    let end = ends.nth(last - first)?;
    Some(&inner[start..start + end])
}

/// Names and values of a raw query, decoded; an argument without `=` has the value "".
fn arguments(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(value))
    })
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |i: usize| bytes.get(at + i).and_then(|&b| char::from(b).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}
