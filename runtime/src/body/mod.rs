//! Bodies as documents: XML read strictly and within bounds, and written; what is wrong with a document; codings. JSON has a
//! module of its own. Knows nothing of messages or policies.
//!
//! Both readers are gw's own, because what a gateway lets through must be what any reader behind it will take the same
//! way: common parsers accept repeated names and attributes, round numbers, or leave well-formedness to their callers.

pub mod coding;
pub mod xml;
pub mod xml_chars;
pub mod xml_write;

use std::fmt;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub place: Place,
    /// A phrase: `expected ...`.
    pub what: String,
}

/// Whether a document is malformed, or more than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Malformed,
    /// A bound on depth, count or length is exceeded.
    Excessive,
}

/// Where in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Both count from 1; the column counts characters.
    Text { line: usize, column: usize },
    /// A JSON pointer (RFC 6901).
    Pointer(String),
}

impl Fault {
    /// A fault at a byte of a document.
    pub fn at(bytes: &[u8], offset: usize, kind: Kind, what: impl Into<String>) -> Self {
        let before = &bytes[..offset.min(bytes.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = memchr::memrchr(b'\n', before).map_or(0, |i| i + 1);
        // Continuation bytes of UTF-8 are not characters of their own.
        let column = before[start..].iter().filter(|b| **b & 0xc0 != 0x80).count() + 1;
        Self { kind, place: Place::Text { line, column }, what: what.into() }
    }

    /// A fault of a value within a document.
    pub fn of(pointer: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind: Kind::Malformed, place: Place::Pointer(pointer.into()), what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Text { line, column } => write!(f, "line {line}, column {column}: {}", self.what),
            Place::Pointer(pointer) if pointer.is_empty() => write!(f, "the document: {}", self.what),
            Place::Pointer(pointer) => write!(f, "`{pointer}`: {}", self.what),
        }
    }
}

/// The text of a document that must be UTF-8.
///
/// # Errors
/// It is not.
pub fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|e| {
        let utf16 = bytes.starts_with(b"\xfe\xff") || bytes.starts_with(b"\xff\xfe");
        let what = if utf16 { "the text is UTF-16, where UTF-8 is wanted" } else { "the text is not UTF-8" };
        Fault::at(bytes, e.valid_up_to(), Kind::Malformed, what)
    })
}
