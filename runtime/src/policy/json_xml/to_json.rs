//! XML to JSON.

use super::convention::{Attributes, Convention, Namespaces};
use crate::body::Fault;
use crate::body::xml::{Element, Node};
use crate::json::{self, Json, number_length};

/// A document as JSON.
///
/// # Errors
/// Text and elements are mixed where the convention has no form for that. Its place is the path of element names.
pub fn convert(root: &Element, convention: &Convention) -> Result<Json, Fault> {
    let mut writer = Writer { convention, path: Vec::new(), scope: Vec::new() };
    let value = writer.element(root)?;
    if !convention.keep_root {
        return Ok(value);
    }
    let name = writer.name(&root.name).to_owned();
    let value = if convention.is_array(&[&name]) { Json::List(vec![value]) } else { value };
    Ok(Json::one(name, value))
}

struct Writer<'a> {
    convention: &'a Convention,
    /// Names of the elements around, the present one last.
    path: Vec<&'a str>,
    /// Namespaces in force, innermost last.
    scope: Vec<(&'a str, &'a str)>,
}

impl<'a> Writer<'a> {
    fn name(&self, name: &'a str) -> &'a str {
        match self.convention.namespaces {
            Namespaces::Drop => name.rsplit(':').next().unwrap_or(name),
            _ => name,
        }
    }

    fn element(&mut self, element: &'a Element) -> Result<Json, Fault> {
        self.path.push(self.name(&element.name));
        let outside = self.scope.len();
        let mut members = self.attributes(element);
        let blank =
            |n: &Node| matches!(n, Node::Text(t) if t.chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n')));
        let has_elements = element.children.iter().any(|n| matches!(n, Node::Element(_)));
        let value = if !has_elements {
            // There is one text at most.
            let text = element.children.first().and_then(|n| match n {
                Node::Text(t) => Some(t.as_str()),
                Node::Element(_) => None,
            });
            self.leaf(members, text)
        } else if element.children.iter().all(|n| blank(n) || matches!(n, Node::Element(_))) {
            for child in &element.children {
                if let Node::Element(child) = child {
                    let value = self.element(child)?;
                    let name = self.name(&child.name);
                    self.path.push(name);
                    let always = self.convention.is_array(&self.path);
                    self.path.pop();
                    members.push(name, value, always);
                }
            }
            Json::Object(members.entries)
        } else {
            self.mixed(members, element)?
        };
        self.scope.truncate(outside);
        self.path.pop();
        Ok(value)
    }

    /// The members that attributes and namespaces make.
    fn attributes(&mut self, element: &'a Element) -> Members {
        let mut members = Members::default();
        for (name, value) in &element.attributes {
            let declared = match name.strip_prefix("xmlns") {
                Some("") => Some(""),
                Some(rest) => rest.strip_prefix(':'),
                None => None,
            };
            match (declared, self.convention.namespaces) {
                (Some(_), Namespaces::Drop) => continue,
                (Some(prefix), Namespaces::InForce) => {
                    self.scope.push((prefix, value));
                    continue;
                }
                _ => {}
            }
            if let Attributes::Prefix(prefix) = self.convention.attributes {
                let name = format!("{prefix}{}", self.name(name));
                members.push(&name, self.text(value), false);
            }
        }
        if self.convention.namespaces == Namespaces::InForce {
            let mut in_force: json::Members = json::Members::default();
            for (i, (prefix, uri)) in self.scope.iter().enumerate() {
                let declared_anew = self.scope[i + 1..].iter().any(|(p, _)| p == prefix);
                if !declared_anew && !uri.is_empty() {
                    let name = if prefix.is_empty() { "$" } else { prefix };
                    in_force.insert(name.to_owned(), Json::Text((*uri).to_owned()));
                }
            }
            if !in_force.is_empty() {
                members.push("@xmlns", Json::Object(in_force), false);
            }
        }
        members
    }

    /// An element without elements in it.
    fn leaf(&self, mut members: Members, text: Option<&str>) -> Json {
        let c = self.convention;
        let bare = members.entries.is_empty();
        match (text, c.text) {
            (None, _) if bare && !c.empty_object => Json::Null,
            (None, _) => Json::Object(members.entries),
            (Some(text), Some(name)) if c.text_always || !bare => {
                members.push(name, self.text(text), false);
                Json::Object(members.entries)
            }
            (Some(text), _) => self.text(text),
        }
    }

    /// Text and elements in their order.
    fn mixed(&mut self, mut members: Members, element: &'a Element) -> Result<Json, Fault> {
        let Some(name) = self.convention.mixed else {
            let place = format!("/{}", self.path.join("/"));
            return Err(Fault::of(place, "text and elements are mixed, which has no form in JSON"));
        };
        let mut items = Vec::new();
        for child in &element.children {
            items.push(match child {
                Node::Text(text) => Json::Text(text.clone()),
                Node::Element(child) => {
                    let value = self.element(child)?;
                    Json::one(self.name(&child.name).to_owned(), value)
                }
            });
        }
        members.push(name, Json::List(items), false);
        Ok(Json::Object(members.entries))
    }

    fn text(&self, text: &str) -> Json {
        match text {
            "true" | "false" if self.convention.infer => Json::Bool(text == "true"),
            _ if self.convention.infer && is_plain_number(text) => Json::Number(text.into()),
            _ => Json::Text(text.to_owned()),
        }
    }
}

/// Whether the text is a number that every reader of JSON takes for the same: no exponent, no leading zeros, and no more
/// digits than a double holds exactly.
fn is_plain_number(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    digits <= 15
        && !text.contains(['e', 'E'])
        && number_length(text.as_bytes()) == Ok(text.len())
        && text != "-0"
}

/// The members of an object; a second value of a name makes an array.
#[derive(Default)]
struct Members {
    entries: json::Members,
    /// Names whose value is a list that was made here.
    made: ahash::AHashSet<String>,
}

impl Members {
    fn push(&mut self, name: &str, value: Json, always: bool) {
        let Some(present) = self.entries.get_mut(name) else {
            let value = if always { Json::List(vec![value]) } else { value };
            self.entries.insert(name.to_owned(), value);
            if always {
                self.made.insert(name.to_owned());
            }
            return;
        };
        match present {
            Json::List(items) if self.made.contains(name) => items.push(value),
            first => {
                let first_value = std::mem::take(first);
                *first = Json::List(vec![first_value, value]);
                self.made.insert(name.to_owned());
            }
        }
    }
}
