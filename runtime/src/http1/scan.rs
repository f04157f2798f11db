//! Byte classes of RFC 9110 and 9112, and the field lines that requests and responses share.

use super::Reject;
use crate::message::Fields;
use crate::message::name::tag_of;

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;

static CLASS: [u8; 256] = {
    let mut t = [0_u8; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        if b.is_ascii_alphanumeric() {
            t[i] |= TOKEN;
        }
        if b == b'\t' || (b >= 0x20 && b != 0x7f) {
            t[i] |= VALUE;
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

/// Whether all bytes may stand in a field value.
#[inline]
pub fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| CLASS[*b as usize] & VALUE != 0)
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

/// Reads one field line (without its line end) and hands tag, name and value on.
#[inline]
pub fn field_line(line: &[u8]) -> Result<(u8, &[u8], &[u8]), Reject> {
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err(Reject::bad("a header line has no colon"));
    };
    let name = &line[..colon];
    if !is_token(name) {
        return Err(Reject::bad("a header name has a character that is not allowed"));
    }
    let value = trim(&line[colon + 1..]);
    if !is_value(value) {
        return Err(Reject::bad("a header value has a control character"));
    }
    Ok((tag_of(name), name, value))
}

/// The lines of a head after its first, without line ends. A bare LF or CR is left in its line, where it is refused.
pub fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let mut from = 0;
        loop {
            let at = from + memchr::memchr(b'\n', &rest[from..])?;
            if at > 0 && rest[at - 1] == b'\r' {
                let line = &rest[..at - 1];
                rest = &rest[at + 1..];
                return (!line.is_empty()).then_some(line);
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

/// Removes the fields that `Connection` names, save those that must not be removable by the other side.
pub fn remove_connection_named(fields: &mut Fields, connection: &[u8]) {
    for element in connection.split(|b| *b == b',').map(trim) {
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
        assert_eq!(all, [&b"a: 1"[..], b"b: 2\nc: 3"]);
        assert!(field_line(all[1]).is_err());
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
