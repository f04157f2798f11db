//! The language of `authorize`: `claims.role == "admin" && request.method in ["GET", "HEAD"]`.
//!
//! Fields and literals have types, and what does not fit together is an error when the config is loaded. Claims have the
//! type that the token gives them: a comparison with one of another type, or with something that is not there, is false,
//! also where it says `!=`. So what nobody foresaw is denied, and nothing can fail while a request waits.

mod eval;
mod parse;

use ipnet::IpNet;
use regex::Regex;

pub use eval::Facts;

use crate::message::FieldName;
use crate::scan::Mistake;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression(Node);

#[derive(Debug)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Compare(Field, Test),
    /// Two fields are equal (or differ, where false).
    Same(Field, Field, bool),
}

/// What can be looked at.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    /// A claim of the verified token; dots descend into objects.
    Claim(String),
    Scopes,
    ConsumerUsername,
    ConsumerId,
    ConsumerCustomId,
    /// Groups of the consumer's acls, and those that an authenticator vouches for.
    ConsumerGroups,
    Credential,
    Method,
    Path,
    Host,
    Header(FieldName),
    Query(String),
    ClientIp,
    ClientTls,
    /// Names in the client's certificate.
    CertificateNames,
    CertificateSubject,
    CertificateFingerprint,
}

/// The type of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    List,
    Bool,
    Address,
    /// Known only when the token is there.
    Any,
}

/// An operator with its constants.
#[derive(Debug)]
enum Test {
    /// `==`, or `!=` where false.
    Text(String, bool),
    Number(Comparison, f64),
    Bool(bool),
    OneOf(Vec<Literal>),
    StartsWith(String),
    EndsWith(String),
    /// A list has the text, or a text has it as a part.
    Contains(String),
    Matches(Regex),
    Within(Vec<IpNet>),
    /// `has(...)`.
    Present,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Differs,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// A constant of one type.
#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Text(String),
    Number(f64),
    Bool(bool),
}

impl Field {
    fn value_type(&self) -> Type {
        match self {
            Self::Claim(_) => Type::Any,
            Self::Scopes | Self::ConsumerGroups | Self::CertificateNames => Type::List,
            Self::ClientTls => Type::Bool,
            Self::ClientIp => Type::Address,
            _ => Type::Text,
        }
    }
}

impl Type {
    fn describe(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::List => "a list of texts",
            Self::Bool => "a truth value",
            Self::Address => "an address",
            Self::Any => "a claim",
        }
    }
}

impl Expression {
    /// Reads and checks an expression.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        parse::parse(text).map(Self)
    }

    /// Whether it holds.
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        self.0.holds(facts)
    }
}

#[cfg(test)]
mod tests;
