//! Request bodies that have named fields: forms, JSON objects, multipart forms; and the arguments of a query.
//!
//! One view of all of them, so that a policy that looks for a field or changes one is written once.

use std::fmt::Write as _;

use ahash::AHashMap;
use serde_json::{Map, Value};

use super::json_path::JsonPath;
use crate::message::{Fields, names, query_pairs};

/// A parsed body.
#[derive(Debug)]
pub enum Form {
    Args(Args),
    Json(Map<String, Value>),
    Multipart(Multipart),
}

/// A rule's change of what a path leads to.
pub enum Change<'a> {
    Remove,
    Rename(&'a str),
    Replace(&'a str),
    Add(&'a str),
    Append(&'a str),
}

/// What stands under a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Absent,
    Text(String),
    /// More than one value.
    Several,
    /// A single value that is no text.
    Other,
}

/// The kinds of body, by content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Form,
    Json,
    Multipart,
}

impl Media {
    /// The kind of a request's body, if it is one of these.
    pub fn of(fields: &Fields) -> Option<Self> {
        let text = fields.text(&names::CONTENT_TYPE)?.to_ascii_lowercase();
        [
            ("application/json", Self::Json),
            ("multipart/form-data", Self::Multipart),
            ("application/x-www-form-urlencoded", Self::Form),
        ]
        .into_iter()
        .find_map(|(name, media)| text.contains(name).then_some(media))
    }
}

/// Whether the body is of a kind with named fields.
pub fn readable(fields: &Fields) -> bool {
    Media::of(fields).is_some()
}

impl Form {
    /// The body, if it is of a known kind and well-formed. An empty body has no fields.
    pub fn parse(fields: &Fields, body: &[u8]) -> Option<Self> {
        match Media::of(fields)? {
            Media::Form => Some(Self::Args(Args::parse(std::str::from_utf8(body).ok()?))),
            Media::Json if body.is_empty() => Some(Self::Json(Map::new())),
            Media::Json => match serde_json::from_slice(body) {
                Ok(Value::Object(map)) => Some(Self::Json(map)),
                _ => None,
            },
            Media::Multipart => {
                Multipart::parse(fields.text(&names::CONTENT_TYPE)?, body).map(Self::Multipart)
            }
        }
    }

    /// What stands under a name.
    pub fn get(&self, name: &str) -> Entry {
        match self {
            Self::Args(args) => match args.values(name) {
                [] => Entry::Absent,
                [Some(text)] => Entry::Text(text.clone()),
                [None] => Entry::Other,
                _ => Entry::Several,
            },
            Self::Json(map) => match map.get(name) {
                None | Some(Value::Null) => Entry::Absent,
                Some(Value::String(text)) => Entry::Text(text.clone()),
                Some(Value::Array(_) | Value::Object(_)) => Entry::Several,
                Some(_) => Entry::Other,
            },
            Self::Multipart(parts) => match parts.values(name)[..] {
                [] => Entry::Absent,
                [one] => std::str::from_utf8(one).map_or(Entry::Other, |t| Entry::Text(t.to_owned())),
                _ => Entry::Several,
            },
        }
    }

    /// Removes a name; tells whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        match self {
            Self::Args(args) => args.remove(name),
            Self::Json(map) => map.shift_remove(name).is_some(),
            Self::Multipart(parts) => parts.remove(name),
        }
    }

    /// Gives what stands under `old` the name `new`, whose own value it replaces.
    pub fn rename(&mut self, old: &str, new: &str) -> bool {
        if old == new {
            return false;
        }
        match self {
            Self::Args(args) => args.rename(old, new),
            Self::Json(map) => match map.shift_remove(old) {
                Some(value) => {
                    map.insert(new.to_owned(), value);
                    true
                }
                None => false,
            },
            Self::Multipart(parts) => match parts.values(old).first().map(|v| v.to_vec()) {
                Some(value) => {
                    parts.remove(old);
                    parts.set(new, &value);
                    true
                }
                None => false,
            },
        }
    }

    /// Whether the name counts as given; in JSON `false` does not, as Lua has it.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Args(args) => !args.values(name).is_empty(),
            Self::Json(map) => map.get(name).is_some_and(|v| *v != Value::Bool(false)),
            Self::Multipart(parts) => !parts.values(name).is_empty(),
        }
    }

    /// Makes `value` the one value of the name.
    pub fn set(&mut self, name: &str, value: &str) {
        match self {
            Self::Args(args) => args.set(name, value),
            Self::Json(map) => {
                map.insert(name.to_owned(), Value::from(value));
            }
            Self::Multipart(parts) => parts.set(name, value.as_bytes()),
        }
    }

    /// Adds a value to those of the name; tells whether this kind of body can have several.
    pub fn append(&mut self, name: &str, value: &str) -> bool {
        match self {
            Self::Args(args) => args.append(name, value),
            Self::Json(map) => append_json(map, name, Value::from(value)),
            Self::Multipart(_) => return false,
        }
        true
    }

    /// Changes what a path leads to, in JSON; tells whether it did.
    pub fn change(&mut self, path: &JsonPath, change: &Change<'_>) -> bool {
        let Self::Json(map) = self else { return false };
        match change {
            Change::Remove => path.remove(map),
            Change::Rename(new) => path.rename(map, new),
            Change::Replace(text) => path.replace(map, &Value::from(*text)),
            Change::Add(text) => path.add(map, &Value::from(*text)),
            Change::Append(text) => path.append(map, &Value::from(*text)),
        }
    }

    /// The body as bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Args(args) => args.encode().into_bytes(),
            Self::Json(map) => serde_json::to_vec(map).unwrap_or_default(),
            Self::Multipart(parts) => parts.encode(),
        }
    }
}

/// A text becomes a list with both values, a list grows, and anything else gives way to a list of the new value.
pub fn append_json(map: &mut Map<String, Value>, name: &str, value: Value) {
    match map.get_mut(name) {
        Some(Value::Array(items)) => items.push(value),
        Some(old @ Value::String(_)) => *old = Value::Array(vec![old.take(), value]),
        _ => {
            map.insert(name.to_owned(), Value::Array(vec![value]));
        }
    }
}

/// Arguments by name, decoded; a bare name has `None` for a value.
#[derive(Clone, Debug, Default)]
pub struct Args(Vec<(String, Vec<Option<String>>)>);

impl Args {
    /// The arguments of a query or form.
    pub fn parse(text: &str) -> Self {
        let mut args = Self::default();
        args.add_all(query_pairs(text));
        args
    }

    /// Adds pairs. Indexed, because a body may have very many names.
    fn add_all(&mut self, pairs: impl Iterator<Item = (String, Option<String>)>) {
        let mut index: AHashMap<String, usize> =
            self.0.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        for (name, value) in pairs {
            match index.get(&name) {
                Some(&at) => self.0[at].1.push(value),
                None => {
                    index.insert(name.clone(), self.0.len());
                    self.0.push((name, vec![value]));
                }
            }
        }
    }

    /// All values of a name.
    pub fn values(&self, name: &str) -> &[Option<String>] {
        self.0.iter().find(|(n, _)| n == name).map_or(&[], |(_, v)| v)
    }

    fn entry(&mut self, name: &str) -> &mut Vec<Option<String>> {
        let at = self.0.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
            self.0.push((name.to_owned(), Vec::new()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Removes a name; tells whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(n, _)| n != name);
        self.0.len() != before
    }

    /// See [`Form::rename`].
    pub fn rename(&mut self, old: &str, new: &str) -> bool {
        let Some(at) = self.0.iter().position(|(n, _)| n == old) else { return false };
        let (_, values) = self.0.remove(at);
        *self.entry(new) = values;
        true
    }

    /// Makes `value` the one value of the name.
    pub fn set(&mut self, name: &str, value: &str) {
        *self.entry(name) = vec![Some(value.to_owned())];
    }

    /// Adds a value. One to a bare name replaces it.
    pub fn append(&mut self, name: &str, value: &str) {
        let values = self.entry(name);
        values.retain(Option::is_some);
        values.push(Some(value.to_owned()));
    }

    /// Keeps the arguments whose name `keep` accepts.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Adds every value of `other`.
    pub fn extend(&mut self, other: Self) {
        let pairs = other.0.into_iter();
        self.add_all(pairs.flat_map(|(name, values)| values.into_iter().map(move |v| (name.clone(), v))));
    }

    /// The arguments in the order of their names, escaped, a space as `%20`.
    pub fn encode(&self) -> String {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = String::new();
        for (name, values) in sorted {
            for value in values {
                if !out.is_empty() {
                    out.push('&');
                }
                escape(&mut out, name);
                if let Some(value) = value {
                    out.push('=');
                    escape(&mut out, value);
                }
            }
        }
        out
    }
}

fn escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// A query without the arguments of one name; the others stay as they were written. `None` if none is left.
pub fn without_argument(query: &str, name: &str) -> Option<String> {
    let named = |pair: &str| crate::message::form_decode(pair.split('=').next().unwrap_or("")) == name;
    let kept: Vec<&str> = query.split('&').filter(|pair| !named(pair)).collect();
    if kept.is_empty() { None } else { Some(kept.join("&")) }
}

/// A `multipart/form-data` body: its parts as they came.
#[derive(Debug)]
pub struct Multipart {
    boundary: String,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    /// Header lines without the empty one.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Multipart {
    fn parse(content_type: &str, body: &[u8]) -> Option<Self> {
        let boundary = parameter(content_type, "boundary")?;
        let mut multipart = Self { boundary, parts: Vec::new() };
        if body.is_empty() {
            return Some(multipart);
        }
        let delimiter = format!("--{}", multipart.boundary).into_bytes();
        let mut rest = &body[memchr::memmem::find(body, &delimiter)? + delimiter.len()..];
        loop {
            if rest.starts_with(b"--") {
                return Some(multipart);
            }
            let start = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n"))?;
            let end = memchr::memmem::find(start, &delimiter)?;
            let part = &start[..end];
            let part = part.strip_suffix(b"\r\n").or_else(|| part.strip_suffix(b"\n"))?;
            multipart.parts.push(Part::parse(part)?);
            rest = &start[end + delimiter.len()..];
        }
    }

    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.parts.iter().filter(|p| p.name == name).map(|p| p.body.as_slice()).collect()
    }

    fn remove(&mut self, name: &str) -> bool {
        let before = self.parts.len();
        self.parts.retain(|p| p.name != name);
        self.parts.len() != before
    }

    fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        let quoted = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        let head = format!("Content-Disposition: form-data; name=\"{quoted}\"").into_bytes();
        self.parts.push(Part { name: name.to_owned(), head, body: value.to_vec() });
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.parts {
            out.extend_from_slice(format!("--{}\r\n", self.boundary).as_bytes());
            out.extend_from_slice(&part.head);
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(&part.body);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        out
    }
}

impl Part {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, body) = match memchr::memmem::find(bytes, b"\r\n\r\n") {
            Some(at) => (&bytes[..at], &bytes[at + 4..]),
            None => {
                let at = memchr::memmem::find(bytes, b"\n\n")?;
                (&bytes[..at], &bytes[at + 2..])
            }
        };
        let text = String::from_utf8_lossy(head);
        let disposition = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
        })?;
        let name = parameter(disposition, "name")?;
        Some(Self { name, head: head.to_vec(), body: body.to_vec() })
    }
}

/// A parameter of a field value such as `form-data; name="x"`.
fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|parameter| {
        let (key, text) = parameter.split_once('=')?;
        let text = text.trim().trim_matches('"');
        (key.trim().eq_ignore_ascii_case(name) && !text.is_empty()).then(|| text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(content_type: &str, body: &str) -> Option<Form> {
        let mut fields = Fields::default();
        fields.push(b"Content-Type", content_type.as_bytes());
        Form::parse(&fields, body.as_bytes())
    }

    #[test]
    fn forms_of_every_kind_are_read_and_changed() {
        let multipart = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b\r\n\
                         Content-Disposition: form-data; name=\"f\"; filename=\"x\"\r\nContent-Type: image/png\r\n\r\n\0\r\n--b--\r\n";
        let changed = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\nContent-Type: image/png\r\n\r\n\0\r\n\
                       --b\r\nContent-Disposition: form-data; name=\"c\"\r\n\r\n1\r\n--b\r\n\
                       Content-Disposition: form-data; name=\"d\"\r\n\r\nx y\r\n--b--\r\n";
        for (content_type, body, want) in [
            ("application/x-www-form-urlencoded", "a=1&f=2", "c=1&d=x%20y&f=2"),
            ("application/json; charset=utf-8", r#"{"a":"1","f":2}"#, r#"{"f":2,"c":"1","d":"x y"}"#),
            ("multipart/form-data; boundary=b", multipart, changed),
        ] {
            let mut form = form(content_type, body).expect("a form");
            assert_eq!(form.get("a"), Entry::Text("1".into()), "{content_type}");
            assert_eq!(form.get("z"), Entry::Absent);
            assert!(!form.remove("z"));
            assert!(form.rename("a", "c"));
            assert!(!form.has("a"));
            form.set("d", "x y");
            assert_eq!(String::from_utf8_lossy(&form.encode()), want, "{content_type}");
        }
    }

    #[test]
    fn a_body_of_very_many_names_takes_no_long_time() {
        let body: String = (0..200_000).map(|i| format!("k{i}&")).collect();
        let before = std::time::Instant::now();
        let mut args = Args::parse(&body);
        args.extend(Args::parse(&body));
        assert_eq!(args.values("k7"), [None, None]);
        assert!(before.elapsed() < std::time::Duration::from_secs(20), "{:?}", before.elapsed());
    }

    #[test]
    fn what_is_no_form_is_left_alone() {
        assert!(form("text/plain", "a=1").is_none());
        assert!(form("application/json", "[1]").is_none());
        assert!(form("application/json", "{").is_none());
        assert!(form("multipart/form-data", "--b--").is_none(), "no boundary");
        assert!(form("multipart/form-data; boundary=b", "--b\r\nbroken").is_none());
        assert!(form("application/json", "").is_some_and(|f| !f.has("a")));
    }

    #[test]
    fn values_are_appended() {
        let mut args = Args::parse("q=0&bare");
        args.append("q", "1");
        args.append("bare", "2");
        assert_eq!(args.encode(), "bare=2&q=0&q=1");
        let mut json = form("application/json", r#"{"s":"0","l":[1],"n":5}"#).expect("a form");
        for name in ["s", "l", "n", "x"] {
            assert!(json.append(name, "v"));
        }
        assert_eq!(json.encode(), br#"{"s":["0","v"],"l":[1,"v"],"n":["v"],"x":["v"]}"#);
    }

    #[test]
    fn an_argument_is_taken_out_and_the_rest_stays_as_written() {
        for (query, want) in [
            ("a=1&k=x&b=%20+", Some("a=1&b=%20+")),
            ("k=x", None),
            ("%6B=x&k", None),
            ("a&kk=1", Some("a&kk=1")),
        ] {
            assert_eq!(without_argument(query, "k").as_deref(), want, "{query}");
        }
    }
}
