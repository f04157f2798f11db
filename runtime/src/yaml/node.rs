//! The tree: nodes, each with its place.

use std::borrow::Cow;

use super::Core;
use crate::source::Span;

/// A value and its place. The place of a copy made by an alias is that of the original.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    pub span: Span,
    pub value: Value<'a>,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Scalar(Scalar<'a>),
    Sequence(Vec<Node<'a>>),
    Mapping(Vec<Entry<'a>>),
    /// Something about which an error was reported; nobody need complain again.
    Broken,
}

/// A scalar: its text after escapes.
#[derive(Clone, Debug)]
pub struct Scalar<'a> {
    pub text: Cow<'a, str>,
    /// Whether it may mean something other than text.
    pub plain: bool,
    /// Whether the text came from the environment; it may then mean whatever its field wants, and is never shown.
    pub masked: bool,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub key: Cow<'a, str>,
    pub key_span: Span,
    pub value: Node<'a>,
}

impl<'a> Node<'a> {
    /// The places of everything written here: scalars, and keys.
    pub fn leaves(&self, out: &mut Vec<Span>) {
        match &self.value {
            Value::Sequence(items) => items.iter().for_each(|n| n.leaves(out)),
            Value::Mapping(entries) => {
                for entry in entries {
                    out.push(entry.key_span);
                    entry.value.leaves(out);
                }
            }
            Value::Scalar(_) | Value::Broken => out.push(self.span),
        }
    }

    /// A node about which an error was reported.
    pub fn broken(span: Span) -> Self {
        Self { span, value: Value::Broken }
    }

    /// The value under a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.entries().iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// The entries of a mapping; of anything else none.
    pub fn entries(&self) -> &[Entry<'a>] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The text of a scalar that means text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(s) if s.core() == Core::Text => Some(&s.text),
            _ => None,
        }
    }

    /// Whether this is a null.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.core() == Core::Null)
    }

    /// A copy that borrows nothing.
    pub fn to_owned_tree<'b>(&self) -> Node<'b> {
        let value = match &self.value {
            Value::Scalar(s) => {
                let text = Cow::Owned(s.text.clone().into_owned());
                Value::Scalar(Scalar { text, plain: s.plain, masked: s.masked })
            }
            Value::Sequence(items) => Value::Sequence(items.iter().map(Node::to_owned_tree).collect()),
            Value::Mapping(entries) => {
                let copy = |e: &Entry<'a>| Entry {
                    key: Cow::Owned(e.key.clone().into_owned()),
                    key_span: e.key_span,
                    value: e.value.to_owned_tree(),
                };
                Value::Mapping(entries.iter().map(copy).collect())
            }
            Value::Broken => Value::Broken,
        };
        Node { span: self.span, value }
    }

    /// A short place to point at when the whole is meant: the first entry of a mapping, if it fits a line.
    pub fn head(&self) -> Span {
        match &self.value {
            Value::Mapping(entries) => match entries.first() {
                Some(first)
                    if matches!(first.value.value, Value::Scalar(_)) && self.holds(first.value.span) =>
                {
                    Span { end: first.value.span.end, ..first.key_span }
                }
                Some(first) => first.key_span,
                None => self.span,
            },
            _ => self.span,
        }
    }

    fn holds(&self, inner: Span) -> bool {
        inner.file == self.span.file && inner.start >= self.span.start && inner.end <= self.span.end
    }

    /// How a person would call it: `a string`, `an array`, ...
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(s) => match s.core() {
                Core::Null => "null",
                Core::Bool(_) => "a boolean",
                Core::Int(_) => "an integer",
                Core::Float(_) => "a number",
                Core::Text => "a string",
            },
            Value::Sequence(_) => "an array",
            Value::Mapping(_) => "a map",
            Value::Broken => "nothing usable",
        }
    }
}

impl Scalar<'_> {
    /// What the scalar means by itself.
    pub fn core(&self) -> Core {
        if self.plain { Core::of(&self.text) } else { Core::Text }
    }
}
