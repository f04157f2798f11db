//! Text to tree.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut, Range};

use ipnet::IpNet;
use regex::RegexBuilder;

use super::{Comparison, Field, IntTest, Node, NodeKind, Test, TextTest, Type};
use crate::diag::suggest;
use crate::message::FieldName;
use crate::route::pattern;
use crate::scan::{Cursor, Mistake};

/// Parentheses and negations deeper than this are refused, to keep the parser's own stack small.
const MAX_DEPTH: usize = 100;
/// `&&` and `||` beyond this would make trees too deep to walk.
const MAX_TERMS: usize = 1000;

const FIELDS: &[(&str, Field)] = &[
    ("http.method", Field::Method),
    ("http.host", Field::Host),
    ("http.path", Field::Path),
    ("http.path.segments.len", Field::SegmentCount),
    ("tls.sni", Field::Sni),
    ("net.protocol", Field::Protocol),
    ("net.src.ip", Field::SourceIp),
    ("net.src.port", Field::SourcePort),
    ("net.dst.ip", Field::DestinationIp),
    ("net.dst.port", Field::DestinationPort),
    ("net.port", Field::DestinationPort),
];
/// Prefixes of fields that end in a name of the user's choice.
const FAMILIES: [&str; 3] = ["http.headers.", "http.queries.", "http.path.segments."];

/// Longest first, so that none hides another.
const OPERATORS: [&str; 12] = ["==", "!=", "^=", "=^", ">=", "<=", "~", ">", "<", "in", "not", "contains"];

type Parsed<T> = Result<T, Mistake>;

pub(super) fn parse(text: &str) -> Parsed<Node> {
    let mut parser = Parser { cursor: Cursor::new(text), depth: 0, terms: 0 };
    let root = parser.expression()?;
    parser.skip_space();
    if parser.at < text.len() {
        let range = parser.here();
        return Err(parser.error(range, "expected `&&`, `||` or the end of the expression"));
    }
    Ok(root)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    depth: usize,
    terms: usize,
}

/// A constant as written.
enum Constant {
    Text(String),
    Int(i64),
    Ip(IpAddr),
    Net(IpNet),
}

impl Constant {
    fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Int(_) => "a number",
            Self::Ip(_) => "an address",
            Self::Net(_) => "a CIDR",
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
    fn expression(&mut self) -> Parsed<Node> {
        let mut left = self.term()?;
        loop {
            self.skip_space();
            let is_and = match self.rest().as_bytes() {
                [b'&', b'&', ..] => true,
                [b'|', b'|', ..] => false,
                _ => return Ok(left),
            };
            self.at += 2;
            let right = self.term()?;
            let range = left.range.start..right.range.end;
            let (left_box, right_box) = (Box::new(left), Box::new(right));
            let kind =
                if is_and { NodeKind::And(left_box, right_box) } else { NodeKind::Or(left_box, right_box) };
            left = Node { range, kind };
        }
    }

    fn term(&mut self) -> Parsed<Node> {
        self.skip_space();
        let start = self.at;
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(self.error(start..start, format!("more than {MAX_TERMS} comparisons")));
        }
        if self.eat("!") {
            self.skip_space();
            if !self.rest().starts_with('(') {
                let help = "`!` negates what stands in parentheses: `!(http.method == \"GET\")`";
                return Err(self.error(self.here(), "expected `(` after `!`").with_help(help));
            }
            let inner = self.parenthesised()?;
            return Ok(Node { range: start..self.at, kind: NodeKind::Not(Box::new(inner)) });
        }
        if self.rest().starts_with('(') {
            return self.parenthesised();
        }
        let comparison = self.comparison()?;
        Ok(Node { range: start..self.at, kind: NodeKind::Compare(comparison) })
    }

    fn parenthesised(&mut self) -> Parsed<Node> {
        let open = self.at;
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(open..open + 1, format!("more than {MAX_DEPTH} nested parentheses")));
        }
        let mut inner = self.expression()?;
        self.depth -= 1;
        self.skip_space();
        if !self.eat(")") {
            return Err(self.error(open..open + 1, "this `(` is never closed"));
        }
        inner.range = open..self.at;
        Ok(inner)
    }

    fn comparison(&mut self) -> Parsed<Comparison> {
        let (mut lower, mut any) = (false, false);
        let mut functions = Vec::new();
        let (field, field_range) = loop {
            let (name, range) = self.identifier()?;
            self.skip_space();
            if !self.eat("(") {
                break (self.field(name, range.clone())?, range);
            }
            match name {
                "lower" => lower = true,
                "any" => any = true,
                _ => {
                    let message = format!("unknown function `{name}`; there are `lower` and `any`");
                    return Err(self.error(range, message));
                }
            }
            functions.push(range);
            if functions.len() > 2 {
                return Err(self.error(self.here(), "a field takes `lower` and `any` once each"));
            }
            self.skip_space();
        };
        for function in &functions {
            self.skip_space();
            if !self.eat(")") {
                return Err(self.error(function.clone(), "this function's `(` is never closed"));
            }
        }
        if lower && field.value_type() != Type::Text {
            return Err(self.error(field_range, "`lower` takes a text, which this field is not"));
        }
        let test = self.test(&field)?;
        Ok(Comparison { field, lower, any, test })
    }

    fn identifier(&mut self) -> Parsed<(&'a str, Range<usize>)> {
        let start = self.at;
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let length = self.rest().find(|c| !is_part(c)).unwrap_or(self.rest().len());
        if length == 0 || !self.rest().starts_with(|c: char| c.is_ascii_alphabetic()) {
            let message = "expected a field such as `http.path`";
            return Err(self.error(self.here(), message));
        }
        self.at += length;
        let range = start..self.at;
        let name = &self.text[range.clone()];
        if self.rest().starts_with('-') && name.starts_with("http.headers.") {
            let help = "in names of headers `-` is written `_`: `http.headers.x_api_key`";
            return Err(self.error(self.here(), "unexpected `-` in a field").with_help(help));
        }
        Ok((name, range))
    }

    fn field(&self, name: &str, range: Range<usize>) -> Parsed<Field> {
        if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
            return Ok(field.clone());
        }
        let family = FAMILIES.into_iter().find_map(|f| Some((f, name.strip_prefix(f)?)));
        match family {
            Some((_, "")) => Err(self.error(range, format!("`{name}` lacks the name of what it stands for"))),
            Some(("http.headers.", header)) => {
                Ok(Field::Header(FieldName::new(&header.replace('_', "-").to_ascii_lowercase())))
            }
            Some(("http.queries.", arg)) => Ok(Field::QueryArg(arg.to_owned())),
            Some((_, numbers)) => {
                let (first, last) = numbers.split_once('_').unwrap_or((numbers, numbers));
                match (first.parse(), last.parse()) {
                    (Ok(first), Ok(last)) if first < last || numbers.find('_').is_none() => {
                        Ok(Field::Segments(first, last))
                    }
                    _ => {
                        let message = format!("`{name}` is not a segment (`.0`), a range (`.0_2`) or `.len`");
                        Err(self.error(range, message))
                    }
                }
            }
            None => {
                let known =
                    FIELDS.iter().map(|(name, _)| *name).chain(["http.headers.NAME", "http.queries.NAME"]);
                let error = self.error(range, format!("unknown field `{name}`"));
                Err(match suggest::nearest(name, known.clone()) {
                    Some(near) => error.with_help(format!("did you mean `{near}`?")),
                    None => {
                        error.with_help(format!("the fields are {}", known.collect::<Vec<_>>().join(", ")))
                    }
                })
            }
        }
    }

    fn operator(&mut self) -> Parsed<(&'static str, Range<usize>)> {
        self.skip_space();
        let start = self.at;
        let Some(mut operator) = OPERATORS.into_iter().find(|op| self.rest().starts_with(op)) else {
            let message = "expected an operator: `==`, `!=`, `~`, `^=`, `=^`, `in`, `not in`, `contains`, `>`, `>=`, \
                           `<` or `<=`";
            return Err(self.error(self.here(), message));
        };
        self.at += operator.len();
        if operator == "not" {
            self.skip_space();
            if !self.eat("in") {
                return Err(self.error(start..self.at, "expected `in` after `not`"));
            }
            operator = "not in";
        }
        Ok((operator, start..self.at))
    }

    fn test(&mut self, field: &Field) -> Parsed<Test> {
        let (operator, operator_range) = self.operator()?;
        self.skip_space();
        let start = self.at;
        let constant = self.constant()?;
        let range = start..self.at;
        match (field.value_type(), constant) {
            (Type::Text, Constant::Text(text)) if operator == "~" => self.regex(field, &text, range),
            (Type::Text, Constant::Text(text)) => {
                let test = match operator {
                    "==" => TextTest::Equals,
                    "!=" => TextTest::Differs,
                    "^=" => TextTest::StartsWith,
                    "=^" => TextTest::EndsWith,
                    "contains" => TextTest::Contains,
                    "in" => TextTest::PartOf,
                    "not in" => TextTest::NotPartOf,
                    _ => return Err(self.misfit(operator, "a text", operator_range)),
                };
                // Hosts are compared without case; the request's is lower-case already.
                let text = if *field == Field::Host { text.to_ascii_lowercase() } else { text };
                Ok(Test::Text(test, text))
            }
            (Type::Int, Constant::Int(number)) => {
                let test = match operator {
                    "==" => IntTest::Equals,
                    "!=" => IntTest::Differs,
                    "<" => IntTest::Less,
                    "<=" => IntTest::AtMost,
                    ">" => IntTest::Greater,
                    ">=" => IntTest::AtLeast,
                    _ => return Err(self.misfit(operator, "a number", operator_range)),
                };
                Ok(Test::Int(test, number))
            }
            (Type::Ip, Constant::Ip(ip)) => match operator {
                "==" | "!=" => Ok(Test::Ip(operator == "==", ip)),
                "in" | "not in" => Ok(Test::Net(operator == "in", IpNet::from(ip))),
                _ => Err(self.misfit(operator, "an address", operator_range)),
            },
            (Type::Ip, Constant::Net(net)) => match operator {
                "in" | "not in" => Ok(Test::Net(operator == "in", net)),
                _ => Err(self.misfit(operator, "a CIDR", operator_range)),
            },
            (expected, constant) => {
                let expected = match expected {
                    Type::Text => "a text in quotes",
                    Type::Int => "a number",
                    Type::Ip => "an address or a CIDR, without quotes",
                };
                let message =
                    format!("this field is compared with {expected}, not with {}", constant.describe());
                Err(self.error(range, message))
            }
        }
    }

    fn regex(&self, field: &Field, text: &str, range: Range<usize>) -> Parsed<Test> {
        if let Err(problem) = pattern::compile(text, text) {
            let error = self.error(range, problem.message);
            return Err(Mistake { help: problem.help, ..error });
        }
        let regex = RegexBuilder::new(text).case_insensitive(*field == Field::Host).build();
        regex.map(Test::Regex).map_err(|_| self.error(range, format!("invalid regex `{text}`: too big")))
    }

    fn misfit(&self, operator: &str, kind: &str, range: Range<usize>) -> Mistake {
        self.error(range, format!("`{operator}` does not compare this field with {kind}"))
    }

    fn constant(&mut self) -> Parsed<Constant> {
        let rest = self.rest();
        if rest.starts_with("r#\"") {
            return self.raw_text();
        }
        if rest.starts_with('"') {
            return self.text();
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-');
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, range) = (&rest[..length], self.at..self.at + length);
        self.at += length;
        if let Some(number) = integer(word) {
            return Ok(Constant::Int(number));
        }
        if let Ok(ip) = word.parse() {
            return Ok(Constant::Ip(ip));
        }
        if let Ok(net) = word.parse::<IpNet>() {
            if net.addr() != net.network() {
                let message = format!("`{word}` has bits beyond its prefix");
                return Err(self.error(range, message).with_help(format!("write `{}`", net.trunc())));
            }
            return Ok(Constant::Net(net));
        }
        let error = self.error(range, "expected a text in quotes, a number, an address or a CIDR");
        let looks_like_text = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
        Err(if looks_like_text {
            error.with_help(format!("texts stand in quotes: `\"{word}\"`"))
        } else {
            error
        })
    }

    fn raw_text(&mut self) -> Parsed<Constant> {
        let start = self.at;
        self.at += 3;
        let Some(length) = self.rest().find("\"#") else {
            return Err(self.error(start..start + 3, "this text is never closed; `\"#` ends it"));
        };
        let text = self.rest()[..length].to_owned();
        self.at += length + 2;
        Ok(Constant::Text(text))
    }

    fn text(&mut self) -> Parsed<Constant> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(self.error(start..start + 1, "this text is never closed"));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Constant::Text(out)),
                '\\' => {
                    let escaped = self.rest().chars().next();
                    out.push(match escaped {
                        Some(c @ ('"' | '\\')) => c,
                        Some('n') => '\n',
                        Some('r') => '\r',
                        Some('t') => '\t',
                        _ => {
                            let range = self.at - 1..self.at + escaped.map_or(0, char::len_utf8);
                            let help = "write `\\\\` for a backslash, or a raw text: `r#\"\\d+\"#`";
                            return Err(self.error(range, "unknown escape").with_help(help));
                        }
                    });
                    self.at += 1;
                }
                _ => out.push(c),
            }
        }
    }
}

/// Decimal, `0x` hexadecimal or `0` octal, perhaps negative.
fn integer(word: &str) -> Option<i64> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(&digits[1..], 8)
    } else {
        digits.parse()
    };
    number.ok().map(|n| if negative { -n } else { n })
}
