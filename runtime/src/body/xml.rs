//! XML 1.0 with namespaces, read into a tree: full well-formedness, no DTD, within bounds, without recursion.
//!
//! A document type declaration is refused, so there are no entities but the five of XML itself, and nothing to expand or
//! to fetch.

use ahash::AHashSet;

use super::xml_chars::{in_name, is_char, split_name, starts_name};
use super::{Fault, Kind, utf8};

/// Bounds on a document. Each is the most that is allowed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Elements within each other.
    pub depth: usize,
    /// Elements in all.
    pub elements: usize,
    /// Child elements of one element.
    pub children: usize,
    /// Attributes of one element.
    pub attributes: usize,
    /// Bytes of a name.
    pub name: usize,
    /// Bytes of one attribute's value, or of the text between two tags.
    pub text: usize,
    /// Namespace declarations in force at one place.
    pub namespaces: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let any = usize::MAX;
        Self {
            depth: 64,
            elements: 250_000,
            children: any,
            attributes: 256,
            name: 1024,
            text: any,
            namespaces: 128,
        }
    }
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// As it is written, with its prefix.
    pub name: String,
    /// Namespace declarations are among them.
    pub attributes: Vec<(String, String)>,
    pub children: Vec<Node>,
}

/// What an element contains. No two texts follow each other; comments and processing instructions are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Element(Element),
    Text(String),
}

/// What the prefixes `xml` and `xmlns` stand for, always.
const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS_NAMESPACE: &str = "http://www.w3.org/2000/xmlns/";

/// Reads a document; gives back its root.
///
/// # Errors
/// It is not well-formed, has a document type declaration, is not UTF-8, or exceeds a limit.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Element, Fault> {
    let text = utf8(bytes)?;
    let mut parser = Parser { text, at: 0, limits, open: Vec::new(), elements: 0, scope: Vec::new() };
    parser.document()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    limits: &'a Limits,
    /// Elements whose end has not come.
    open: Vec<Open>,
    elements: usize,
    /// Prefixes and what they stand for, innermost last.
    scope: Vec<(String, String)>,
}

struct Open {
    element: Element,
    /// Where it began.
    start: usize,
    /// How many namespace declarations were in force outside it.
    outside: usize,
    /// Child elements so far.
    children: usize,
}

impl<'a> Parser<'a> {
    fn bad(&self, at: usize, what: impl Into<String>) -> Fault {
        Fault::at(self.text.as_bytes(), at, Kind::Malformed, what)
    }

    fn excess<T>(&self, at: usize, what: String) -> Result<T, Fault> {
        Err(Fault::at(self.text.as_bytes(), at, Kind::Excessive, what))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn eat(&mut self, text: &str) -> bool {
        let there = self.rest().starts_with(text);
        self.at += if there { text.len() } else { 0 };
        there
    }

    /// Skips white space; tells whether there was any.
    fn space(&mut self) -> bool {
        let n = self.rest().bytes().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.at += n;
        n > 0
    }

    fn document(&mut self) -> Result<Element, Fault> {
        self.eat("\u{feff}");
        self.declaration()?;
        let mut root = None;
        loop {
            self.space();
            let at = self.at;
            if self.rest().is_empty() {
                return root.ok_or_else(|| self.bad(at, "there is no element"));
            } else if self.comment()? || self.instruction()? {
            } else if self.rest().starts_with("<!") {
                return Err(self.bad(at, "a document type declaration is not allowed"));
            } else if self.rest().starts_with('<') && root.is_none() {
                root = Some(self.element()?);
            } else if root.is_some() {
                return Err(self.bad(at, "nothing may follow the root element"));
            } else {
                return Err(self.bad(at, "expected an element"));
            }
        }
    }

    /// `<?xml version="1.0" encoding="UTF-8"?>`, if it is there.
    fn declaration(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let after = self.rest().strip_prefix("<?xml");
        if !after.is_some_and(|r| r.starts_with([' ', '\t', '\r', '\n'])) {
            return Ok(());
        }
        self.at += "<?xml".len();
        let mut last = 0;
        loop {
            let spaced = self.space();
            let at = self.at;
            if self.eat("?>") {
                return match last {
                    0 => Err(self.bad(start, "the XML declaration names no version")),
                    _ => Ok(()),
                };
            }
            let name: String = self.rest().chars().take_while(char::is_ascii_alphabetic).collect();
            self.at += name.len();
            let place = match name.as_str() {
                "version" => 1,
                "encoding" => 2,
                "standalone" => 3,
                _ => 0,
            };
            // In this order, each at most once, the first always.
            if !spaced || place <= last || (last == 0 && place != 1) {
                return Err(self.bad(at, "malformed XML declaration"));
            }
            last = place;
            self.equals()?;
            let value = self.quoted()?;
            match place {
                1 if value != "1.0" => return Err(self.bad(at, "only version 1.0 of XML is understood")),
                2 if !["utf-8", "us-ascii"].iter().any(|e| value.eq_ignore_ascii_case(e)) => {
                    return Err(self.bad(at, "the encoding must be UTF-8"));
                }
                3 if !matches!(value, "yes" | "no") => return Err(self.bad(at, "malformed XML declaration")),
                _ => {}
            }
        }
    }

    fn equals(&mut self) -> Result<(), Fault> {
        self.space();
        if !self.eat("=") {
            return Err(self.bad(self.at, "expected `=`"));
        }
        self.space();
        Ok(())
    }

    /// What stands between quotes, as it is written.
    fn quoted(&mut self) -> Result<&'a str, Fault> {
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Err(self.bad(self.at, "expected a value in quotes"));
        };
        let Some(end) = rest[1..].find(quote) else {
            return Err(self.bad(self.at, "a value in quotes does not end"));
        };
        self.at += end + 2;
        Ok(&rest[1..=end])
    }

    /// Skips a comment, if there is one here.
    fn comment(&mut self) -> Result<bool, Fault> {
        let start = self.at;
        if !self.eat("<!--") {
            return Ok(false);
        }
        let Some(end) = self.rest().find("--") else {
            return Err(self.bad(start, "a comment does not end"));
        };
        let text = &self.rest()[..end];
        self.chars(text, self.at)?;
        self.at += end + 2;
        match self.eat(">") {
            true => Ok(true),
            false => Err(self.bad(self.at - 2, "a comment must not contain `--`")),
        }
    }

    /// Skips a processing instruction, if there is one here.
    fn instruction(&mut self) -> Result<bool, Fault> {
        let start = self.at;
        if !self.eat("<?") {
            return Ok(false);
        }
        let target = self.name()?;
        if target.eq_ignore_ascii_case("xml") {
            return Err(self.bad(start, "an XML declaration must be the first thing in the document"));
        }
        if target.contains(':') {
            return Err(self.bad(start, "a processing instruction's target must not contain a colon"));
        }
        if !self.space() && !self.rest().starts_with("?>") {
            return Err(self.bad(self.at, "malformed processing instruction"));
        }
        let Some(end) = self.rest().find("?>") else {
            return Err(self.bad(start, "a processing instruction does not end"));
        };
        self.chars(&self.rest()[..end], self.at)?;
        self.at += end + 2;
        Ok(true)
    }

    /// Checks that every character is allowed.
    fn chars(&self, text: &str, at: usize) -> Result<(), Fault> {
        match text.char_indices().find(|(_, c)| !is_char(*c)) {
            None => Ok(()),
            Some((i, c)) => {
                Err(self.bad(at + i, format!("the character U+{:04X} is not allowed in XML", c as u32)))
            }
        }
    }

    fn name(&mut self) -> Result<&'a str, Fault> {
        let rest = self.rest();
        let good = |(i, c): (usize, char)| c == ':' || if i == 0 { starts_name(c) } else { in_name(c) };
        let length = rest.char_indices().find(|p| !good(*p)).map_or(rest.len(), |(i, _)| i);
        let name = &rest[..length];
        if split_name(name).is_none() {
            let what = if name.is_empty() { "expected a name" } else { "malformed name" };
            return Err(self.bad(self.at, what));
        }
        if length > self.limits.name {
            return self.excess(self.at, format!("a name is longer than {} bytes", self.limits.name));
        }
        self.at += length;
        Ok(name)
    }

    /// The element that begins here, with all that is in it.
    fn element(&mut self) -> Result<Element, Fault> {
        if let Some(root) = self.start_tag()? {
            return Ok(root);
        }
        loop {
            let at = self.at;
            let rest = self.rest();
            let done = if rest.is_empty() {
                let (start, name) = self.open.last().map_or((at, ""), |o| (o.start, o.element.name.as_str()));
                return Err(self.bad(start, format!("the element `{name}` does not end")));
            } else if rest.starts_with("</") {
                Some(self.end_tag()?)
            } else if self.comment()? || self.instruction()? {
                None
            } else if rest.starts_with("<![CDATA[") {
                let Some(end) = rest.find("]]>") else {
                    return Err(self.bad(at, "a CDATA section does not end"));
                };
                let text = &rest["<![CDATA[".len()..end];
                self.chars(text, at + "<![CDATA[".len())?;
                self.at += end + 3;
                let text = lines(text);
                self.push_text(at, &text)?;
                None
            } else if rest.starts_with("<!") {
                return Err(self.bad(at, "expected an element, a comment or a CDATA section"));
            } else if rest.starts_with('<') {
                self.start_tag()?
            } else {
                let length = rest.find('<').unwrap_or(rest.len());
                let text = &rest[..length];
                if let Some(i) = text.find("]]>") {
                    return Err(self.bad(at + i, "`]]>` is not allowed in text"));
                }
                let text = self.resolve(text, at, false)?;
                self.at += length;
                self.push_text(at, &text)?;
                None
            };
            if let Some(element) = done {
                match self.open.last_mut() {
                    Some(parent) => parent.element.children.push(Node::Element(element)),
                    None => return Ok(element),
                }
            }
        }
    }

    fn push_text(&mut self, at: usize, text: &str) -> Result<(), Fault> {
        let Some(Open { element: parent, .. }) = self.open.last_mut() else { return Ok(()) };
        let length = match parent.children.last_mut() {
            Some(Node::Text(before)) => {
                before.push_str(text);
                before.len()
            }
            _ if text.is_empty() => 0,
            _ => {
                parent.children.push(Node::Text(text.to_owned()));
                text.len()
            }
        };
        match length > self.limits.text {
            true => self.excess(at, format!("a text is longer than {} bytes", self.limits.text)),
            false => Ok(()),
        }
    }

    /// A start tag: opens its element, or gives it back where the tag is an end tag as well.
    fn start_tag(&mut self) -> Result<Option<Element>, Fault> {
        let start = self.at;
        self.count(start)?;
        self.at += 1;
        let name = self.name()?;
        let outside = self.scope.len();
        let mut attributes: Vec<(&str, String, usize)> = Vec::new();
        let empty = loop {
            let spaced = self.space();
            let at = self.at;
            if self.eat(">") {
                break false;
            }
            if self.eat("/>") {
                break true;
            }
            if self.rest().is_empty() {
                return Err(self.bad(start, "a tag does not end"));
            }
            if !spaced {
                return Err(self.bad(at, "expected white space, `>` or `/>`"));
            }
            let name = self.name()?;
            self.equals()?;
            let value_at = self.at + 1;
            let raw = self.quoted()?;
            if let Some(i) = raw.find('<') {
                return Err(self.bad(value_at + i, "`<` is not allowed in the value of an attribute"));
            }
            let value = self.resolve(raw, value_at, true)?;
            if attributes.len() == self.limits.attributes {
                return self.excess(at, format!("more than {} attributes", self.limits.attributes));
            }
            if value.len() > self.limits.text {
                return self.excess(at, format!("a text is longer than {} bytes", self.limits.text));
            }
            self.declare(name, &value, at)?;
            attributes.push((name, value, at));
        };
        self.namespaces(name, start + 1, &attributes)?;
        let attributes = attributes.into_iter().map(|(name, value, _)| (name.to_owned(), value)).collect();
        let element = Element { name: name.to_owned(), attributes, children: Vec::new() };
        if empty {
            self.scope.truncate(outside);
            return Ok(Some(element));
        }
        self.open.push(Open { element, start, outside, children: 0 });
        Ok(None)
    }

    /// Counts an element in.
    fn count(&mut self, at: usize) -> Result<(), Fault> {
        self.elements += 1;
        if self.elements > self.limits.elements {
            return self.excess(at, format!("more than {} elements", self.limits.elements));
        }
        if self.open.len() >= self.limits.depth {
            return self.excess(at, format!("nested deeper than {}", self.limits.depth));
        }
        let most = self.limits.children;
        let Some(parent) = self.open.last_mut() else { return Ok(()) };
        parent.children += 1;
        match parent.children > most {
            true => self.excess(at, format!("more than {most} children")),
            false => Ok(()),
        }
    }

    fn end_tag(&mut self) -> Result<Element, Fault> {
        let at = self.at;
        self.at += 2;
        let name = self.name()?;
        self.space();
        if !self.eat(">") {
            return Err(self.bad(self.at, "expected `>`"));
        }
        match self.open.pop() {
            Some(open) if open.element.name == name => {
                self.scope.truncate(open.outside);
                Ok(open.element)
            }
            Some(open) => {
                Err(self.bad(at, format!("expected the end of the element `{}`", open.element.name)))
            }
            None => Err(self.bad(at, "there is no element to end here")),
        }
    }

    /// Puts a namespace declaration in force, if the attribute is one.
    fn declare(&mut self, name: &str, value: &str, at: usize) -> Result<(), Fault> {
        let prefix = match name.split_once(':') {
            Some(("xmlns", prefix)) => prefix,
            None if name == "xmlns" => "",
            _ => return Ok(()),
        };
        let wrong = match prefix {
            "xmlns" => Some("the prefix `xmlns` cannot be declared"),
            "xml" if value != XML_NAMESPACE => Some("the prefix `xml` cannot stand for something else"),
            "xml" => None,
            _ if value == XML_NAMESPACE || value == XMLNS_NAMESPACE => Some("this namespace is reserved"),
            "" => None,
            _ if value.is_empty() => Some("a prefix must stand for a namespace"),
            _ => None,
        };
        if let Some(what) = wrong {
            return Err(self.bad(at, what));
        }
        if self.scope.len() >= self.limits.namespaces {
            return self.excess(at, format!("more than {} namespaces", self.limits.namespaces));
        }
        self.scope.push((prefix.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Checks that prefixes are declared and no attribute is there twice, by name or by what the name stands for.
    fn namespaces(&self, name: &str, at: usize, attributes: &[(&str, String, usize)]) -> Result<(), Fault> {
        self.namespace(name, at)?;
        let mut seen: AHashSet<(&str, &str)> = AHashSet::new();
        for (name, _, at) in attributes {
            let expanded = match name.split_once(':') {
                Some(("xmlns", _)) | None => ("", *name),
                Some((_, local)) => (self.namespace(name, *at)?, local),
            };
            if !seen.insert(expanded) {
                return Err(self.bad(*at, format!("the element has the attribute `{name}` already")));
            }
        }
        Ok(())
    }

    /// The namespace that a name's prefix stands for.
    fn namespace(&self, name: &str, at: usize) -> Result<&str, Fault> {
        let prefix = name.split_once(':').map_or("", |(prefix, _)| prefix);
        match self.scope.iter().rev().find(|(p, _)| p == prefix) {
            Some((_, uri)) => Ok(uri),
            None if prefix.is_empty() => Ok(""),
            None if prefix == "xml" => Ok(XML_NAMESPACE),
            None => Err(self.bad(at, format!("the prefix `{prefix}` is not declared"))),
        }
    }

    /// Text with its references replaced and its line ends and, in attributes, its white space normalised.
    fn resolve(&self, raw: &str, at: usize, attribute: bool) -> Result<String, Fault> {
        self.chars(raw, at)?;
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some(i) = rest.find(['&', '\r', '\n', '\t']) {
            out.push_str(&rest[..i]);
            let here = at + (raw.len() - rest.len()) + i;
            let tail = &rest[i..];
            let used = match tail.as_bytes()[0] {
                b'&' => {
                    let (c, used) = reference(tail).map_err(|what| self.bad(here, what))?;
                    out.push(c);
                    used
                }
                b'\r' => {
                    out.push(if attribute { ' ' } else { '\n' });
                    if tail.starts_with("\r\n") { 2 } else { 1 }
                }
                byte => {
                    out.push(if attribute { ' ' } else { char::from(byte) });
                    1
                }
            };
            rest = &tail[used..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Line ends as XML has them.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// The character that a reference stands for, and its length.
fn reference(text: &str) -> Result<(char, usize), String> {
    let Some(end) = text.bytes().take(16).position(|b| b == b';') else {
        return Err("`&` must be written `&amp;`".to_owned());
    };
    let name = &text[1..end];
    let c = match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = match name.strip_prefix('#') {
                Some(n) => match n.strip_prefix('x') {
                    Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                        u32::from_str_radix(hex, 16).ok()
                    }
                    None if n.bytes().all(|b| b.is_ascii_digit()) => n.parse().ok(),
                    _ => None,
                },
                None if split_name(name).is_some() => return Err(format!("there is no entity `{name}`")),
                None => return Err("`&` must be written `&amp;`".to_owned()),
            };
            number
                .and_then(char::from_u32)
                .filter(|c| is_char(*c))
                .ok_or_else(|| format!("`&{name};` stands for no character of XML"))?
        }
    };
    Ok((c, end + 1))
}

#[cfg(test)]
#[path = "xml_tests.rs"]
mod tests;
