//! Byte classes of RFC 9110 and 9112, and the field lines that requests and responses share.

use super::Reject;
use crate::message::name::tag_of;
use crate::message::{Fields, names};

const TOKEN: u8 = 1;
const TARGET: u8 = 4;

static CLASS: [u8; 256] = {
    let mut t = [0_u8; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        if b.is_ascii_alphanumeric() {
            t[i] |= TOKEN;
        }
        if b > 0x20 && b != 0x7f && b != b'#' && b != b'\\' {
            t[i] |= TARGET;
        }
        i += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut k = 0;
    while k < marks.len() {
        t[marks[k] as usize] |= TOKEN;
        k += 1;
    }
    t
};

/// Whether all bytes are token characters, and there is one.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| CLASS[*b as usize] & TOKEN != 0)
}

/// Whether all bytes may stand in a field value: no control character but the tab.
#[inline]
pub fn is_value(bytes: &[u8]) -> bool {
    // No early end, so that many bytes are looked at in one step.
    !bytes.iter().fold(false, |bad, &b| bad | (b < 0x20 && b != b'\t') | (b == 0x7f))
}

/// Whether all bytes may stand in a request target (bytes beyond ASCII included: they are escaped on the way in).
pub fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| CLASS[*b as usize] & TARGET != 0)
}

/// Where the head in `bytes` ends: the offset after the empty line.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(i) = memchr::memchr(b'\n', &bytes[from..]) {
        let at = from + i;
        if at >= 3 && &bytes[at - 3..=at] == b"\r\n\r\n" {
            return Some(at + 1);
        }
        from = at + 1;
    }
    None
}

/// Optional white space removed at both ends.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A field's place in its line: `tag`, the name, and the value without white space around it.
pub struct Line<'a> {
    pub tag: u8,
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// The line is `name: value` and nothing else, so that it can go on as it came.
    pub plain: bool,
}

/// Adds a field out of a block that [`Fields::adopt`] has put at `base`; its line begins at `at` of the block.
#[inline]
pub fn keep(fields: &mut Fields, base: usize, at: usize, line: &Line<'_>) {
    if line.plain {
        fields.note(base + at, line.tag, line.name.len(), line.value.len());
    } else {
        fields.push_tagged(line.tag, line.name, line.value);
    }
}

/// Reads one field line (without its line end).
#[inline]
pub fn field_line(line: &[u8]) -> Result<Line<'_>, Reject> {
    let colon = line.iter().position(|b| CLASS[*b as usize] & TOKEN == 0).unwrap_or(line.len());
    if line.get(colon) != Some(&b':') || colon == 0 {
        return Err(Reject::bad(match memchr::memchr(b':', line) {
            None => "a header line has no colon",
            Some(_) => "a header name has a character that is not allowed",
        }));
    }
    let name = &line[..colon];
    let value = trim(&line[colon + 1..]);
    if !is_value(value) {
        return Err(Reject::bad("a header value has a control character"));
    }
    let plain = line.len() == colon + 2 + value.len() && line[colon + 1] == b' ';
    Ok(Line { tag: tag_of(name), name, value, plain })
}

/// The lines of a head after its first, without line ends, and where they begin. A bare LF or CR is left in its line,
/// where it is refused.
pub fn lines(head: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut from = start;
        loop {
            let at = from + memchr::memchr(b'\n', &head[from..])?;
            if at > start && head[at - 1] == b'\r' {
                let line = (start, &head[start..at - 1]);
                start = at + 1;
                return (!line.1.is_empty()).then_some(line);
            }
            from = at + 1;
        }
    })
}

/// A `Content-Length`: digits and nothing else.
pub fn content_length(value: &[u8]) -> Result<u64, Reject> {
    const BAD: Reject = Reject::bad("the Content-Length is not a number");
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).ok_or(BAD)
}

/// Whether a comma-separated list has this element, without case.
pub fn list_has(value: &[u8], element: &str) -> bool {
    value.split(|b| *b == b',').any(|e| trim(e).eq_ignore_ascii_case(element.as_bytes()))
}

/// Whether a `Connection` may name fields: it is more than one of the options that nearly all have.
pub fn names_fields(value: &[u8]) -> bool {
    let option = match value.len() {
        0 => return false,
        5 => "close",
        7 => "upgrade",
        10 => "keep-alive",
        _ => return true,
    };
    !value.eq_ignore_ascii_case(option.as_bytes())
}

/// Removes the fields that `Connection` names, save those that must not be removable by the other side.
pub fn remove_connection_named(fields: &mut Fields) {
    let named: Vec<Vec<u8>> = fields.all(&names::CONNECTION).map(<[u8]>::to_vec).collect();
    for element in named.iter().flat_map(|value| value.split(|b| *b == b',')).map(trim) {
        // These are the gateway's own business, or would change the message if a peer could drop them.
        let kept = ["close", "keep-alive", "upgrade", "te", "host", "content-length", "transfer-encoding"];
        if element.is_empty() || kept.iter().any(|k| element.eq_ignore_ascii_case(k.as_bytes())) {
            continue;
        }
        fields.retain(|_, name, _| !name.eq_ignore_ascii_case(element));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_at_an_empty_line_with_both_line_ends() {
        assert_eq!(head_end(b"a\r\n\r\nb"), Some(5));
        assert_eq!(head_end(b"a\n\nb"), None);
        assert_eq!(head_end(b"a\r\nb: c\r\n"), None);
        assert_eq!(head_end(b""), None);
    }

    #[test]
    fn lengths_are_digits_only() {
        for (text, want) in
            [("5", Some(5)), ("+5", None), ("0x5", None), ("5 5", None), ("-1", None), ("", None)]
        {
            assert_eq!(content_length(text.as_bytes()).ok(), want, "{text}");
        }
        assert!(content_length(b"99999999999999999999").is_err());
    }

    #[test]
    fn a_bare_line_feed_does_not_end_a_line() {
        let all: Vec<_> = lines(b"a: 1\r\nb: 2\nc: 3\r\n\r\n").collect();
        assert_eq!(all, [(0, &b"a: 1"[..]), (6, b"b: 2\nc: 3")]);
        assert!(field_line(all[1].1).is_err());
    }

    #[test]
    fn field_lines_are_strict() {
        let ok = |l: &[u8]| field_line(l).is_ok();
        assert!(ok(b"X-A:  b \t"));
        assert!(ok(b"X-A:"));
        assert!(!ok(b"X-A : b"));
        assert!(!ok(b" X-A: b"));
        assert!(!ok(b"X A: b"));
        assert!(!ok(b"garbage"));
        assert!(!ok(b"X: a\rb"));
        assert!(!ok(b"X: a\0b"));
        assert!(ok("X: ü".as_bytes()));
    }
}
