//! Text to a spanned tree. JSON is YAML too.
//!
//! The tree knows anchors, merge keys and duplicate keys no more: they were resolved or reported. Scalars keep their
//! text; what a plain one means ([`Core`]) is asked when a field's type is known.

mod core_schema;
mod node;
mod parse;
mod syntax;

pub use core_schema::Core;
pub use node::{Entry, Node, Scalar, Value};
pub use parse::{Parsed, parse};

/// How much of a text is read before giving up: a config is written by people, but may come from anywhere.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Bytes of one file.
    pub bytes: usize,
    /// Nodes of one file, copies made by aliases included.
    pub nodes: usize,
    /// Nesting of mappings and sequences.
    pub depth: usize,
    /// Nodes that aliases may copy.
    pub copied: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: 256 << 20, nodes: 20_000_000, depth: 64, copied: 10_000 }
    }
}
