//! JSON as a tree whose numbers are kept as they are written and whose members keep their order.

use super::Fault;
use super::json::{Event, Limits, Reader};
use crate::policy::reply::push_json_string;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    String(String),
    Array(Vec<Json>),
    /// In order of appearance.
    Object(Vec<(String, Json)>),
}

/// A container that is not complete yet.
enum Open {
    Array(Vec<Json>),
    Object(Vec<(String, Json)>, Option<String>),
}

impl Json {
    /// Reads a document.
    ///
    /// # Errors
    /// It is malformed, or exceeds a limit.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes, limits)?;
        let mut stack: Vec<Open> = Vec::new();
        let mut whole = Self::Null;
        while let Some(event) = reader.next()? {
            let value = match event {
                Event::Null => Self::Null,
                Event::Bool(b) => Self::Bool(b),
                Event::Number(n) => Self::Number(n.to_owned()),
                Event::String(s) => Self::String(s.into_owned()),
                Event::Name(name) => {
                    if let Some(Open::Object(_, waiting)) = stack.last_mut() {
                        *waiting = Some(name.into_owned());
                    }
                    continue;
                }
                Event::ObjectStart => {
                    stack.push(Open::Object(Vec::new(), None));
                    continue;
                }
                Event::ArrayStart => {
                    stack.push(Open::Array(Vec::new()));
                    continue;
                }
                Event::ObjectEnd | Event::ArrayEnd => match stack.pop() {
                    Some(Open::Array(items)) => Self::Array(items),
                    Some(Open::Object(members, _)) => Self::Object(members),
                    None => continue,
                },
            };
            match stack.last_mut() {
                Some(Open::Array(items)) => items.push(value),
                Some(Open::Object(members, name)) => members.push((name.take().unwrap_or_default(), value)),
                None => whole = value,
            }
        }
        Ok(whole)
    }

    /// The value as text, if it is no array or object: null is empty.
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::Null => Some(""),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Number(text) | Self::String(text) => Some(text),
            Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The value as a document, without needless space.
    pub fn write(&self) -> String {
        let mut out = String::new();
        self.push(&mut out);
        out
    }

    fn push(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::String(text) => push_json_string(out, text),
            Self::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.push(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    push_json_string(out, name);
                    out.push(':');
                    value.push(out);
                }
                out.push('}');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in [
            r#"{"b":[1.0,1e5,9007199254740993,-0.10,{}],"a":{"x":null,"y":[true,false,[]]},"":"\n\"é😀"}"#,
            "null",
            "\"\"",
        ] {
            assert_eq!(Json::parse(text.as_bytes(), &Limits::default()).unwrap().write(), text);
        }
    }
}
