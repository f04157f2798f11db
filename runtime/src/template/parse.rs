//! Expressions: what they are and how they are read.

use std::ops::Range;

use super::Finding;
use super::lex::{Placed, Token, fatal, tokens};
use crate::diag::suggest;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Nil,
    Bool(bool),
    Number(f64),
    Str(String),
    Root(Root),
    Index(Box<Expr>, Box<Expr>),
    Call(Function, Vec<Expr>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// A name that means nothing, which evaluates to nil.
    Unknown,
    /// What can only fail.
    Fail(String),
}

/// The tables that a request is seen as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    Headers,
    Query,
    Captures,
    /// What Lua plugins share; always empty here.
    Shared,
    /// The claims of the caller's token.
    Claims,
    /// What the parts of an aggregate answered, by their names.
    Parts,
    /// The item of a list that a call is made for.
    Item,
    /// The request's JSON body.
    Body,
}

/// A name that an expression looks up in a table, so that what it needs is known before there is a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub root: Root,
    /// `None` for the table itself, or a name that is only known when there is a request.
    pub name: Option<String>,
    /// Bytes of the template.
    pub range: Range<usize>,
}

/// The functions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Type,
    ToString,
    ToNumber,
    Upper,
    Lower,
    Len,
    Sub,
}

/// Operators of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Not,
    Minus,
    Length,
}

/// Operators of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Concat,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

const ROOTS: &[(&str, Root)] = &[
    ("headers", Root::Headers),
    ("query_params", Root::Query),
    ("uri_captures", Root::Captures),
    ("shared", Root::Shared),
];

/// Tables that only some templates see.
const FURTHER_ROOTS: &[(&str, Root)] =
    &[("claims", Root::Claims), ("parts", Root::Parts), ("item", Root::Item), ("body", Root::Body)];

const GLOBAL_FUNCTIONS: &[(&str, Function)] =
    &[("type", Function::Type), ("tostring", Function::ToString), ("tonumber", Function::ToNumber)];

const STRING_FUNCTIONS: &[(&str, Function)] =
    &[("upper", Function::Upper), ("lower", Function::Lower), ("len", Function::Len), ("sub", Function::Sub)];

/// What Lua has beyond this language: refused, because a request would get something else than it gets under Kong.
const LUA: &[&str] = &[
    "function",
    "do",
    "end",
    "if",
    "then",
    "else",
    "elseif",
    "for",
    "while",
    "repeat",
    "until",
    "local",
    "return",
    "break",
    "in",
    "string",
    "table",
    "math",
    "os",
    "io",
    "ngx",
    "kong",
    "require",
    "pairs",
    "ipairs",
    "next",
    "select",
    "unpack",
    "pcall",
    "xpcall",
    "error",
    "assert",
    "print",
    "rawget",
    "rawset",
    "setmetatable",
    "getmetatable",
    "_G",
];

/// Nesting beyond this is refused: the stack is finite.
const DEPTH: usize = 64;

/// Longer expressions are refused: a chain of operators is as deep a tree as it is long.
const TOKENS: usize = 256;

/// Parses the expression `text` at byte `base` of its template. What is merely always empty or always failing goes to
/// `findings`, and what it looks up to `uses`.
pub fn expression(
    text: &str,
    base: usize,
    further: &[Root],
    uses: &mut Vec<Use>,
    findings: &mut Vec<Finding>,
) -> Result<Expr, Finding> {
    let tokens = tokens(text, base)?;
    if tokens.len() > TOKENS {
        return Err(fatal(
            base..base + text.len(),
            format!("the expression has more than {TOKENS} words and signs"),
        ));
    }
    let mut parser = Parser { tokens, at: 0, end: base + text.len(), depth: 0, further, uses, findings };
    let expr = parser.binary(0)?;
    match parser.peek() {
        None => Ok(expr),
        Some(_) => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser<'a> {
    tokens: Vec<Placed>,
    at: usize,
    end: usize,
    depth: usize,
    further: &'a [Root],
    uses: &'a mut Vec<Use>,
    findings: &'a mut Vec<Finding>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(t, _)| t)
    }

    fn range(&self) -> Range<usize> {
        self.tokens.get(self.at).map_or(self.end..self.end, |(_, r)| r.clone())
    }

    fn next(&mut self) -> Option<Placed> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn take(&mut self, op: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Op(o)) if *o == op);
        self.at += usize::from(found);
        found
    }

    fn unexpected(&self, expected: &str) -> Finding {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Name(n)) => format!("`{n}`"),
            Some(Token::Number(n)) => format!("`{n}`"),
            Some(Token::Str(_)) => "a string".to_owned(),
            Some(Token::Op(o)) => format!("`{o}`"),
        };
        fatal(self.range(), format!("expected {expected}, found {found}"))
    }

    fn expect(&mut self, op: &'static str) -> Result<(), Finding> {
        if self.take(op) { Ok(()) } else { Err(self.unexpected(&format!("`{op}`"))) }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Finding>) -> Result<T, Finding> {
        if self.depth == DEPTH {
            return Err(fatal(self.range(), "the expression is nested too deeply"));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// Operators that bind at least as strongly as `least`.
    fn binary(&mut self, least: u8) -> Result<Expr, Finding> {
        let mut left = self.unary()?;
        while let Some((op, power, right_power)) = self.peek().and_then(operator) {
            if power < least {
                break;
            }
            self.at += 1;
            let right = self.deeper(|p| p.binary(right_power))?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Finding> {
        let op = match self.peek() {
            Some(Token::Name(n)) if n == "not" => Unary::Not,
            Some(Token::Op("-")) => Unary::Minus,
            Some(Token::Op("#")) => Unary::Length,
            _ => return self.postfix(),
        };
        self.at += 1;
        // Tighter than everything but `^`.
        let operand = self.deeper(|p| p.binary(POWER))?;
        Ok(Expr::Unary(op, Box::new(operand)))
    }

    /// A value with look-ups and method calls behind it.
    fn postfix(&mut self) -> Result<Expr, Finding> {
        let mut expr = self.primary()?;
        loop {
            if self.take(".") {
                let Some(Token::Name(name)) = self.peek().cloned() else {
                    return Err(self.unexpected("a name after `.`"));
                };
                self.at += 1;
                expr = Expr::Index(Box::new(expr), Box::new(Expr::Str(name)));
            } else if self.take("[") {
                let index = self.deeper(|p| p.binary(0))?;
                self.expect("]")?;
                expr = Expr::Index(Box::new(expr), Box::new(index));
            } else if self.take(":") {
                let range = self.range();
                let Some(Token::Name(name)) = self.peek().cloned() else {
                    return Err(self.unexpected("a name after `:`"));
                };
                self.at += 1;
                let Some(function) = find(STRING_FUNCTIONS, &name) else {
                    return Err(unsupported(range, &format!(":{name}")));
                };
                expr = self.call(function, &name, range, vec![expr])?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Finding> {
        let Some((token, range)) = self.next() else {
            self.at -= 1;
            return Err(self.unexpected("a value"));
        };
        match token {
            Token::Number(n) => Ok(Expr::Number(n)),
            Token::Str(s) => Ok(Expr::Str(s)),
            Token::Op("(") => {
                let expr = self.deeper(|p| p.binary(0))?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Op(_) => {
                self.at -= 1;
                Err(self.unexpected("a value"))
            }
            Token::Name(name) => self.named(&name, range),
        }
    }

    fn named(&mut self, name: &str, range: Range<usize>) -> Result<Expr, Finding> {
        match name {
            "nil" => return Ok(Expr::Nil),
            "true" => return Ok(Expr::Bool(true)),
            "false" => return Ok(Expr::Bool(false)),
            "and" | "or" | "not" => {
                self.at -= 1;
                return Err(self.unexpected("a value"));
            }
            _ => {}
        }
        let further = find(FURTHER_ROOTS, name).filter(|r| self.further.contains(r));
        if let Some(root) = find(ROOTS, name).or(further) {
            let (name, end) = self.looked_up();
            self.uses.push(Use { root, name, range: range.start..end.unwrap_or(range.end) });
            return Ok(Expr::Root(root));
        }
        if let Some(function) = find(GLOBAL_FUNCTIONS, name) {
            return self.call(function, name, range, Vec::new());
        }
        if name == "string" && self.take(".") {
            let end = self.range().end;
            if let Some((Token::Name(member), _)) = self.next() {
                let range = range.start..end;
                return match find(STRING_FUNCTIONS, &member) {
                    Some(function) => self.call(function, &member, range, Vec::new()),
                    None => Err(unsupported(range, &format!("string.{member}"))),
                };
            }
        }
        if LUA.contains(&name) {
            return Err(unsupported(range, name));
        }
        self.unknown(name, range)
    }

    /// The name that a table is about to be asked for, and where the question ends, if that is plain from the text.
    fn looked_up(&self) -> (Option<String>, Option<usize>) {
        let next = |i: usize| self.tokens.get(self.at + i);
        match (next(0), next(1), next(2)) {
            (Some((Token::Op("."), _)), Some((Token::Name(name), range)), _) => {
                (Some(name.clone()), Some(range.end))
            }
            (Some((Token::Op("["), _)), Some((Token::Str(name), _)), Some((Token::Op("]"), range))) => {
                (Some(name.clone()), Some(range.end))
            }
            _ => (None, None),
        }
    }

    /// Under Kong a name that means nothing is nil, and calling or indexing it answers every request with 500.
    fn unknown(&mut self, name: &str, range: Range<usize>) -> Result<Expr, Finding> {
        let (expr, message) = if self.take("(") {
            self.arguments()?;
            let what = format!("there is no function `{name}`");
            (Expr::Fail(what.clone()), format!("{what}, so every request that uses the template fails"))
        } else if matches!(self.peek(), Some(Token::Op("." | "[" | ":"))) {
            let message = format!("there is no `{name}`, so every request that uses the template fails");
            (Expr::Unknown, message)
        } else {
            (Expr::Unknown, format!("there is no `{name}`, so this is always empty"))
        };
        let further = FURTHER_ROOTS.iter().filter(|r| self.further.contains(&r.1));
        let known = ROOTS.iter().chain(further).map(|r| r.0).chain(GLOBAL_FUNCTIONS.iter().map(|f| f.0));
        let help = suggest::nearest(name, known).map(|n| format!("did you mean `{n}`?"));
        self.findings.push(Finding { range, message, help, fatal: false });
        Ok(expr)
    }

    fn call(
        &mut self,
        function: Function,
        name: &str,
        range: Range<usize>,
        mut values: Vec<Expr>,
    ) -> Result<Expr, Finding> {
        let given = values.len();
        self.expect("(")?;
        values.extend(self.arguments()?);
        let takes = if function == Function::Sub { 2..=3 } else { 1..=1 };
        if !takes.contains(&values.len()) {
            let (least, got) = (takes.start() - given, values.len() - given);
            let plural = if least == 1 { "value" } else { "values" };
            return Err(fatal(range, format!("`{name}` takes {least} {plural}, not {got}")));
        }
        Ok(Expr::Call(function, values))
    }

    /// The values up to and with the closing parenthesis.
    fn arguments(&mut self) -> Result<Vec<Expr>, Finding> {
        let mut values = Vec::new();
        if self.take(")") {
            return Ok(values);
        }
        loop {
            values.push(self.deeper(|p| p.binary(0))?);
            if self.take(")") {
                return Ok(values);
            }
            self.expect(",")?;
        }
    }
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}

fn unsupported(range: Range<usize>, name: &str) -> Finding {
    let mut finding = fatal(range, format!("`{name}` is not supported"));
    finding.help = Some(
        "gw does not run Lua; there are `headers`, `query_params`, `uri_captures`, literals, `or`, `and`, `not`, \
         comparison, `..`, arithmetic, `type`, `tostring`, `tonumber` and `string.upper`, `lower`, `len`, `sub`"
            .to_owned(),
    );
    finding
}

/// The strength of a unary operator's operand: only `^` binds tighter.
const POWER: u8 = 13;

/// An operator, how strongly it binds, and how strongly what follows must bind to belong to it (one more where it
/// groups to the left).
fn operator(token: &Token) -> Option<(Binary, u8, u8)> {
    let text = match token {
        Token::Op(op) => op,
        Token::Name(name) => name.as_str(),
        _ => return None,
    };
    Some(match text {
        "or" => (Binary::Or, 1, 2),
        "and" => (Binary::And, 3, 4),
        "==" => (Binary::Equal, 5, 6),
        "~=" => (Binary::Unequal, 5, 6),
        "<" => (Binary::Less, 5, 6),
        "<=" => (Binary::LessEqual, 5, 6),
        ">" => (Binary::Greater, 5, 6),
        ">=" => (Binary::GreaterEqual, 5, 6),
        ".." => (Binary::Concat, 7, 7),
        "+" => (Binary::Add, 9, 10),
        "-" => (Binary::Subtract, 9, 10),
        "*" => (Binary::Multiply, 11, 12),
        "/" => (Binary::Divide, 11, 12),
        "%" => (Binary::Modulo, 11, 12),
        "^" => (Binary::Power, 14, 13),
        _ => return None,
    })
}
