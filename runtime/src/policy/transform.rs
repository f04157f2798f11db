//! What the transformers of requests and responses share: their rules as a config writes them.

use super::Cx;
use super::json_path::Target;
use crate::diag::{Diagnostic, codes};
use crate::message::FieldName;
use crate::model::schema::Record;
use crate::source::{Span, Spanned};
use crate::template::{Root, Template};

/// The stages, in order.
pub const STAGES: [&str; 5] = ["remove", "rename", "replace", "add", "append"];

/// `name:value` of a rule.
#[derive(Debug, Clone)]
pub struct Pair {
    pub name: String,
    pub value: String,
    /// Where the whole rule stands, and at which of its bytes the value begins.
    pub span: Span,
    pub value_at: usize,
    /// Length of the rule, to tell whether it stands in the file as it is.
    length: usize,
}

/// The names that a `remove` stage lists.
pub fn names(config: &Record, list: &str) -> Vec<Spanned<String>> {
    config.record("remove").map(|stage| stage.strings(list)).unwrap_or_default()
}

/// The pairs of a stage. One without a value is reported and makes it `None`.
pub fn pairs(config: &Record, stage: &str, list: &str, cx: &mut Cx<'_>) -> Option<Vec<Pair>> {
    let Some(stage) = config.record(stage) else { return Some(Vec::new()) };
    let texts = stage.strings(list);
    let pairs: Vec<Pair> = texts
        .iter()
        .filter_map(|text| {
            let pair = split(text);
            if pair.is_none() {
                cx.diags.push(
                    Diagnostic::new(
                        &codes::INVALID_VALUE,
                        text.span,
                        format!("key '{}' has no value", text.value),
                    )
                    .help("write `name:value`"),
                );
            }
            pair
        })
        .collect();
    (pairs.len() == texts.len()).then_some(pairs)
}

/// Splits at the first run of colons.
fn split(text: &Spanned<String>) -> Option<Pair> {
    let (name, rest) = text.split_once(':')?;
    let value = rest.trim_start_matches(':');
    if name.is_empty() || value.is_empty() {
        return None;
    }
    let value_at = text.len() - value.len();
    let (name, value) = (name.to_owned(), value.to_owned());
    Some(Pair { name, value, span: text.span, value_at, length: text.len() })
}

/// Fields that belong to a message's framing or connection: the gateway writes them itself, so a rule for one has no
/// effect.
const FRAMING: &[&str] =
    &["Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "TE", "Trailer"];

/// What a rule names.
pub enum Header {
    Known(FieldName),
    /// A field that rules have no effect on.
    Framing,
    /// No field name.
    Bad,
}

/// The header that a rule names: what is no name is reported as an error, framing as a warning.
pub fn header(name: &str, span: Span, cx: &mut Cx<'_>) -> Header {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        cx.report(&codes::INVALID_VALUE, span, format!("'{name}' is not a valid header name"));
        return Header::Bad;
    }
    if FRAMING.iter().any(|f| f.eq_ignore_ascii_case(name)) {
        cx.diags.push(
            Diagnostic::new(&codes::NO_EFFECT, span, format!("a rule for `{name}` has no effect"))
                .note("the field belongs to the framing of the message, which the gateway writes itself")
                .help("remove the rule"),
        );
        return Header::Framing;
    }
    Header::Known(FieldName::new(name))
}

/// What a rule for fields (`body`, `json`) or arguments names; only fields can be below the top level. A path that is none
/// is reported.
pub fn target(name: &str, span: Span, list: &str, cx: &mut Cx<'_>) -> Option<Target> {
    if list == "querystring" {
        return Some(Target::Name(name.to_owned()));
    }
    Target::parse(name).map_err(|message| cx.report(&codes::INVALID_VALUE, span, message)).ok()
}

/// Whether the text can be the name of a cookie; if not, that is reported.
pub fn is_cookie(name: &str, span: Span, cx: &mut Cx<'_>) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let good = !name.is_empty() && name.bytes().all(token);
    if !good {
        cx.report(&codes::INVALID_VALUE, span, format!("'{name}' is not a valid cookie name"));
    }
    good
}

/// Header pairs with names that are ready for use.
pub fn headers(pairs: Vec<Pair>, cx: &mut Cx<'_>) -> Option<Vec<(FieldName, Pair)>> {
    let mut out = Some(Vec::new());
    for pair in pairs {
        match header(&pair.name, pair.span, cx) {
            Header::Known(name) => {
                if let Some(list) = &mut out {
                    list.push((name, pair));
                }
            }
            Header::Framing => {}
            Header::Bad => out = None,
        }
    }
    out
}

/// Parses a template that stands `at` bytes into a text of `length` bytes at `span`, and reports what is wrong with it.
pub fn template(text: &str, span: Span, at: usize, length: usize, cx: &mut Cx<'_>) -> Option<Template> {
    template_with(text, &[], span, at, length, cx)
}

/// The same for a template that sees further tables.
pub fn template_with(
    text: &str,
    further: &[Root],
    span: Span,
    at: usize,
    length: usize,
    cx: &mut Cx<'_>,
) -> Option<Template> {
    let (template, findings) = Template::parse_with(text, further);
    let fatal = findings.iter().any(|f| f.fatal);
    for finding in findings {
        let code = if finding.fatal { &codes::TEMPLATE } else { &codes::TEMPLATE_FAILS };
        let place = place(span, at, length, &finding.range);
        let mut diagnostic = Diagnostic::new(code, place, finding.message);
        if let Some(help) = finding.help {
            diagnostic = diagnostic.help(help);
        }
        cx.diags.push(diagnostic);
    }
    (!fatal).then_some(template)
}

/// Where bytes of a template stand in the file, for a template `at` bytes into a text of `length` bytes.
pub fn place(span: Span, at: usize, length: usize, range: &std::ops::Range<usize>) -> Span {
    match within(span, length) {
        Some(start) => {
            let (from, to) = (start + at + range.start, start + at + range.end);
            Span::new(span.file, from, to.max(from + 1))
        }
        None => span,
    }
}

/// The template of a pair's value.
pub fn pair_template(pair: &Pair, cx: &mut Cx<'_>) -> Option<Template> {
    template(&pair.value, pair.span, pair.value_at, pair.length, cx)
}

/// Where the text itself begins: a plain scalar, or one in quotes without escapes. Others are pointed at whole.
fn within(span: Span, length: usize) -> Option<usize> {
    match (span.end - span.start) as usize {
        n if n == length => Some(span.start as usize),
        n if n == length + 2 => Some(span.start as usize + 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_split_at_the_first_run_of_colons() {
        for (text, want) in [
            ("a:b", Some(("a", "b", 2))),
            ("a:b:c", Some(("a", "b:c", 2))),
            ("a::b", Some(("a", "b", 3))),
            ("a: b", Some(("a", " b", 2))),
            ("a", None),
            ("a:", None),
            (":b", None),
        ] {
            let pair = split(&Spanned::new(text.to_owned(), Span::default()));
            let got = pair.as_ref().map(|p| (p.name.as_str(), p.value.as_str(), p.value_at));
            assert_eq!(got, want, "{text}");
        }
    }
}
