//! JSON to XML.

use super::convention::Convention;
use crate::body::Fault;
use crate::body::xml::{Element, Node};
use crate::body::xml_chars::{in_name, is_char, split_name, starts_name};
use crate::json::Json;

/// A document as XML; gives back the root.
///
/// # Errors
/// Something has no form in XML: a name, a character, an attribute that is no scalar, a prefix that nothing declares.
pub fn convert(json: &Json, convention: &Convention) -> Result<Element, Fault> {
    let mut writer = Writer { c: convention, path: String::new(), prefixes: Vec::new() };
    match json {
        Json::List(items) => {
            let mut root = Element { name: convention.array.clone(), ..Element::default() };
            writer.items(&mut root, &convention.item, items)?;
            Ok(root)
        }
        Json::Object(members) => match members.first() {
            Some((name, value))
                if members.len() == 1 && convention.keep_root && writer.is_root(name, value) =>
            {
                writer.at(name, |w| w.element(name, value))
            }
            _ => writer.element(&convention.root, json),
        },
        _ => writer.element(&convention.root, json),
    }
}

/// Most attributes of one element, and most namespaces in force at one place, as the reader of XML has it by default.
const ATTRIBUTES: usize = 256;
const NAMESPACES: usize = 128;

struct Writer<'a> {
    c: &'a Convention,
    /// The JSON pointer to where the conversion is.
    path: String,
    /// Declared prefixes, innermost last; the default namespace is the empty one.
    prefixes: Vec<(String, String)>,
}

impl Writer<'_> {
    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::of(self.path.clone(), what)
    }

    fn at<T>(&mut self, step: &str, f: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let length = self.path.len();
        self.path.push('/');
        self.path.push_str(&step.replace('~', "~0").replace('/', "~1"));
        let result = f(self)?;
        self.path.truncate(length);
        Ok(result)
    }

    /// Whether the only member of the document can be its root element.
    fn is_root(&self, name: &str, value: &Json) -> bool {
        !matches!(value, Json::List(_)) && !self.is_special(name)
    }

    fn is_special(&self, name: &str) -> bool {
        self.c.attribute_prefix.is_some_and(|p| name.starts_with(p))
            || Some(name) == self.c.text
            || Some(name) == self.c.attribute_block
            || Some(name) == self.c.mixed
            || self.c.namespace_block.is_some_and(|(block, _)| block == name)
    }

    fn element(&mut self, name: &str, value: &Json) -> Result<Element, Fault> {
        let outside = self.prefixes.len();
        let mut element = Element::default();
        match value {
            Json::Object(members) => {
                // Declarations first: they hold for the element's own name and attributes, too.
                for (name, value) in members {
                    self.at(name, |w| w.declaration(&mut element, name, value))?;
                }
                element.name = self.name(name)?;
                for (name, value) in members {
                    self.at(name, |w| w.member(&mut element, name, value))?;
                }
            }
            Json::List(items) => {
                element.name = self.name(name)?;
                let item = self.c.item.clone();
                self.items(&mut element, &item, items)?;
            }
            scalar => {
                element.name = self.name(name)?;
                self.push_text(&mut element, text_of(scalar).unwrap_or_default())?;
            }
        }
        self.prefixes.truncate(outside);
        Ok(element)
    }

    fn items(&mut self, into: &mut Element, name: &str, items: &[Json]) -> Result<(), Fault> {
        for (i, item) in items.iter().enumerate() {
            let child = self.at(&i.to_string(), |w| w.element(name, item))?;
            into.children.push(Node::Element(child));
        }
        Ok(())
    }

    /// Puts what a member declares in force.
    fn declaration(&mut self, element: &mut Element, name: &str, value: &Json) -> Result<(), Fault> {
        if let Some((block, default)) = self.c.namespace_block
            && name == block
        {
            let Json::Object(entries) = value else {
                return Err(self.fault("namespaces must be an object"));
            };
            for (prefix, uri) in entries {
                let prefix = if prefix == default { "" } else { prefix.as_str() };
                self.declare(element, prefix, uri)?;
            }
            return Ok(());
        }
        let Some(name) = self.c.attribute_prefix.and_then(|p| name.strip_prefix(p)) else { return Ok(()) };
        match name.strip_prefix("xmlns") {
            Some("") => self.declare(element, "", value),
            Some(rest) if rest.starts_with(':') => self.declare(element, &rest[1..], value),
            _ => Ok(()),
        }
    }

    fn declare(&mut self, element: &mut Element, prefix: &str, uri: &Json) -> Result<(), Fault> {
        let uri = text_of(uri).ok_or_else(|| self.fault("a namespace must be a string"))?;
        let in_force = self.prefixes.iter().rev().find(|(p, _)| p == prefix).map_or("", |(_, u)| u.as_str());
        if in_force == uri {
            return Ok(());
        }
        let reserved = matches!(prefix, "xml" | "xmlns")
            || uri.starts_with("http://www.w3.org/XML/1998/namespace")
            || uri.starts_with("http://www.w3.org/2000/xmlns/");
        let malformed =
            !prefix.is_empty() && (uri.is_empty() || !matches!(split_name(prefix), Some(("", _))));
        if reserved || malformed {
            return Err(self.fault("this namespace cannot be declared"));
        }
        self.chars(uri)?;
        if self.prefixes.len() >= NAMESPACES {
            return Err(self.fault(format!("more than {NAMESPACES} namespaces")));
        }
        self.prefixes.push((prefix.to_owned(), uri.to_owned()));
        let name = if prefix.is_empty() { "xmlns".to_owned() } else { format!("xmlns:{prefix}") };
        element.attributes.push((name, uri.to_owned()));
        Ok(())
    }

    fn member(&mut self, element: &mut Element, name: &str, value: &Json) -> Result<(), Fault> {
        if Some(name) == self.c.text {
            let text = text_of(value).ok_or_else(|| self.fault("an element's text must be a scalar"))?;
            return self.push_text(element, text);
        }
        if self.c.namespace_block.is_some_and(|(block, _)| block == name) {
            return Ok(());
        }
        if Some(name) == self.c.attribute_block {
            let Json::Object(entries) = value else { return Err(self.fault("attributes must be an object")) };
            for (name, value) in entries {
                self.at(name, |w| w.attribute(element, name, value))?;
            }
            return Ok(());
        }
        if Some(name) == self.c.mixed {
            return self.mixed(element, value);
        }
        if let Some(attribute) = self.c.attribute_prefix.and_then(|p| name.strip_prefix(p)) {
            let declares = attribute == "xmlns" || attribute.starts_with("xmlns:");
            return if declares { Ok(()) } else { self.attribute(element, attribute, value) };
        }
        if let Json::List(items) = value {
            return self.items(element, name, items);
        }
        let child = self.element(name, value)?;
        element.children.push(Node::Element(child));
        Ok(())
    }

    fn attribute(&mut self, element: &mut Element, name: &str, value: &Json) -> Result<(), Fault> {
        let text = text_of(value).ok_or_else(|| self.fault("an attribute must be a scalar"))?;
        let name = self.name(name)?;
        self.chars(text)?;
        if element.attributes.len() >= ATTRIBUTES {
            return Err(self.fault(format!("more than {ATTRIBUTES} attributes")));
        }
        if element.attributes.iter().any(|(n, _)| self.expanded(n) == self.expanded(&name)) {
            return Err(self.fault(format!("the element has the attribute `{name}` already")));
        }
        element.attributes.push((name, text.to_owned()));
        Ok(())
    }

    /// What an attribute's name stands for: namespace and local name.
    fn expanded<'n>(&'n self, name: &'n str) -> (&'n str, &'n str) {
        match name.split_once(':') {
            None | Some(("xml" | "xmlns", _)) => ("", name),
            Some((prefix, local)) => {
                let declared = self.prefixes.iter().rev().find(|(p, _)| p == prefix);
                (declared.map_or("", |(_, uri)| uri), local)
            }
        }
    }

    /// Texts and elements in the order of a list.
    fn mixed(&mut self, element: &mut Element, value: &Json) -> Result<(), Fault> {
        let Json::List(items) = value else { return Err(self.fault("mixed content must be an array")) };
        for (i, item) in items.iter().enumerate() {
            self.at(&i.to_string(), |w| match item {
                Json::Object(members) if members.len() == 1 => {
                    members.iter().try_for_each(|(name, value)| {
                        let child = w.at(name, |w| w.element(name, value))?;
                        element.children.push(Node::Element(child));
                        Ok(())
                    })
                }
                _ => match text_of(item) {
                    Some(text) => w.push_text(element, text),
                    None => Err(w.fault("mixed content is texts, and objects of one member")),
                },
            })?;
        }
        Ok(())
    }

    fn push_text(&mut self, element: &mut Element, text: &str) -> Result<(), Fault> {
        self.chars(text)?;
        if !text.is_empty() {
            element.children.push(Node::Text(text.to_owned()));
        }
        Ok(())
    }

    fn chars(&self, text: &str) -> Result<(), Fault> {
        match text.chars().find(|c| !is_char(*c)) {
            None => Ok(()),
            Some(c) => Err(self.fault(format!("the character U+{:04X} is not allowed in XML", c as u32))),
        }
    }

    /// A name as XML has it: what it cannot have is replaced, or refused.
    fn name(&self, name: &str) -> Result<String, Fault> {
        let known = |prefix: &str| {
            prefix.is_empty() || prefix == "xml" || self.prefixes.iter().any(|(p, _)| p == prefix)
        };
        match split_name(name) {
            Some((prefix, _)) if known(prefix) => return Ok(name.to_owned()),
            Some((prefix, _)) if !self.c.replace_names => {
                return Err(self.fault(format!("the prefix `{prefix}` of the name `{name}` is not declared")));
            }
            None if !self.c.replace_names => {
                let shown: String = name.chars().take(40).collect();
                return Err(self.fault(format!("`{}` cannot be a name in XML", shown.escape_debug())));
            }
            _ => {}
        }
        let mut out = String::with_capacity(name.len() + 1);
        if !name.chars().next().is_some_and(starts_name) && name.chars().next().is_none_or(in_name) {
            // A digit can stay, but not in front.
            out.push('_');
        }
        out.extend(name.chars().map(|c| if in_name(c) { c } else { '_' }));
        Ok(out)
    }
}

/// The value as text, if it is no list or object: null is empty.
fn text_of(value: &Json) -> Option<&str> {
    match value {
        Json::Null => Some(""),
        value => value.scalar(),
    }
}
