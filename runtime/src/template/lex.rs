//! The tokens of an expression, as Lua spells them.

use std::ops::Range;

use super::Finding;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Name(String),
    Number(f64),
    Str(String),
    /// An operator or a bracket.
    Op(&'static str),
}

/// A token and where it stands in the template.
pub type Placed = (Token, Range<usize>);

/// Longer ones first.
const OPS: &[&str] = &[
    "..", "==", "~=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "^", "#", "(", ")", "[", "]", ".", ",",
    ":",
];

/// Splits an expression that begins at byte `base` of its template.
pub fn tokens(text: &str, base: usize) -> Result<Vec<Placed>, Finding> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let token = match bytes[at] {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
                Token::Name(text[start..at].to_owned())
            }
            b'0'..=b'9' => Token::Number(number(text, &mut at).ok_or_else(|| {
                fatal(base + start..base + at, format!("`{}` is no number", &text[start..at]))
            })?),
            b'.' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                Token::Number(number(text, &mut at).ok_or_else(|| {
                    fatal(base + start..base + at, format!("`{}` is no number", &text[start..at]))
                })?)
            }
            b'"' | b'\'' => Token::Str(
                string(text, &mut at)
                    .ok_or_else(|| fatal(base + start..base + text.len(), "this string has no end"))?,
            ),
            b'[' if bytes.get(at + 1) == Some(&b'[') => {
                let end = text[at + 2..]
                    .find("]]")
                    .ok_or_else(|| fatal(base + start..base + text.len(), "this string has no end"))?;
                at += 2 + end + 2;
                Token::Str(text[start + 2..at - 2].to_owned())
            }
            _ => match OPS.iter().find(|op| text[at..].starts_with(**op)) {
                Some(op) => {
                    at += op.len();
                    Token::Op(op)
                }
                None => {
                    let c = text[at..].chars().next().unwrap_or(' ');
                    let place = base + at..base + at + c.len_utf8();
                    return Err(fatal(place, format!("`{c}` is not part of the language")));
                }
            },
        };
        out.push((token, base + start..base + at));
    }
    Ok(out)
}

/// A finding that makes a template unusable.
pub fn fatal(range: Range<usize>, message: impl Into<String>) -> Finding {
    Finding { range, message: message.into(), help: None, fatal: true }
}

fn number(text: &str, at: &mut usize) -> Option<f64> {
    let bytes = text.as_bytes();
    let start = *at;
    let hex = bytes[start] == b'0' && matches!(bytes.get(start + 1), Some(b'x' | b'X'));
    while let Some(&b) = bytes.get(*at) {
        let after_exponent = *at > start && !hex && matches!(bytes[*at - 1], b'e' | b'E');
        // `1..2` is two numbers joined, not one with two points.
        let point = b == b'.' && bytes.get(*at + 1) != Some(&b'.');
        if b.is_ascii_alphanumeric() || point || (after_exponent && matches!(b, b'+' | b'-')) {
            *at += 1;
        } else {
            break;
        }
    }
    to_number(&text[start..*at])
}

/// A number as Lua reads one from text.
pub fn to_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().map(|n| sign * n as f64);
    }
    // Rust also reads `inf` and `nan`, which Lua does not.
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if plain { digits.parse::<f64>().ok().map(|n| sign * n) } else { None }
}

fn string(text: &str, at: &mut usize) -> Option<String> {
    let mut out = String::new();
    let quote = text.as_bytes()[*at] as char;
    let mut chars = text[*at + 1..].char_indices();
    while let Some((i, c)) = chars.next() {
        if c == quote {
            *at += 1 + i + 1;
            return Some(out);
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()?.1 {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            other => other,
        });
    }
    None
}
