//! The language of the expressions flavor: `http.path ^= "/v1" && http.method == "GET"`.
//!
//! Fields are typed and so are operators; what does not fit is an error when the config is compiled. A field may have
//! several values (headers, query arguments): a comparison holds if it holds for all of them, with `any()` if it does
//! for one; it never holds for a field without values. As in Kong, `&&` and `||` bind alike, from left to right.

mod eval;
mod keys;
mod parse;

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use regex::Regex;

use crate::message::FieldName;
use crate::scan::Mistake;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    text: String,
    root: Node,
}

/// A part of an expression, with its place in the text.
#[derive(Debug)]
struct Node {
    range: Range<usize>,
    kind: NodeKind,
}

#[derive(Debug)]
enum NodeKind {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Compare(Comparison),
}

#[derive(Debug)]
struct Comparison {
    field: Field,
    /// `lower()`.
    lower: bool,
    /// `any()`.
    any: bool,
    test: Test,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    Method,
    Host,
    Path,
    Sni,
    Protocol,
    Header(FieldName),
    QueryArg(String),
    /// First and last, counted from 0.
    Segments(usize, usize),
    SegmentCount,
    SourcePort,
    DestinationPort,
    SourceIp,
    DestinationIp,
}

/// An operator with its constant.
#[derive(Debug)]
enum Test {
    Text(TextTest, String),
    Regex(Regex),
    Int(IntTest, i64),
    /// `==`, or `!=` where false.
    Ip(bool, IpAddr),
    /// `in`, or `not in` where false.
    Net(bool, IpNet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextTest {
    Equals,
    Differs,
    StartsWith,
    EndsWith,
    Contains,
    /// The value is a part of the constant.
    PartOf,
    NotPartOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IntTest {
    Equals,
    Differs,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Int,
    Ip,
}

impl Field {
    fn value_type(&self) -> Type {
        match self {
            Self::SegmentCount | Self::SourcePort | Self::DestinationPort => Type::Int,
            Self::SourceIp | Self::DestinationIp => Type::Ip,
            _ => Type::Text,
        }
    }
}

/// Reads and checks an expression.
pub fn compile(text: &str) -> Result<Expression, Mistake> {
    parse::parse(text).map(|root| Expression { text: text.to_owned(), root })
}

#[cfg(test)]
mod tests;
