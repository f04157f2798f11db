//! Values of the environment in a config: `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `{vault://env/name}` and
//! `${{ env "DECK_NAME" }}`, in any string.
//!
//! A value from the environment is marked and never shown; what is shown instead is the reference (`${VAR}`).

use std::collections::HashMap;

use crate::diag::{Diagnostic, Diags, codes};
use crate::env::Env;
use crate::source::{Sources, Span};
use crate::yaml::{Node, Scalar, Value};

/// Top-level and entity keys whose text is nobody's value.
const LEFT_ALONE: &[&str] = &["_comment", "_ignore", "_info", "_konnect", "tests"];

/// Replaces every reference in the tree.
pub fn run(
    root: &mut Node<'_>,
    sources: &Sources,
    env: &Env,
    masked: &mut HashMap<Span, String>,
    diags: &mut Diags,
) {
    let text = &sources.file(root.span.file).text;
    if !text.contains("${") && !text.contains("{vault://") {
        return;
    }
    let vaults = vaults(root);
    Pass { sources, env, vaults, masked, diags }.node(root);
}

/// Prefix of variables by the prefix under which a vault is referred to.
fn vaults(root: &Node<'_>) -> HashMap<String, String> {
    let mut vaults = HashMap::from([("env".to_owned(), String::new())]);
    if let Some(Value::Sequence(items)) = root.get("vaults").map(|n| &n.value) {
        for vault in items {
            let is_env = vault.get("name").and_then(Node::text) == Some("env");
            if let (true, Some(prefix)) = (is_env, vault.get("prefix").and_then(Node::text)) {
                let variables = vault.get("config").and_then(|c| c.get("prefix")).and_then(Node::text);
                vaults.insert(prefix.to_owned(), variables.unwrap_or_default().to_owned());
            }
        }
    }
    vaults
}

struct Pass<'p> {
    sources: &'p Sources,
    env: &'p Env,
    vaults: HashMap<String, String>,
    masked: &'p mut HashMap<Span, String>,
    diags: &'p mut Diags,
}

/// Why a reference has no value: what happened and what to do. The place is a byte offset into the scalar's text.
struct Failure {
    at: usize,
    len: usize,
    message: String,
    help: String,
}

/// A text with its references replaced, and the same text as it may be shown.
#[derive(Default)]
struct Expanded {
    value: String,
    shown: String,
    /// The text was one reference and nothing else.
    whole: bool,
    /// Nothing came from the environment: only escapes were undone.
    open: bool,
}

impl Pass<'_> {
    fn node(&mut self, node: &mut Node<'_>) {
        match &mut node.value {
            Value::Sequence(items) => items.iter_mut().for_each(|n| self.node(n)),
            Value::Mapping(entries) => {
                for entry in entries.iter_mut().filter(|e| !LEFT_ALONE.contains(&e.key.as_ref())) {
                    self.node(&mut entry.value);
                }
            }
            Value::Scalar(scalar) if scalar.text.contains("${") || scalar.text.starts_with("{vault://") => {
                if !self.scalar(scalar, node.span) {
                    node.value = Value::Broken;
                }
            }
            Value::Scalar(_) | Value::Broken => {}
        }
    }

    fn scalar(&mut self, scalar: &mut Scalar<'_>, span: Span) -> bool {
        let expanded = if scalar.text.starts_with("{vault://") {
            self.vault(&scalar.text)
        } else {
            self.text(&scalar.text, 0)
        };
        match expanded {
            Ok(expanded) => {
                scalar.plain &= expanded.whole;
                scalar.text = expanded.value.into();
                scalar.masked = !expanded.open;
                if !expanded.open {
                    self.masked.insert(span, expanded.shown);
                }
                true
            }
            Err(failure) => {
                let place = self.place(scalar, span, &failure);
                self.diags
                    .push(Diagnostic::new(&codes::ENVIRONMENT, place, failure.message).help(failure.help));
                false
            }
        }
    }

    /// The part of a scalar that failed, if the text stands in the file as it is.
    fn place(&self, scalar: &Scalar<'_>, span: Span, failure: &Failure) -> Span {
        let written = self.sources.text(span);
        let skipped = usize::from(written.starts_with(['"', '\'']));
        if written.get(skipped..).is_some_and(|w| w.starts_with(scalar.text.as_ref())) {
            let start = span.start as usize + skipped + failure.at;
            Span::new(span.file, start, start + failure.len)
        } else {
            span
        }
    }

    /// Expands all references in a text that begins at `base` of the scalar.
    fn text(&self, text: &str, base: usize) -> Result<Expanded, Failure> {
        let mut out = Expanded { open: true, ..Expanded::default() };
        let mut at = 0;
        while let Some(found) = text[at..].find("${") {
            let start = at + found;
            if text[..start].ends_with('$') && start > at {
                out.push(&text[at..start - 1]);
                out.push("${");
                at = start + 2;
                continue;
            }
            out.push(&text[at..start]);
            let (value, shown, end) = self.reference(text, start, base)?;
            out.value.push_str(&value);
            out.shown.push_str(&shown);
            out.open = false;
            out.whole = start == 0 && end == text.len();
            at = end;
        }
        out.push(&text[at..]);
        Ok(out)
    }

    /// The reference that begins at `start`: its value, how it is shown, and where it ends.
    fn reference(&self, text: &str, start: usize, base: usize) -> Result<(String, String, usize), Failure> {
        let fail = |len: usize, message: String, help: &str| Failure {
            at: base + start,
            len,
            message,
            help: help.to_owned(),
        };
        if text[start..].starts_with("${{") {
            let Some(end) = text[start..].find("}}").map(|i| start + i + 2) else {
                return Err(fail(3, "a reference `${{` is not closed".to_owned(), "close it with `}}`"));
            };
            let name = deck_name(&text[start + 3..end - 2]).ok_or_else(|| {
                let help = "write `${{ env \"DECK_NAME\" }}` or `${NAME}`";
                fail(end - start, "a reference of this form is not known".to_owned(), help)
            })?;
            let value = self.env.var(name).ok_or_else(|| unset(base + start, end - start, name))?;
            return Ok((value, format!("${{{{ env \"{name}\" }}}}"), end));
        }
        let Some(end) = closing_brace(text, start + 2) else {
            let help = "close it with `}`; write `$${` where the text itself is meant";
            return Err(fail(2, "a reference `${` is not closed".to_owned(), help));
        };
        let (inside, len) = (&text[start + 2..end], end + 1 - start);
        let name_len = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
        let (name, rest) = inside.split_at(name_len);
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !is_name || !(rest.is_empty() || rest.starts_with(":-") || rest.starts_with(":?")) {
            let help = "write `${NAME}`, `${NAME:-default}` or `${NAME:?message}`, and `$${` where the text itself is meant";
            return Err(fail(len, "a reference of this form is not known".to_owned(), help));
        }
        let shown = format!("${{{name}}}");
        let value = self.env.var(name);
        if rest.is_empty() {
            let value = value.ok_or_else(|| unset(base + start, len, name))?;
            return Ok((value, shown, end + 1));
        }
        match value.filter(|v| !v.is_empty()) {
            Some(value) => Ok((value, shown, end + 1)),
            None if rest.starts_with(":-") => {
                let default = self.text(&rest[2..], base + start + 2 + name_len + 2)?;
                Ok((default.value, shown, end + 1))
            }
            None => Err(Failure {
                at: base + start,
                len,
                message: format!("environment variable `{name}` is not set: {}", &rest[2..]),
                help: format!("set `{name}` before gw starts"),
            }),
        }
    }

    /// `{vault://NAME/RESOURCE[/KEY][?OPTION][#VERSION]}`, which is a whole string.
    fn vault(&self, text: &str) -> Result<Expanded, Failure> {
        let fail = |message: String, help: String| Failure { at: 0, len: text.len(), message, help };
        let inside = text.strip_prefix("{vault://").and_then(|t| t.strip_suffix('}'));
        let path = inside.map(|t| t.split(['?', '#']).next().unwrap_or_default());
        let options = inside.and_then(|t| t.split('#').next()?.split_once('?')).map_or("", |(_, o)| o);
        let own_prefix = options.split('&').find_map(|o| o.strip_prefix("prefix="));
        let mut parts = path.unwrap_or_default().splitn(3, '/');
        let (Some(vault), Some(resource)) = (parts.next(), parts.next().filter(|r| !r.is_empty())) else {
            let help = "write `{vault://env/NAME}` or `{vault://env/NAME/JSON-KEY}`".to_owned();
            return Err(fail("a vault reference of this form is not known".to_owned(), help));
        };
        let key = parts.next().filter(|k| !k.is_empty());
        let Some(prefix) = self.vaults.get(vault) else {
            let help =
                "gw reads the vault `env`, and entries of `vaults` whose `name` is `env`, by their `prefix`";
            return Err(fail(format!("there is no vault `{vault}`"), help.to_owned()));
        };
        let prefix = own_prefix.unwrap_or(prefix);
        let name = format!("{prefix}{resource}").replace('-', "_").to_ascii_uppercase();
        let mut value = self.env.var(&name).ok_or_else(|| unset(0, text.len(), &name))?;
        if let Some(key) = key {
            let object: Option<serde_json::Value> = serde_json::from_str(&value).ok();
            value = match object.as_ref().and_then(|o| o.get(key)) {
                Some(serde_json::Value::String(s)) => s.clone(),
                Some(serde_json::Value::Null) | None => {
                    let message =
                        format!("environment variable `{name}` is no JSON object with the key `{key}`");
                    return Err(fail(
                        message,
                        "the last part of the reference is a key of the JSON object".to_owned(),
                    ));
                }
                Some(other) => other.to_string(),
            };
        }
        Ok(Expanded { value, shown: text.to_owned(), whole: true, open: false })
    }
}

impl Expanded {
    fn push(&mut self, text: &str) {
        self.value.push_str(text);
        self.shown.push_str(text);
    }
}

fn unset(at: usize, len: usize, name: &str) -> Failure {
    Failure {
        at,
        len,
        message: format!("environment variable `{name}` is not set"),
        help: format!("set `{name}` before gw starts, or give a default: `${{{name}:-value}}`"),
    }
}

/// The end of a reference whose inside begins at `from`: defaults may hold references of their own.
fn closing_brace(text: &str, from: usize) -> Option<usize> {
    let mut depth = 0;
    let mut at = from;
    while at < text.len() {
        match text.as_bytes()[at] {
            b'$' if text[at..].starts_with("${") => {
                depth += 1;
                at += 1;
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += text[at..].chars().next().map_or(1, char::len_utf8);
    }
    None
}

/// The name in ` env "DECK_X" `.
fn deck_name(inside: &str) -> Option<&str> {
    let quoted = inside.trim().strip_prefix("env")?.trim();
    let name = ['"', '\'', '`'].iter().find_map(|q| quoted.strip_prefix(*q)?.strip_suffix(*q))?;
    name.starts_with("DECK_").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{self, Budget, Core};

    /// The value of `v` with what it is shown as, or the finding with its place.
    fn outcome(text: &str) -> String {
        let env = Env::empty()
            .with("NAME", "value")
            .with("EMPTY", "")
            .with("PORT", "8080")
            .with("DECK_X", "deck")
            .with("MY_DB_PASS", "vaulted")
            .with("JSON", r#"{"user":"u","n":1}"#);
        let mut sources = Sources::default();
        let file = sources.add("t.yaml", text);
        let yaml::Parsed { tree, mut diags, .. } = yaml::parse(&sources, file, &Budget::default());
        let mut tree = tree.unwrap_or_else(|| panic!("{text}: {diags:?}"));
        let mut masked = HashMap::new();
        run(&mut tree, &sources, &env, &mut masked, &mut diags);
        if let Some(d) = diags.first() {
            return format!("!{} {}", sources.text(d.primary.span), d.message);
        }
        let node = tree.get("v").unwrap_or_else(|| panic!("{text} has no `v`"));
        let Value::Scalar(scalar) = &node.value else { panic!("{text}: not a scalar") };
        let shown = masked.get(&node.span).map(|s| format!(" shown {s}")).unwrap_or_default();
        match scalar.core() {
            Core::Int(n) => format!("{n}{shown}"),
            _ => format!("{:?}{shown}", scalar.text),
        }
    }

    #[test]
    fn references_become_values_that_are_not_shown() {
        for (text, expected) in [
            ("v: ${NAME}", r#""value" shown ${NAME}"#),
            ("v: \"a-${NAME}-b\"", r#""a-value-b" shown a-${NAME}-b"#),
            ("v: ${NOPE:-x y}", r#""x y" shown ${NOPE}"#),
            ("v: ${EMPTY:-x}", r#""x" shown ${EMPTY}"#),
            ("v: ${EMPTY}", r#""" shown ${EMPTY}"#),
            ("v: ${NOPE:-${NAME}/y}", r#""value/y" shown ${NOPE}"#),
            ("v: $${NAME}", r#""${NAME}""#),
            ("v: a$${NAME}${NAME}", r#""a${NAME}value" shown a${NAME}${NAME}"#),
            ("v: $(headers.x)", r#""$(headers.x)""#),
            ("v: '{vault://env/name}'", r#""value" shown {vault://env/name}"#),
            (
                "v: '{vault://env/db-pass?prefix=MY_#1}'",
                r#""vaulted" shown {vault://env/db-pass?prefix=MY_#1}"#,
            ),
            ("v: '{vault://env/json/user}'", r#""u" shown {vault://env/json/user}"#),
            (
                "v: '{vault://my-env/db-pass}'\nvaults: [{name: env, prefix: my-env, config: {prefix: MY_}}]",
                r#""vaulted" shown {vault://my-env/db-pass}"#,
            ),
            ("v: \"x ${{ env \\\"DECK_X\\\" }}\"", r#""x deck" shown x ${{ env "DECK_X" }}"#),
            ("v: ${{ env \"DECK_X\" }}", r#""deck" shown ${{ env "DECK_X" }}"#),
            ("_comment: ${NOPE}\nv: 1", "1"),
        ] {
            assert_eq!(outcome(text), expected, "{text}");
        }
    }

    #[test]
    fn only_a_plain_reference_that_is_the_whole_value_may_be_a_number() {
        assert_eq!(outcome("v: ${PORT}"), "8080 shown ${PORT}");
        assert_eq!(outcome("v: ${NOPE:-80}"), "80 shown ${NOPE}");
        assert_eq!(outcome("v: \"${PORT}\""), r#""8080" shown ${PORT}"#);
        assert_eq!(outcome("v: 1${PORT}"), r#""18080" shown 1${PORT}"#);
    }

    #[test]
    fn what_has_no_value_is_reported_where_it_stands() {
        for (text, expected) in [
            ("v: ${NOPE}", "!${NOPE} environment variable `NOPE` is not set"),
            ("v: \"http://${NOPE}/x\"", "!${NOPE} environment variable `NOPE` is not set"),
            ("v: ${NOPE:?ask ops}", "!${NOPE:?ask ops} environment variable `NOPE` is not set: ask ops"),
            ("v: ${EMPTY:?x}", "!${EMPTY:?x} environment variable `EMPTY` is not set: x"),
            ("v: ${NOPE:-${NADA}}", "!${NADA} environment variable `NADA` is not set"),
            ("v: ${a.b}", "!${a.b} a reference of this form is not known"),
            ("v: '${NAME'", "!${ a reference `${` is not closed"),
            ("v: '{vault://env/nope}'", "!{vault://env/nope} environment variable `NOPE` is not set"),
            ("v: '{vault://hcv/x}'", "!{vault://hcv/x} there is no vault `hcv`"),
            (
                "v: '{vault://env/name/k}'",
                "!{vault://env/name/k} environment variable `NAME` is no JSON object with the key `k`",
            ),
            ("v: ${{ env \"HOME\" }}", "!${{ env \"HOME\" }} a reference of this form is not known"),
        ] {
            assert_eq!(outcome(text), expected, "{text}");
        }
    }
}
