//! Conditions on a request in the config of a policy: `when`.

use regex::Regex;

use super::Cx;
use crate::diag::{Diagnostic, codes, suggest};
use crate::exchange::Exchange;
use crate::message::{FieldName, query_pairs};
use crate::model::schema::{Field, Kind, Record, TEXT, Val};
use crate::source::{Span, Spanned};

/// The fields of a `when`.
pub const FIELDS: &[Field] = &[
    Field::new("header", Kind::Map(&TEXT), "Headers and their values; `~` in front makes a value a regex.")
        .extension(),
    Field::new("query", Kind::Map(&TEXT), "Arguments of the query and their values.").extension(),
    Field::new("consumer_group", Kind::List(&Kind::Ref("consumer_groups")), "One of these groups.")
        .extension(),
];

/// Everything that must hold.
#[derive(Debug, Default)]
pub struct When {
    pub headers: Vec<(FieldName, Want)>,
    query: Vec<(String, Want)>,
    /// Ids of the members of the groups; `None` for everybody.
    consumers: Option<Vec<String>>,
    /// Names of the groups, for those that an authenticator vouches for.
    groups: Vec<String>,
}

/// What a value must be.
#[derive(Debug)]
pub enum Want {
    Text(String),
    Match(Regex),
}

impl Want {
    fn admits(&self, value: &str) -> bool {
        match self {
            Self::Text(text) => text == value,
            Self::Match(regex) => regex.is_match(value),
        }
    }
}

impl When {
    /// Reads the record, or reports what is wrong with it. One that says nothing is wrong: `what` at `place` would be for
    /// all.
    pub fn compile(record: &Record, place: Span, what: &str, cx: &mut Cx<'_>) -> Option<Self> {
        let headers = wants(record, "header", cx);
        let query = wants(record, "query", cx);
        let groups = record.strings("consumer_group");
        let members = members(&groups, cx);
        if record.map("header").is_empty() && record.map("query").is_empty() && groups.is_empty() {
            cx.diags.push(
                Diagnostic::new(&codes::INVALID_VALUE, place, format!("{what} for everybody"))
                    .help("say with `when` whom it is for"),
            );
            return None;
        }
        Some(Self {
            headers: headers?.into_iter().map(|(n, w)| (FieldName::new(&n), w)).collect(),
            query: query?,
            consumers: if groups.is_empty() { None } else { Some(members?) },
            groups: groups.into_iter().map(|g| g.value).collect(),
        })
    }

    /// Whether it holds for a request. The groups are those of the caller as identified so far.
    pub fn fits(&self, x: &Exchange) -> bool {
        let header = |(name, want): &(FieldName, Want)| {
            x.request.fields.all(name).any(|v| std::str::from_utf8(v).is_ok_and(|v| want.admits(v)))
        };
        let query = |(name, want): &(String, Want)| {
            let mut pairs = query_pairs(x.request.query.as_deref().unwrap_or(""));
            pairs.any(|(n, v)| n == *name && want.admits(v.as_deref().unwrap_or("")))
        };
        let group = || match &self.consumers {
            None => true,
            Some(members) => {
                let member = x.consumer().is_some_and(|c| members.contains(&c.id));
                let vouched =
                    |i: &crate::exchange::Identity| i.groups.iter().any(|g| self.groups.contains(g));
                member || x.identity.as_ref().is_some_and(vouched)
            }
        };
        self.headers.iter().all(header) && self.query.iter().all(query) && group()
    }
}

fn wants(record: &Record, field: &str, cx: &mut Cx<'_>) -> Option<Vec<(String, Want)>> {
    let mut out = Some(Vec::new());
    for (name, value) in record.map(field) {
        let Val::Str(text) = &value.value else { continue };
        let want = match text.strip_prefix('~').map(Regex::new) {
            None => Want::Text(text.clone()),
            Some(Ok(regex)) => Want::Match(regex),
            Some(Err(_)) => {
                cx.diags.push(
                    Diagnostic::new(
                        &codes::INVALID_VALUE,
                        value.span,
                        format!("`{text}` is no regular expression"),
                    )
                    .help("write one behind `~`, or a value without it"),
                );
                out = None;
                continue;
            }
        };
        if let Some(list) = &mut out {
            list.push((name.value.clone(), want));
        }
    }
    out
}

/// Ids of the groups' consumers.
fn members(groups: &[Spanned<String>], cx: &mut Cx<'_>) -> Option<Vec<String>> {
    let model = cx.model;
    let mut ids = Some(Vec::new());
    for group in groups {
        let found = model.consumer_groups.iter().find(|g| g.name.value == group.value || g.id == group.value);
        let Some(found) = found else {
            let message = format!("there is no consumer group `{}`", model.shown(group));
            let mut diagnostic = Diagnostic::new(&codes::DANGLING_REFERENCE, group.span, message);
            let names = model.consumer_groups.iter().map(|g| g.name.as_str());
            if let Some(near) = suggest::nearest(group, names) {
                diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
            }
            cx.diags.push(diagnostic);
            ids = None;
            continue;
        };
        for consumer in &model.consumers {
            let is = |n: &Spanned<String>| {
                consumer.username.as_ref().is_some_and(|u| u.value == n.value) || consumer.id == n.value
            };
            let says = |g: &Spanned<String>| g.value == found.name.value || g.value == found.id;
            if (consumer.groups.iter().any(says) || found.consumers.iter().any(is))
                && let Some(ids) = &mut ids
            {
                ids.push(consumer.id.clone());
            }
        }
    }
    ids
}
