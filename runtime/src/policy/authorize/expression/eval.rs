//! Whether an expression holds. Nothing here can fail: what is missing or of another type makes a comparison false.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::Value;

use super::{Comparison, Field, Literal, Node, Test};
use crate::exchange::Exchange;
use crate::token::claims;
use crate::token::demands::scopes_of;

/// What is known of a request.
pub struct Facts<'x>(pub &'x Exchange);

/// A field's value, if there is one.
enum Found<'x> {
    Text(Cow<'x, str>),
    List(Vec<&'x str>),
    Bool(bool),
    Address(IpAddr),
    Claim(&'x Value),
}

impl Facts<'_> {
    fn find(&self, field: &Field) -> Option<Found<'_>> {
        let x = self.0;
        let text = |text: &'_ str| -> Option<Found<'_>> { Some(Found::Text(Cow::Owned(text.to_owned()))) };
        let identity = x.identity.as_ref();
        let token = || identity.and_then(|i| i.claims.as_deref());
        match field {
            Field::Claim(path) => claims::find(token()?, path).map(Found::Claim),
            Field::Scopes => Some(Found::List(scopes_of(token()?))),
            Field::ConsumerUsername => text(x.consumer()?.username.as_deref()?),
            Field::ConsumerId => text(&x.consumer()?.id),
            Field::ConsumerCustomId => text(x.consumer()?.custom_id.as_deref()?),
            Field::ConsumerGroups => {
                let own = x.consumer().map(|c| c.acl_groups.iter()).into_iter().flatten();
                let vouched = identity.map(|i| i.groups.iter()).into_iter().flatten();
                Some(Found::List(own.chain(vouched).map(AsRef::as_ref).collect()))
            }
            Field::Credential => text(identity?.credential.as_deref()?),
            Field::Method => text(&x.request.method),
            Field::Path => text(&x.request.path),
            Field::Host => Some(Found::Text(Cow::Owned(x.request.host_name().to_ascii_lowercase()))),
            // Of several fields of one name, which one is meant would be the attacker's to choose.
            Field::Header(name) => {
                let mut all = x.request.fields.all(name);
                let one = all.next().filter(|_| all.next().is_none())?;
                text(std::str::from_utf8(one).ok()?)
            }
            Field::Query(name) => {
                let query = x.request.query.as_deref()?;
                let mut all = crate::message::query_pairs(query).filter(|(n, _)| n == name).map(|(_, v)| v);
                let one = all.next().filter(|_| all.next().is_none())?;
                one.map(|v| Found::Text(Cow::Owned(v)))
            }
            Field::ClientIp => Some(Found::Address(x.client.ip)),
            Field::ClientTls => Some(Found::Bool(x.client.tls)),
            Field::CertificateNames => Some(Found::List(x.client.certificate.as_ref()?.names().collect())),
            Field::CertificateSubject => text(&x.client.certificate.as_ref()?.subject),
            Field::CertificateFingerprint => text(&x.client.certificate.as_ref()?.fingerprint),
        }
    }
}

impl Node {
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|n| n.holds(facts)),
            Self::Or(all) => all.iter().any(|n| n.holds(facts)),
            Self::Not(inner) => !inner.holds(facts),
            Self::Compare(field, test) => facts.find(field).is_some_and(|found| test.holds(&found)),
            Self::Same(left, right, equal) => {
                let text = |field| facts.find(field).and_then(|f| f.as_text().map(Cow::into_owned));
                match (text(left), text(right)) {
                    (Some(left), Some(right)) => (left == right) == *equal,
                    _ => false,
                }
            }
        }
    }
}

impl Found<'_> {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Claim(Value::String(text)) => Some(Cow::Borrowed(text)),
            Self::Claim(Value::Number(number)) => Some(Cow::Owned(number.to_string())),
            Self::Address(ip) => Some(Cow::Owned(ip.to_string())),
            _ => None,
        }
    }

    /// A text, and nothing that only looks like one.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Claim(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Claim(value) => value.as_f64(),
            _ => None,
        }
    }

    fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            Self::Claim(value) => value.as_bool(),
            _ => None,
        }
    }
}

impl Test {
    fn holds(&self, found: &Found<'_>) -> bool {
        match self {
            Self::Text(want, equal) => found.text().is_some_and(|text| (text == want) == *equal),
            Self::Number(comparison, want) => found.number().is_some_and(|n| comparison.holds(n, *want)),
            Self::Bool(want) => found.truth() == Some(*want),
            Self::OneOf(all) => all.iter().any(|literal| match literal {
                Literal::Text(text) => found.text() == Some(text),
                Literal::Number(n) => found.number() == Some(*n),
                Literal::Bool(b) => found.truth() == Some(*b),
            }),
            Self::StartsWith(part) => found.text().is_some_and(|text| text.starts_with(part.as_str())),
            Self::EndsWith(part) => found.text().is_some_and(|text| text.ends_with(part.as_str())),
            Self::Contains(part) => match found {
                Found::List(list) => list.contains(&part.as_str()),
                Found::Claim(Value::Array(list)) => list.iter().any(|v| v.as_str() == Some(part)),
                found => found.text().is_some_and(|text| text.contains(part.as_str())),
            },
            Self::Matches(regex) => found.text().is_some_and(|text| regex.is_match(text)),
            Self::Within(nets) => {
                matches!(found, Found::Address(ip) if nets.iter().any(|net| net.contains(ip)))
            }
            Self::Present => match found {
                Found::List(list) => !list.is_empty(),
                Found::Claim(value) => !value.is_null(),
                _ => true,
            },
        }
    }
}

impl Comparison {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Differs => left != right,
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Greater => left > right,
            Self::AtLeast => left >= right,
        }
    }
}
