//! The normal form of a request path, which router, policies and upstream all see.

use thiserror::Error;

/// Why a path has no normal form. All of these are 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    #[error("the path has a `%` that two hexadecimal digits do not follow")]
    InvalidEscape,
    #[error("the path contains the byte 0x{0:02x}, which must be escaped")]
    ForbiddenByte(u8),
    #[error("the path contains an escaped NUL")]
    Nul,
    #[error("the path contains an overlong UTF-8 sequence")]
    Overlong,
    #[error("the path climbs above `/`")]
    AboveRoot,
    #[error("the path has an escaped slash or backslash beside a dot segment")]
    EscapedSlashBesideDots,
}

/// What a raw byte of a path asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stays as it is.
    Plain,
    /// Begins an escape.
    Percent,
    Slash,
    Dot,
    Forbidden,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte <= b' ' as usize {
        classes[byte] = Class::Forbidden;
        byte += 1;
    }
    classes[0x7f] = Class::Forbidden;
    classes[b'\\' as usize] = Class::Forbidden;
    // A fragment never belongs in a request; `?` ends the path before this code sees it.
    classes[b'#' as usize] = Class::Forbidden;
    classes[b'?' as usize] = Class::Forbidden;
    classes[b'%' as usize] = Class::Percent;
    classes[b'/' as usize] = Class::Slash;
    classes[b'.' as usize] = Class::Dot;
    classes
};

/// Writes the normal form of `raw_path` (the request target without its query) to `out`, replacing what is there.
///
/// Escapes of bytes that RFC 3986 does not reserve are decoded once, those of reserved ones are kept with upper-case
/// digits; dot segments are resolved and runs of slashes merged. Escapes of control characters and of bytes that are
/// not UTF-8 are kept too, so the result is text and never a line break.
pub fn normalise(raw_path: &str, out: &mut String) -> Result<(), PathError> {
    out.clear();
    if raw_path.is_empty() {
        out.push('/');
        return Ok(());
    }
    if !raw_path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_normal(raw_path.as_bytes())? {
        out.push_str(raw_path);
        return Ok(());
    }
    rebuild(&raw_path[1..], out)
}

/// One scan: whether the path is its own normal form.
fn is_normal(path: &[u8]) -> Result<bool, PathError> {
    let mut normal = true;
    let mut after_slash = false;
    for &byte in path {
        match CLASSES[byte as usize] {
            Class::Plain => after_slash = false,
            Class::Slash => {
                normal &= !after_slash;
                after_slash = true;
            }
            // A segment that begins with a dot need not be a dot segment, but it is rare enough to look closer.
            Class::Dot => {
                normal &= !after_slash;
                after_slash = false;
            }
            Class::Percent => {
                normal = false;
                after_slash = false;
            }
            Class::Forbidden => return Err(PathError::ForbiddenByte(byte)),
        }
    }
    Ok(normal)
}

/// The slow road: segment by segment. `rest` is the path after its first slash.
fn rebuild(rest: &str, out: &mut String) -> Result<(), PathError> {
    let mut segments = rest.split('/').peekable();
    while let Some(raw) = segments.next() {
        let last = segments.peek().is_none();
        let start = out.len();
        out.push('/');
        decode(raw, out)?;
        let ends_as_directory = match &out[start + 1..] {
            "" => true,
            "." => true,
            ".." => {
                out.truncate(start);
                let parent = out.rfind('/').ok_or(PathError::AboveRoot)?;
                out.truncate(parent);
                if last {
                    out.push('/');
                }
                continue;
            }
            _ => false,
        };
        if ends_as_directory {
            out.truncate(start);
            if last {
                out.push('/');
            }
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(())
}

/// Decodes the escapes of one segment.
fn decode(raw: &str, out: &mut String) -> Result<(), PathError> {
    let bytes = raw.as_bytes();
    let segment_start = out.len();
    // Where the piece began that an escaped slash or backslash ends, if there was one.
    let mut piece_start = segment_start;
    let mut escaped_slash = false;
    let mut at = 0;
    while at < bytes.len() {
        let Some(percent) = memchr::memchr(b'%', &bytes[at..]) else {
            out.push_str(&raw[at..]);
            break;
        };
        out.push_str(&raw[at..at + percent]);
        at += percent;
        let byte = escaped(&bytes[at..])?;
        if byte >= 0x80 {
            at += decode_non_ascii(&bytes[at..], out)?;
            continue;
        }
        at += 3;
        match byte {
            0 => return Err(PathError::Nul),
            b'/' | b'\\' => {
                // Servers that decode once more would see a dot segment here.
                refuse_dots(&out[piece_start..])?;
                escaped_slash = true;
                out.push_str(if byte == b'/' { "%2F" } else { "\\" });
                piece_start = out.len();
            }
            _ if is_reserved(byte) || byte.is_ascii_control() => push_escape(byte, out),
            _ => out.push(char::from(byte)),
        }
    }
    if escaped_slash { refuse_dots(&out[piece_start..]) } else { Ok(()) }
}

fn refuse_dots(piece: &str) -> Result<(), PathError> {
    if matches!(piece, "." | "..") { Err(PathError::EscapedSlashBesideDots) } else { Ok(()) }
}

/// The byte that `%XX` at the start of `bytes` stands for.
fn escaped(bytes: &[u8]) -> Result<u8, PathError> {
    let digit = |i: usize| bytes.get(i).and_then(|&b| char::from(b).to_digit(16));
    match (digit(1), digit(2)) {
        (Some(high), Some(low)) => Ok((high * 16 + low) as u8),
        _ => Err(PathError::InvalidEscape),
    }
}

/// Decodes a run of escapes of non-ASCII bytes; returns how much of `bytes` it took.
fn decode_non_ascii(bytes: &[u8], out: &mut String) -> Result<usize, PathError> {
    let mut run = Vec::with_capacity(8);
    let mut taken = 0;
    while bytes.get(taken) == Some(&b'%') {
        let byte = escaped(&bytes[taken..])?;
        if byte < 0x80 {
            break;
        }
        run.push(byte);
        taken += 3;
    }
    for pair in run.windows(2) {
        // A second spelling of a shorter sequence: only ever written to slip past a comparison.
        if let [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f] = pair {
            return Err(PathError::Overlong);
        }
    }
    for chunk in run.utf8_chunks() {
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|&byte| push_escape(byte, out));
    }
    Ok(taken)
}

/// Appends `%XX`.
pub(super) fn push_escape(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Bytes whose escape means something else than the byte.
fn is_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'*'
            | b'\''
            | b'('
            | b')'
            | b';'
            | b':'
            | b'@'
            | b'&'
            | b'='
            | b'+'
            | b'$'
            | b','
            | b'/'
            | b'?'
            | b'%'
            | b'#'
            | b'['
            | b']'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, Result<&str, PathError>)]) {
        for (raw, expected) in cases {
            let mut out = String::from("left over");
            let result = normalise(raw, &mut out).map(|()| out.as_str());
            assert_eq!(result, *expected, "{raw}");
        }
    }

    #[test]
    fn paths_get_one_form() {
        check(&[
            ("/", Ok("/")),
            ("", Ok("/")),
            ("/a/b.c/~d", Ok("/a/b.c/~d")),
            ("/a/.hidden", Ok("/a/.hidden")),
            ("/foo/a/../bar", Ok("/foo/bar")),
            ("/foo//bar", Ok("/foo/bar")),
            ("//foo", Ok("/foo")),
            ("/foo///", Ok("/foo/")),
            ("/a/..", Ok("/")),
            ("/a/b/..", Ok("/a/")),
            ("/a/.", Ok("/a/")),
            ("/a/./b", Ok("/a/b")),
            ("/a/%2e%2E/b", Ok("/b")),
            ("/a/.%2e/b", Ok("/b")),
            ("/a//../b", Ok("/b")),
            ("/a...", Ok("/a...")),
            ("/a/...", Ok("/a/...")),
            ("/[1]", Ok("/[1]")),
        ]);
    }

    #[test]
    fn escapes_are_decoded_at_most_once_and_reserved_ones_kept() {
        check(&[
            ("/h%65llo", Ok("/hello")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/%7Euser", Ok("/~user")),
            ("/100%25", Ok("/100%25")),
            ("/%252e%252e/x", Ok("/%252e%252e/x")),
            ("/%7c%20", Ok("/| ")),
            ("/%3a%5B", Ok("/%3A%5B")),
            ("/caf%C3%a9", Ok("/café")),
            ("/café", Ok("/café")),
            ("/caf%e9/x", Ok("/caf%E9/x")),
            ("/%c3", Ok("/%C3")),
            ("/%c3%41", Ok("/%C3A")),
            ("/a%0d%0ab", Ok("/a%0D%0Ab")),
            ("/a%5cb", Ok("/a\\b")),
        ]);
    }

    #[test]
    fn hostile_paths_are_refused() {
        use PathError::*;
        check(&[
            ("/..", Err(AboveRoot)),
            ("/a/../../etc", Err(AboveRoot)),
            ("/%2e%2e/etc", Err(AboveRoot)),
            ("/a/..%2fadmin", Err(EscapedSlashBesideDots)),
            ("/a%2f..", Err(EscapedSlashBesideDots)),
            ("/a%2F%2e%2e%2Fb", Err(EscapedSlashBesideDots)),
            ("/a%2f./b", Err(EscapedSlashBesideDots)),
            ("/a%5c..%5cadmin", Err(EscapedSlashBesideDots)),
            ("/a\\..\\b", Err(ForbiddenByte(b'\\'))),
            ("/%zz", Err(InvalidEscape)),
            ("/a%", Err(InvalidEscape)),
            ("/a%4", Err(InvalidEscape)),
            ("/%é", Err(InvalidEscape)),
            ("/a%00", Err(Nul)),
            ("/%c0%ae%c0%ae/admin", Err(Overlong)),
            ("/%e0%80%ae", Err(Overlong)),
            ("/a b", Err(ForbiddenByte(b' '))),
            ("/a\u{7f}", Err(ForbiddenByte(0x7f))),
            ("/a#b", Err(ForbiddenByte(b'#'))),
            ("admin", Err(NotAbsolute)),
            ("*", Err(NotAbsolute)),
        ]);
    }

    #[test]
    fn a_normal_form_is_its_own_normal_form_once_escaped() {
        for raw in ["/a/%2e./b%20c/%C3%A9//x", "/a%2Fb%7C/..", "/%E9/.x"] {
            let (mut once, mut escaped, mut twice) = (String::new(), String::new(), String::new());
            normalise(raw, &mut once).unwrap();
            super::super::escape_path(&once, &mut escaped);
            normalise(&escaped, &mut twice).unwrap();
            assert_eq!(once, twice, "{raw}");
        }
    }
}
