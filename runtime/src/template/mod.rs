//! Templates: text with `$(expression)` in it, as the request transformer takes them.
//!
//! Kong runs the expressions as Lua. gw has a small language of its own that reads the same: look-ups in `headers`,
//! `query_params` and `uri_captures`, literals, `or`, `and`, `not`, comparison, `..`, arithmetic and a few functions.
//! It is parsed at load, so mistakes show there and not in requests. Knows nothing of exchanges: see [`Lookup`].

mod eval;
mod lex;
mod parse;

use std::ops::Range;

pub use eval::{EvalError, Lookup, Value};
use parse::Expr;
pub use parse::{Root, Use};

/// A parsed template.
#[derive(Debug, Default)]
pub struct Template {
    parts: Vec<Part>,
    uses: Vec<Use>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Expr(Expr),
}

/// Something wrong in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Bytes of the template.
    pub range: Range<usize>,
    pub message: String,
    pub help: Option<String>,
    /// False for what can be run but fails or is empty in every request, as it is under Kong.
    pub fatal: bool,
}

impl Template {
    /// Parses a template. It is usable unless a finding is fatal.
    pub fn parse(text: &str) -> (Self, Vec<Finding>) {
        Self::parse_with(text, &[])
    }

    /// Parses a template that sees further tables than every template does.
    pub fn parse_with(text: &str, further: &[Root]) -> (Self, Vec<Finding>) {
        let (mut template, mut findings) = (Self::default(), Vec::new());
        let mut literal_from = 0;
        let mut at = 0;
        while let Some(found) = text[at..].find("$(").map(|i| at + i) {
            // What is never closed is text, as under Kong.
            let Some(length) = balanced(&text[found + 1..]) else {
                at = found + 2;
                continue;
            };
            let (inner, end) = (found + 2, found + 1 + length);
            template.push_text(&text[literal_from..found]);
            let expression = &text[inner..end - 1];
            match parse::expression(expression, inner, further, &mut template.uses, &mut findings) {
                Ok(expr) => template.parts.push(Part::Expr(expr)),
                Err(finding) => findings.push(finding),
            }
            (literal_from, at) = (end, end);
        }
        template.push_text(&text[literal_from..]);
        (template, findings)
    }

    fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.parts.push(Part::Text(text.to_owned()));
        }
    }

    /// Whether there is nothing to evaluate.
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|p| matches!(p, Part::Text(_)))
    }

    /// What the expressions look up, in order.
    pub fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// Whether it is an expression and nothing else, so that its value need not be a text.
    pub fn is_one_expression(&self) -> bool {
        matches!(self.parts[..], [Part::Expr(_)])
    }

    /// The text for a request; nil and false are empty.
    pub fn render(&self, lookup: &dyn Lookup) -> Result<String, EvalError> {
        self.render_with(lookup, |value, out| {
            out.push_str(&value.into_text());
            Ok(())
        })
    }

    /// The text for a request, where `write` says how a value stands in what is there already.
    pub fn render_with(
        &self,
        lookup: &dyn Lookup,
        mut write: impl FnMut(Value<'_>, &mut String) -> Result<(), EvalError>,
    ) -> Result<String, EvalError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Expr(expr) => write(eval::eval(expr, lookup)?, &mut out)?,
            }
        }
        Ok(out)
    }

    /// The value for a request: that of the expression where the template is nothing else, else its text.
    pub fn value<'a>(&self, lookup: &'a dyn Lookup) -> Result<Value<'a>, EvalError> {
        match &self.parts[..] {
            [Part::Expr(expr)] => eval::eval(expr, lookup),
            _ => self.render(lookup).map(Value::Str),
        }
    }
}

/// Length of the parenthesis that `text` begins with, to its end.
fn balanced(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Request;

    impl Lookup for Request {
        fn header(&self, name: &str) -> Value<'_> {
            match name.to_ascii_lowercase().as_str() {
                "x-one" => Value::Str("1".into()),
                "x-two" => Value::List(vec!["a".into(), "b".into()]),
                "x-word" => Value::Str("Word".into()),
                _ => Value::Nil,
            }
        }
        fn query(&self, name: &str) -> Value<'_> {
            match name {
                "q" => Value::Str("20".into()),
                "bare" => Value::Bool(true),
                _ => Value::Nil,
            }
        }
        fn capture(&self, name: &str) -> Value<'_> {
            match name {
                "user" | "1" => Value::Str("foo".into()),
                _ => Value::Nil,
            }
        }
    }

    /// What a template renders to, `!` and the message where it fails.
    fn check(text: &str, want: &str) {
        let (template, findings) = Template::parse(text);
        let fatal = findings.iter().find(|f| f.fatal);
        assert!(fatal.is_none(), "{text}: {fatal:?}");
        let got = template.render(&Request).unwrap_or_else(|e| format!("!{e}"));
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn templates_render() {
        for (text, want) in [
            ("plain", "plain"),
            ("a$(headers['x-one'])b$(uri_captures.user)", "a1bfoo"),
            ("$(headers.x_one)", ""),
            ("$(query_params.none)", ""),
            ("$(uri_captures[1])", "foo"),
            ("$(uri_captures.x or 'default')", "default"),
            ("$(uri_captures.x or query_params.y or \"d\")", "d"),
            ("$(query_params.q + 1)", "21"),
            ("$(query_params.q / 8)", "2.5"),
            ("$(7 % 3 - 2 * 3)", "-5"),
            ("$(-7 % 3)", "2"),
            ("$(2 ^ 3 ^ 2)", "512"),
            ("$(1e100)", "1e+100"),
            ("$(1/3)", "0.33333333333333"),
            ("$('a' .. 1 .. 'b')", "a1b"),
            ("$('it\\'s\\n')", "it's\n"),
            ("$([[raw]])", "raw"),
            ("$(headers['X-Two'][2])", "b"),
            ("$(headers['X-Two'])", "a, b"),
            (
                "$(type(headers[\"X-Two\"]) == \"table\" and headers[\"X-Two\"][1] .. \"-first\" or headers[\"X-Two\"])",
                "a-first",
            ),
            ("$(type(headers.none))", "nil"),
            ("$(query_params.bare)", "true"),
            ("$(query_params.q == '20' and 'same' or 'other')", "same"),
            ("$(query_params.q == 20)", ""),
            ("$(query_params.q ~= nil)", "true"),
            ("$(not query_params.none)", "true"),
            ("$(tonumber(query_params.q) >= 20 and 'big')", "big"),
            ("$('a' < 'b')", "true"),
            ("$(string.upper(headers['x-word']))", "WORD"),
            ("$(headers['x-word']:lower():sub(2, -2))", "or"),
            ("$(#headers['x-word'])", "4"),
            ("$(#headers['x-two'])", "2"),
            ("$(tostring(nil))", "nil"),
            ("$((query_params.q))", "20"),
            ("unbalanced $(headers.x", "unbalanced $(headers.x"),
            ("$(headers.none .. 'x')", "!a nil value cannot be joined with `..`"),
            ("$(headers.none + 1)", "!a nil value is no number"),
            ("$(headers.none.x)", "!a nil value cannot be indexed"),
            ("$(1 < 'a')", "!a number cannot be compared with a string"),
            ("$(headers['x-one'].y)", ""),
        ] {
            check(text, want);
        }
    }

    #[test]
    fn mistakes_are_found_at_load() {
        for (text, range, message, is_fatal) in [
            ("a$(headers.)", 11..11, "expected a name after `.`, found the end", true),
            ("$(1 +)", 5..5, "expected a value, found the end", true),
            ("$()", 2..2, "expected a value, found the end", true),
            ("$(1 2)", 4..5, "expected an operator or the end, found `2`", true),
            ("$('a)", 2..4, "this string has no end", true),
            ("$(\"a)\")", 2..4, "this string has no end", true),
            ("$(a @ b)", 4..5, "`@` is not part of the language", true),
            ("$(os.time())", 2..4, "`os` is not supported", true),
            ("$(string.rep('a', 9))", 2..12, "`string.rep` is not supported", true),
            ("$(function() end)", 2..10, "`function` is not supported", true),
            ("$(type())", 2..6, "`type` takes 1 value, not 0", true),
            (
                "$(ERROR())",
                2..7,
                "there is no function `ERROR`, so every request that uses the template fails",
                false,
            ),
            (
                "$(header.x)",
                2..8,
                "there is no `header`, so every request that uses the template fails",
                false,
            ),
            ("$(nothing)", 2..9, "there is no `nothing`, so this is always empty", false),
        ] {
            let (_, findings) = Template::parse(text);
            let first = findings.first().map(|f| (f.range.clone(), f.message.as_str(), f.fatal));
            assert_eq!(first, Some((range, message, is_fatal)), "{text}");
        }
        let (_, findings) = Template::parse("$(header.x)");
        assert_eq!(findings[0].help.as_deref(), Some("did you mean `headers`?"));
    }

    struct Documents(crate::json::Json);

    impl Lookup for Documents {
        fn header(&self, _: &str) -> Value<'_> {
            Value::Nil
        }
        fn query(&self, _: &str) -> Value<'_> {
            Value::Nil
        }
        fn capture(&self, _: &str) -> Value<'_> {
            Value::Nil
        }
        fn document(&self, root: Root) -> Option<&crate::json::Json> {
            (root == Root::Item).then_some(&self.0)
        }
        fn part(&self, name: &str) -> Option<&crate::json::Json> {
            (name == "a").then_some(&self.0)
        }
    }

    #[test]
    fn documents_are_looked_into() {
        let json = crate::json::parse(
            br#"{"n":1.50,"s":"x","l":[1,"b",[2]],"o":{"p":null}}"#,
            &crate::json::Limits::default(),
        )
        .unwrap();
        let lookup = Documents(json);
        for (text, want) in [
            ("$(parts.a.n)", "1.50"),
            ("$(parts.a.n + 1)", "2.5"),
            ("$(parts.a.n == 1.5)", "true"),
            ("$(parts.a.n < 2)", "true"),
            ("$(parts.a.s .. parts.a.n)", "x1.50"),
            ("$(parts.a.l)", "1,b"),
            ("$(parts.a.l[2])", "b"),
            ("$(#parts.a.l)", "3"),
            ("$(parts.a.o.p or 'none')", "none"),
            ("$(parts.b or 'none')", "none"),
            ("$(parts.b.c)", "!a nil value cannot be indexed"),
            ("$(item.s)", "x"),
            ("$(claims.sub or 'nobody')", "nobody"),
            ("$(type(parts.a.o))", "table"),
        ] {
            let all = [Root::Parts, Root::Item, Root::Claims];
            let (template, findings) = Template::parse_with(text, &all);
            assert!(findings.is_empty(), "{text}: {findings:?}");
            assert_eq!(template.render(&lookup).unwrap_or_else(|e| format!("!{e}")), want, "{text}");
        }
        let (template, _) =
            Template::parse_with("/a/$(parts.x.y)?$(parts['z w'])$(parts[item])", &[Root::Parts]);
        let uses = template.uses().iter().map(|u| (u.name.as_deref(), u.range.clone()));
        assert_eq!(uses.collect::<Vec<_>>(), [(Some("x"), 5..12), (Some("z w"), 18..30), (None, 33..38)]);
    }

    #[test]
    fn depth_is_bounded() {
        for text in ["(".repeat(5000), "not ".repeat(5000), "1+".repeat(5000), "-".to_owned()] {
            let close = ")".repeat(text.matches('(').count());
            let (_, findings) = Template::parse(&format!("$({text}1{close})"));
            assert_eq!(findings.iter().any(|f| f.fatal), text.len() > 1, "{}", text.len());
        }
    }
}
