//! The parser's errors in our words.

use granit_parser::{ErrorKind, ScanError};

use crate::diag::{Diagnostic, codes};
use crate::source::{FileId, Span};

/// The diagnostic for an error of the parser in `text`.
pub(super) fn diagnostic(error: &ScanError, file: FileId, text: &str) -> Diagnostic {
    let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
    let mut start = at;
    // At the end of the text there is nothing to point at: take the last thing that is there.
    if text.get(at..).is_none_or(|rest| rest.trim().is_empty()) {
        start = text.trim_end().char_indices().next_back().map_or(0, |(i, _)| i);
    }
    let width = text.get(start..).and_then(|t| t.chars().next()).map_or(0, char::len_utf8);
    let span = Span::new(file, start, start + width);
    let message = error.info();
    let message = message.lines().next().unwrap_or_default().trim_end_matches('.');
    let mut diagnostic =
        Diagnostic::new(&codes::SYNTAX, span, format!("invalid YAML: {}", decapitalised(message)));
    diagnostic.help = help(error.kind(), line_at(text, start)).map(str::to_owned);
    diagnostic
}

/// What to do, where the kind of error or the line suggests something.
fn help(kind: &ErrorKind, line: &str) -> Option<&'static str> {
    let unquoted = |mark: &str| {
        line.find(mark).is_some_and(|i| line[..i].matches(['"', '\'']).count().is_multiple_of(2))
    };
    Some(match kind {
        _ if unquoted("${") => {
            "a value with `${...}` must be quoted inside `{}` or `[]`, because braces end it there: \"${NAME}\""
        }
        _ if unquoted("{vault://") => "a vault reference must be quoted: \"{vault://env/name}\"",
        ErrorKind::TabInIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => "indent with spaces; YAML does not allow tabs there",
        ErrorKind::UnclosedQuotedScalar => "close the quotation mark",
        ErrorKind::UnclosedFlowCollection { open: '{' } => "close the `{` with `}`",
        ErrorKind::UnclosedFlowCollection { open: _ } => "close the `[` with `]`",
        ErrorKind::UnknownQuotedScalarEscape => {
            "in double quotes a backslash begins an escape: double it, or use single quotes"
        }
        ErrorKind::UnexpectedCharacter { character: '@' | '`' | '%' } => {
            "quote the value: a plain one cannot begin with this character"
        }
        ErrorKind::MappingValueNotAllowed => {
            "if the value has a `: ` in it, quote it; else check the indentation of this line and the one above"
        }
        ErrorKind::RecursionLimitExceeded => "the text is nested too deeply",
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation
        | ErrorKind::SimpleKeyExpected => "check the indentation of this line and the one above",
        _ => return None,
    })
}

fn line_at(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    &text[start..end]
}

fn decapitalised(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && !second.is_ascii_uppercase() => {
            first.to_ascii_lowercase().to_string() + chars.as_str()
        }
        _ => message.to_owned(),
    }
}
