//! Text to tree.

use std::ops::{Deref, DerefMut, Range};

use ipnet::IpNet;
use regex::RegexBuilder;

use super::{Comparison, Field, Literal, Node, Test, Type};
use crate::diag::suggest;
use crate::message::FieldName;
use crate::scan::{Cursor, Mistake};

/// Parentheses and negations deeper than this are refused, to keep the parser's own stack small.
const MAX_DEPTH: usize = 64;
/// More comparisons than anybody reads.
const MAX_TERMS: usize = 1000;
/// Bytes that a compiled regular expression may take.
const MAX_REGEX: usize = 1 << 20;

const FIELDS: &[(&str, Field)] = &[
    ("scopes", Field::Scopes),
    ("consumer.username", Field::ConsumerUsername),
    ("consumer.id", Field::ConsumerId),
    ("consumer.custom_id", Field::ConsumerCustomId),
    ("consumer.groups", Field::ConsumerGroups),
    ("credential", Field::Credential),
    ("request.method", Field::Method),
    ("request.path", Field::Path),
    ("request.host", Field::Host),
    ("client.ip", Field::ClientIp),
    ("client.tls", Field::ClientTls),
    ("client.certificate.names", Field::CertificateNames),
    ("client.certificate.subject", Field::CertificateSubject),
    ("client.certificate.fingerprint", Field::CertificateFingerprint),
];
/// Prefixes of fields that end in a name of the user's choice.
const FAMILIES: [&str; 3] = ["claims.", "request.headers.", "request.query."];

/// Longest first, so that none hides another.
const OPERATORS: [&str; 11] =
    ["==", "!=", "<=", ">=", "<", ">", "starts_with", "ends_with", "contains", "matches", "in"];

type Parsed<T> = Result<T, Mistake>;

pub(super) fn parse(text: &str) -> Parsed<Node> {
    let mut parser = Parser { cursor: Cursor::new(text), depth: 0, terms: 0 };
    let root = parser.any_of()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.error(parser.here(), "expected `&&`, `||` or the end of the expression"));
    }
    Ok(root)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    depth: usize,
    terms: usize,
}

enum Operand {
    Field(Field),
    Literal(Literal),
    List(Vec<Literal>),
}

impl Operand {
    fn describe(&self) -> &'static str {
        match self {
            Self::Field(field) => field.value_type().describe(),
            Self::Literal(Literal::Text(_)) => "a text",
            Self::Literal(Literal::Number(_)) => "a number",
            Self::Literal(Literal::Bool(_)) => "a truth value",
            Self::List(_) => "a list",
        }
    }
}

impl<'a> Deref for Parser<'a> {
    type Target = Cursor<'a>;
    fn deref(&self) -> &Self::Target {
        &self.cursor
    }
}

impl DerefMut for Parser<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.cursor
    }
}

impl<'a> Parser<'a> {
    fn any_of(&mut self) -> Parsed<Node> {
        let mut all = vec![self.all_of()?];
        while self.eat("||") {
            all.push(self.all_of()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Node::Or(all) })
    }

    fn all_of(&mut self) -> Parsed<Node> {
        let mut all = vec![self.unary()?];
        while self.eat("&&") {
            all.push(self.unary()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Node::And(all) })
    }

    fn unary(&mut self) -> Parsed<Node> {
        self.skip_space();
        let start = self.at;
        let negated = !self.rest().starts_with("!=") && self.eat("!");
        if !negated && !self.eat("(") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(start..self.at, format!("nested more than {MAX_DEPTH} deep")));
        }
        let inner = if negated {
            Node::Not(Box::new(self.unary()?))
        } else {
            let inner = self.any_of()?;
            if !self.eat(")") {
                return Err(self.error(start..start + 1, "this `(` is never closed"));
            }
            inner
        };
        self.depth -= 1;
        Ok(inner)
    }

    fn comparison(&mut self) -> Parsed<Node> {
        self.terms += 1;
        self.skip_space();
        let start = self.at;
        if self.terms > MAX_TERMS {
            return Err(self.error(start..start, format!("more than {MAX_TERMS} comparisons")));
        }
        if self.eat("has(") {
            let field = match self.operand()? {
                Operand::Field(field) => field,
                other => {
                    let message = format!("`has` takes a field, and this is {}", other.describe());
                    return Err(self.error(start..self.at, message));
                }
            };
            return match self.eat(")") {
                true => Ok(Node::Compare(field, Test::Present)),
                false => Err(self.error(start..self.at, "`has(` is never closed")),
            };
        }
        let left = self.operand()?;
        let left_range = start..self.at;
        self.skip_space();
        let operator_start = self.at;
        let Some(operator) = OPERATORS.into_iter().find(|op| self.eat_operator(op)) else {
            return match left {
                Operand::Field(field) if field.value_type() == Type::Bool => {
                    Ok(Node::Compare(field, Test::Bool(true)))
                }
                other => {
                    let message =
                        format!("expected a comparison: {} is no condition by itself", other.describe());
                    let all = OPERATORS.map(|op| format!("`{op}`")).join(", ");
                    Err(self
                        .error(left_range, message)
                        .with_help(format!("the operators are {all}, and `has(FIELD)`")))
                }
            };
        };
        let operator_range = operator_start..self.at;
        self.skip_space();
        let right_start = self.at;
        let right = self.operand()?;
        let right_range = right_start..self.at;
        let misfit = |parser: &Self, left: &Operand, right: &Operand| {
            let message =
                format!("`{operator}` does not compare {} with {}", left.describe(), right.describe());
            parser.error(operator_range.clone(), message)
        };
        match (left, operator, right) {
            (Operand::Literal(Literal::Text(text)), "in", Operand::Field(field))
                if matches!(field.value_type(), Type::List | Type::Any) =>
            {
                Ok(Node::Compare(field, Test::Contains(text)))
            }
            (Operand::Field(left), "==" | "!=", Operand::Field(right)) => {
                let comparable = |f: &Field| matches!(f.value_type(), Type::Text | Type::Any | Type::Address);
                match comparable(&left) && comparable(&right) {
                    true => Ok(Node::Same(left, right, operator == "==")),
                    false => Err(misfit(self, &Operand::Field(left), &Operand::Field(right))),
                }
            }
            (Operand::Field(field), operator, right) => {
                match self.test(&field, operator, &right, &right_range)? {
                    Some(test) => Ok(Node::Compare(field, test)),
                    None => Err(misfit(self, &Operand::Field(field), &right)),
                }
            }
            (left, _, right) => Err(misfit(self, &left, &right)
                .with_help("write the field on the left: `claims.role == \"admin\"`")),
        }
    }

    /// The test of a field, if operator and constant fit it.
    fn test(
        &self,
        field: &Field,
        operator: &str,
        right: &Operand,
        range: &Range<usize>,
    ) -> Parsed<Option<Test>> {
        use Type::{Address, Any, Bool, List, Text};
        let number = |text: &str| {
            Some(match text {
                "==" => Comparison::Equal,
                "!=" => Comparison::Differs,
                "<" => Comparison::Less,
                "<=" => Comparison::AtMost,
                ">" => Comparison::Greater,
                ">=" => Comparison::AtLeast,
                _ => return None,
            })
        };
        Ok(match (field.value_type(), operator, right) {
            (Address, "in", Operand::List(items)) => Some(Test::Within(self.nets(items, range)?)),
            (Address, "==", Operand::Literal(Literal::Text(text))) => {
                Some(Test::Within(self.nets(&[Literal::Text(text.clone())], range)?))
            }
            (Text | Any, "==" | "!=", Operand::Literal(Literal::Text(text))) => {
                Some(Test::Text(text.clone(), operator == "=="))
            }
            (Any, operator, Operand::Literal(Literal::Number(n))) => {
                number(operator).map(|comparison| Test::Number(comparison, *n))
            }
            (Bool | Any, "==" | "!=", Operand::Literal(Literal::Bool(b))) => {
                Some(Test::Bool(*b == (operator == "==")))
            }
            (Text | Any, "in", Operand::List(items)) => {
                let fits = |l: &Literal| field.value_type() == Any || matches!(l, Literal::Text(_));
                items.iter().all(fits).then(|| Test::OneOf(items.clone()))
            }
            (Text | Any | List, "contains", Operand::Literal(Literal::Text(text))) => {
                Some(Test::Contains(text.clone()))
            }
            (Text | Any, "starts_with", Operand::Literal(Literal::Text(text))) => {
                Some(Test::StartsWith(text.clone()))
            }
            (Text | Any, "ends_with", Operand::Literal(Literal::Text(text))) => {
                Some(Test::EndsWith(text.clone()))
            }
            (Text | Any, "matches", Operand::Literal(Literal::Text(text))) => {
                // The whole value, so that a forgotten anchor opens nothing.
                let whole = RegexBuilder::new(&format!("^(?:{text})$")).size_limit(MAX_REGEX).build();
                let regex = whole.map_err(|e| {
                    let what = e.to_string();
                    let last =
                        what.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    self.error(range.clone(), format!("not a regular expression: {last}"))
                })?;
                Some(Test::Matches(regex))
            }
            _ => None,
        })
    }

    fn nets(&self, items: &[Literal], range: &Range<usize>) -> Parsed<Vec<IpNet>> {
        let net = |item: &Literal| match item {
            Literal::Text(text) => {
                text.parse().ok().or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()))
            }
            _ => None,
        };
        let nets = items.iter().map(net).collect::<Option<Vec<IpNet>>>();
        nets.ok_or_else(|| self.error(range.clone(), "expected addresses or CIDRs, such as `\"10.0.0.0/8\"`"))
    }

    fn operand(&mut self) -> Parsed<Operand> {
        self.skip_space();
        let start = self.at;
        if self.eat("[") {
            return self.list(start).map(Operand::List);
        }
        if let Some(literal) = self.literal()? {
            return Ok(Operand::Literal(literal));
        }
        let name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
        let length = self.rest().find(|c| !name_char(c)).unwrap_or(self.rest().len());
        let name = &self.text[start..start + length];
        self.at += length;
        let range = start..self.at;
        if name.is_empty() {
            let here = self.here();
            return Err(self.error(here, "expected a field, a text in quotes, a number or a list"));
        }
        self.field(name, range).map(Operand::Field)
    }

    fn field(&self, name: &str, range: Range<usize>) -> Parsed<Field> {
        if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
            return Ok(field.clone());
        }
        let of =
            |family: &str| name.strip_prefix(family).filter(|rest| !rest.is_empty() && !rest.ends_with('.'));
        if let Some(claim) = of("claims.") {
            return Ok(Field::Claim(claim.to_owned()));
        }
        if let Some(header) = of("request.headers.") {
            return Ok(Field::Header(FieldName::new(header)));
        }
        if let Some(argument) = of("request.query.") {
            return Ok(Field::Query(argument.to_owned()));
        }
        let names = || FIELDS.iter().map(|(known, _)| *known);
        let error = self.error(range, format!("there is no field `{name}`"));
        Err(error.with_help(match suggest::nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let families = FAMILIES.map(|f| format!("`{f}NAME`")).join(", ");
                let fields = names().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                format!("the fields are {families}, {fields}; a text stands in quotes")
            }
        }))
    }

    fn list(&mut self, start: usize) -> Parsed<Vec<Literal>> {
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if self.eat("]") {
                return match items.is_empty() {
                    true => Err(self.error(start..self.at, "the list is empty, so nothing is ever in it")),
                    false => Ok(items),
                };
            }
            match self.literal()? {
                Some(literal) => items.push(literal),
                None => return Err(self.error(self.here(), "expected a text in quotes, a number, or `]`")),
            }
            if !self.eat(",") && !self.rest().trim_start().starts_with(']') {
                return Err(self.error(self.here(), "expected `,` or `]`"));
            }
        }
    }

    fn literal(&mut self) -> Parsed<Option<Literal>> {
        let start = self.at;
        let word = |parser: &Self, word: &str| {
            let rest = parser.rest();
            rest.strip_prefix(word)
                .is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        };
        for (text, value) in [("true", true), ("false", false)] {
            if word(self, text) {
                self.at += text.len();
                return Ok(Some(Literal::Bool(value)));
            }
        }
        match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => {
                self.at += 1;
                let mut text = String::new();
                loop {
                    let Some(c) = self.rest().chars().next() else {
                        return Err(self.error(start..self.text.len(), "this text is never closed"));
                    };
                    self.at += c.len_utf8();
                    match c {
                        c if c == quote => return Ok(Some(Literal::Text(text))),
                        '\\' => match self.rest().chars().next() {
                            Some(escaped @ ('\\' | '"' | '\'')) => {
                                self.at += 1;
                                text.push(escaped);
                            }
                            // A backslash of a regular expression stays.
                            _ => text.push('\\'),
                        },
                        c => text.push(c),
                    }
                }
            }
            Some('0'..='9' | '-') => {
                let length = self
                    .rest()
                    .find(|c: char| !matches!(c, '0'..='9' | '-' | '.'))
                    .unwrap_or(self.rest().len());
                self.at += length;
                let number = self.text[start..self.at].parse().ok().filter(|n: &f64| n.is_finite());
                number
                    .map(|n| Some(Literal::Number(n)))
                    .ok_or_else(|| self.error(start..self.at, "this is no number"))
            }
            _ => Ok(None),
        }
    }

    /// Also past space before it.
    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        self.cursor.eat(token)
    }

    /// An operator that is a word must end there.
    fn eat_operator(&mut self, operator: &str) -> bool {
        let is_word = operator.ends_with(|c: char| c.is_ascii_alphabetic());
        let rest = self.rest().strip_prefix(operator);
        let ends =
            rest.is_some_and(|r| !is_word || !r.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
        if ends {
            self.at += operator.len();
        }
        ends
    }
}
