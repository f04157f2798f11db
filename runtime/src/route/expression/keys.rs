//! What of an expression the index can use: hosts and beginnings of paths without which it cannot be true.

use super::{Comparison, Expression, Field, Node, NodeKind, Test, TextTest};
use crate::route::pattern::{self, HostPattern};

/// More alternatives than this are not worth entries of their own.
const MAX_ALTERNATIVES: usize = 64;

/// Alternatives of which one must hold; none where nothing can be said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::route) struct Keys {
    pub hosts: Option<Vec<HostPattern>>,
    pub prefixes: Option<Vec<String>>,
}

impl Expression {
    /// What must hold wherever the expression does.
    pub(in crate::route) fn keys(&self) -> Keys {
        keys_of(&self.root)
    }
}

fn keys_of(node: &Node) -> Keys {
    match &node.kind {
        NodeKind::Compare(comparison) => keys_of_comparison(comparison),
        NodeKind::Not(_) => Keys::default(),
        NodeKind::And(left, right) => {
            let (left, right) = (keys_of(left), keys_of(right));
            let shortest = |p: &Vec<String>| p.iter().map(String::len).min().unwrap_or(0);
            let prefixes = match (left.prefixes, right.prefixes) {
                (Some(a), Some(b)) => Some(if shortest(&a) >= shortest(&b) { a } else { b }),
                (a, b) => a.or(b),
            };
            Keys { hosts: left.hosts.or(right.hosts), prefixes }
        }
        NodeKind::Or(left, right) => {
            let (left, right) = (keys_of(left), keys_of(right));
            Keys { hosts: either(left.hosts, right.hosts), prefixes: either(left.prefixes, right.prefixes) }
        }
    }
}

fn either<T: PartialEq>(left: Option<Vec<T>>, right: Option<Vec<T>>) -> Option<Vec<T>> {
    let (mut all, right) = (left?, right?);
    for alternative in right {
        if !all.contains(&alternative) {
            all.push(alternative);
        }
    }
    (all.len() <= MAX_ALTERNATIVES).then_some(all)
}

fn keys_of_comparison(comparison: &Comparison) -> Keys {
    let Comparison { field, lower, test, .. } = comparison;
    let one = |prefix: String| Keys { hosts: None, prefixes: Some(vec![prefix]) };
    let host = |pattern| Keys { hosts: Some(vec![pattern]), prefixes: None };
    match (field, test) {
        (Field::Host, Test::Text(TextTest::Equals, text)) => host(HostPattern::Exact(text.clone())),
        // The index looks hosts up by whole labels.
        (Field::Host, Test::Text(TextTest::EndsWith, text)) if text.starts_with('.') => {
            host(HostPattern::Suffix(text.clone()))
        }
        (Field::Host, Test::Text(TextTest::StartsWith, text)) if text.ends_with('.') => {
            host(HostPattern::Prefix(text.clone()))
        }
        (Field::Path, Test::Text(TextTest::Equals | TextTest::StartsWith, text)) if !lower => {
            one(text.clone())
        }
        (Field::Path, Test::Regex(regex)) if !lower => match regex.as_str().strip_prefix('^') {
            Some(anchored) => one(pattern::literal_prefix(anchored).into_owned()),
            None => Keys::default(),
        },
        _ => Keys::default(),
    }
}
