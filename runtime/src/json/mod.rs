//! JSON documents that pass through the gateway: a tree in which every number keeps its digits.
//!
//! A gateway that reads `12345678901234567890` or `1.10` and writes something else has changed a price. So numbers are
//! text here. A name that stands twice in an object is refused, because two readers may take another of the values.

mod pointer;
mod reader;
mod tree;
mod write;

use indexmap::IndexMap;

pub use pointer::Pointer;
pub use reader::{Event, Limits, Reader, check, number_length};
pub use tree::parse;

/// The members of an object, in order of appearance.
pub type Members = IndexMap<String, Json, ahash::RandomState>;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json {
    #[default]
    Null,
    Bool(bool),
    /// Its digits as they were written.
    Number(Box<str>),
    Text(String),
    List(Vec<Json>),
    Object(Members),
}

impl Json {
    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// The member of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(name),
            _ => None,
        }
    }

    /// The text of a scalar as it would stand in a URL; `None` for null, lists and objects.
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Number(digits) => Some(digits),
            Self::Text(text) => Some(text),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// An object of one member.
    pub fn one(name: String, value: Self) -> Self {
        Self::Object(Members::from_iter([(name, value)]))
    }

    /// The document as bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        write::value(self, &mut out);
        out
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_vec()))
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => Self::Number(n.to_string().into()),
            Value::String(s) => Self::Text(s.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.iter().map(|(n, v)| (n.clone(), Self::from(v))).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
