//! GraphQL documents (October 2021), as much of them as limits need: operations, fragments, fields, integers in arguments.

use ahash::AHashMap;

/// A document that can be executed.
#[derive(Debug, Default)]
pub struct Document {
    pub operations: Vec<Operation>,
    pub fragments: AHashMap<String, Vec<Selection>>,
    /// Directives in all.
    pub directives: usize,
}

/// A query, mutation or subscription.
#[derive(Debug)]
pub struct Operation {
    pub kind: Kind,
    pub selections: Vec<Selection>,
    /// Whole numbers that variables have by default.
    pub defaults: Vec<(String, i64)>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Query,
    Mutation,
    Subscription,
}

/// A part of a selection set.
#[derive(Debug)]
pub enum Selection {
    Field(Field),
    /// `...name`
    Spread(String),
    /// `... on Type { }`
    Inline(Vec<Selection>),
}

/// A field.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub aliased: bool,
    /// Arguments that are whole numbers or variables.
    pub arguments: Vec<(String, Argument)>,
    pub selections: Vec<Selection>,
}

/// An argument's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    Int(i64),
    Variable(String),
}

/// What is wrong with a document; where, as a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub at: usize,
    pub what: String,
    /// It is more than is allowed, not malformed.
    pub excessive: bool,
}

/// Sets and values within each other that the parser itself bears.
const NESTING: usize = 128;

/// Reads a document of at most `tokens` tokens.
///
/// # Errors
/// It is malformed, or exceeds a bound.
pub fn parse(text: &str, tokens: usize) -> Result<Document, Fault> {
    let mut parser =
        Parser { text, at: 0, token: Token::End, start: 0, left: tokens, nesting: 0, directives: 0 };
    parser.advance()?;
    let mut document = Document::default();
    while parser.token != Token::End {
        parser.definition(&mut document)?;
    }
    document.directives = parser.directives;
    match document.operations.is_empty() {
        true => Err(parser.bad("the document has no operation")),
        false => Ok(document),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    Punctuator(char),
    Spread,
    Int(&'a str),
    Float,
    Text,
    End,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    token: Token<'a>,
    /// Where the token begins.
    start: usize,
    left: usize,
    nesting: usize,
    directives: usize,
}

impl<'a> Parser<'a> {
    fn bad(&self, what: impl Into<String>) -> Fault {
        Fault { at: self.start, what: what.into(), excessive: false }
    }

    fn advance(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n' | b',') => self.at += 1,
                Some(b'#') => {
                    let rest = &bytes[self.at..];
                    self.at += rest.iter().take_while(|b| !matches!(b, b'\r' | b'\n')).count();
                }
                Some(0xef) if self.text[self.at..].starts_with('\u{feff}') => self.at += 3,
                _ => break,
            }
        }
        self.start = self.at;
        if self.left == 0 {
            return Err(Fault { at: self.at, what: "too many tokens".to_owned(), excessive: true });
        }
        self.left -= 1;
        let rest = &self.text[self.at..];
        let length;
        (self.token, length) = match rest.bytes().next() {
            None => (Token::End, 0),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => {
                let n = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                (Token::Name(&rest[..n]), n)
            }
            Some(b'-' | b'0'..=b'9') => {
                let n =
                    crate::json::number_length(rest.as_bytes()).map_err(|_| self.bad("malformed number"))?;
                let text = &rest[..n];
                let whole = !text.contains(['.', 'e', 'E']);
                (if whole { Token::Int(text) } else { Token::Float }, n)
            }
            Some(b'"') => (Token::Text, self.string(rest)?),
            Some(b'.') if rest.starts_with("...") => (Token::Spread, 3),
            Some(
                b
                @ (b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|' | b'}'),
            ) => (Token::Punctuator(char::from(b)), 1),
            Some(_) => return Err(self.bad("unexpected character")),
        };
        self.at += length;
        Ok(())
    }

    /// The length of the string that `rest` begins with.
    fn string(&self, rest: &str) -> Result<usize, Fault> {
        let unended = || self.bad("a string does not end");
        if let Some(body) = rest.strip_prefix("\"\"\"") {
            let mut at = 0;
            loop {
                let end = at + body[at..].find("\"\"\"").ok_or_else(unended)?;
                if !body[..end].ends_with('\\') {
                    return Ok(end + 6);
                }
                at = end + 3;
            }
        }
        let mut escaped = false;
        for (i, b) in rest.bytes().enumerate().skip(1) {
            match b {
                b'\n' | b'\r' => break,
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Ok(i + 1),
                _ => {}
            }
        }
        Err(unended())
    }

    fn eat(&mut self, c: char) -> Result<bool, Fault> {
        let there = self.token == Token::Punctuator(c);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn want(&mut self, c: char) -> Result<(), Fault> {
        match self.eat(c)? {
            true => Ok(()),
            false => Err(self.bad(format!("expected `{c}`"))),
        }
    }

    fn name(&mut self) -> Result<&'a str, Fault> {
        match self.token {
            Token::Name(name) => {
                self.advance()?;
                Ok(name)
            }
            _ => Err(self.bad("expected a name")),
        }
    }

    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.nesting == NESTING {
            return Err(Fault { at: self.start, what: "nested too deeply".to_owned(), excessive: true });
        }
        self.nesting += 1;
        let result = f(self);
        self.nesting -= 1;
        result
    }

    fn definition(&mut self, document: &mut Document) -> Result<(), Fault> {
        if self.token == Token::Punctuator('{') {
            let selections = self.selections()?;
            document.operations.push(Operation { kind: Kind::Query, selections, defaults: Vec::new() });
            return Ok(());
        }
        let kind = match self.token {
            Token::Name("query") => Kind::Query,
            Token::Name("mutation") => Kind::Mutation,
            Token::Name("subscription") => Kind::Subscription,
            Token::Name("fragment") => return self.fragment(document),
            _ => return Err(self.bad("expected an operation or a fragment")),
        };
        self.advance()?;
        if let Token::Name(_) = self.token {
            self.advance()?;
        }
        let defaults = self.variables()?;
        self.directives()?;
        let selections = self.selections()?;
        document.operations.push(Operation { kind, selections, defaults });
        Ok(())
    }

    fn fragment(&mut self, document: &mut Document) -> Result<(), Fault> {
        self.advance()?;
        let at = self.start;
        let name = self.name()?;
        if name == "on" {
            return Err(self.bad("a fragment cannot be called `on`"));
        }
        if self.name()? != "on" {
            return Err(self.bad("expected `on`"));
        }
        self.name()?;
        self.directives()?;
        let selections = self.selections()?;
        match document.fragments.insert(name.to_owned(), selections) {
            None => Ok(()),
            Some(_) => {
                Err(Fault { at, what: format!("there is a fragment `{name}` already"), excessive: false })
            }
        }
    }

    /// Definitions of variables; gives back the whole numbers that they have by default.
    fn variables(&mut self) -> Result<Vec<(String, i64)>, Fault> {
        let mut defaults = Vec::new();
        if !self.eat('(')? {
            return Ok(defaults);
        }
        loop {
            self.want('$')?;
            let name = self.name()?.to_owned();
            self.want(':')?;
            self.type_reference()?;
            if self.eat('=')?
                && let Some(Argument::Int(n)) = self.value()?
            {
                defaults.push((name, n));
            }
            self.directives()?;
            if self.eat(')')? {
                return Ok(defaults);
            }
        }
    }

    fn type_reference(&mut self) -> Result<(), Fault> {
        if self.eat('[')? {
            self.deeper(Self::type_reference)?;
            self.want(']')?;
        } else {
            self.name()?;
        }
        self.eat('!').map(|_| ())
    }

    fn directives(&mut self) -> Result<(), Fault> {
        while self.eat('@')? {
            self.directives += 1;
            self.name()?;
            self.arguments()?;
        }
        Ok(())
    }

    fn arguments(&mut self) -> Result<Vec<(String, Argument)>, Fault> {
        let mut found = Vec::new();
        if !self.eat('(')? {
            return Ok(found);
        }
        loop {
            let name = self.name()?.to_owned();
            self.want(':')?;
            if let Some(value) = self.value()? {
                found.push((name, value));
            }
            if self.eat(')')? {
                return Ok(found);
            }
        }
    }

    /// A value, of which only whole numbers and variables are kept.
    fn value(&mut self) -> Result<Option<Argument>, Fault> {
        match self.token {
            Token::Int(text) => {
                self.advance()?;
                // A number that is too large is the largest.
                Ok(Some(Argument::Int(text.parse().unwrap_or(i64::MAX))))
            }
            Token::Float | Token::Text | Token::Name(_) => self.advance().map(|()| None),
            Token::Punctuator('$') => {
                self.advance()?;
                Ok(Some(Argument::Variable(self.name()?.to_owned())))
            }
            Token::Punctuator('[') => {
                self.advance()?;
                self.deeper(|p| {
                    while !p.eat(']')? {
                        p.value()?;
                    }
                    Ok(None)
                })
            }
            Token::Punctuator('{') => {
                self.advance()?;
                self.deeper(|p| {
                    while !p.eat('}')? {
                        p.name()?;
                        p.want(':')?;
                        p.value()?;
                    }
                    Ok(None)
                })
            }
            _ => Err(self.bad("expected a value")),
        }
    }

    fn selections(&mut self) -> Result<Vec<Selection>, Fault> {
        self.want('{')?;
        self.deeper(|p| {
            let mut all = Vec::new();
            loop {
                all.push(p.selection()?);
                if p.eat('}')? {
                    return Ok(all);
                }
            }
        })
    }

    fn selection(&mut self) -> Result<Selection, Fault> {
        if self.token == Token::Spread {
            self.advance()?;
            match self.token {
                Token::Name(name) if name != "on" => {
                    self.advance()?;
                    self.directives()?;
                    return Ok(Selection::Spread(name.to_owned()));
                }
                Token::Name(_) => {
                    self.advance()?;
                    self.name()?;
                }
                _ => {}
            }
            self.directives()?;
            return self.selections().map(Selection::Inline);
        }
        let mut name = self.name()?;
        let aliased = self.eat(':')?;
        if aliased {
            name = self.name()?;
        }
        let arguments = self.arguments()?;
        self.directives()?;
        let selections = match self.token {
            Token::Punctuator('{') => self.selections()?,
            _ => Vec::new(),
        };
        Ok(Selection::Field(Field { name: name.to_owned(), aliased, arguments, selections }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        for good in [
            "{a}",
            "\u{feff}query Q($n: Int! = 10, $l: [[Int!]]! = [1 2] @d) @x(a: \"}\") { a(first: $n) { ...F ... on T @i(if: true) { b } ... { c } } } fragment F on T { d: e(x: {a: [1, -2.5e3, \"\"\" \\\"\"\" } \"\"\"], b: null, c: ENUM}) }",
            "# comment }\nmutation { a } subscription S { b }",
            "query{a(s:\"\\\"}\")}",
        ] {
            assert!(parse(good, 1000).is_ok(), "{good}: {:?}", parse(good, 1000));
        }
        for (bad, want) in [
            ("", "the document has no operation"),
            ("{", "expected a name"),
            ("{}", "expected a name"),
            ("{a", "expected a name"),
            ("{a}}", "expected an operation or a fragment"),
            ("type A { b: C }", "expected an operation or a fragment"),
            ("{a(b:)}", "expected a value"),
            ("{a(b:\"x)}", "a string does not end"),
            ("{a(b:\"\"\"x)}", "a string does not end"),
            ("{a(b:01)}", "malformed number"),
            ("fragment F on T { a }", "the document has no operation"),
            ("{a} fragment F on T { a } fragment F on T { b }", "there is a fragment `F` already"),
            ("{\u{e9}}", "unexpected character"),
            ("query (n: Int) { a }", "expected `$`"),
        ] {
            assert_eq!(parse(bad, 1000).err().map(|f| f.what).as_deref(), Some(want), "{bad}");
        }
        for (start, more) in [("{a", "{a"), ("query($a:", "["), ("{a(b:", "["), ("{a(b:", "{c:")] {
            let fault = parse(&format!("{start}{}", more.repeat(100_000)), 1_000_000).unwrap_err();
            assert_eq!(fault.what, "nested too deeply", "{start}");
        }
        assert!(parse("{a(b:[[[[[[1]]]]]])}", 10).unwrap_err().excessive);
    }
}
