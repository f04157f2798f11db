//! The one normal form of a path: what routes match is what upstreams get.

/// Why a path has no normal form. Each is answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with `/`.
    NotAbsolute,
    /// `%` without two hexadecimal digits, or `%00`.
    BadEscape,
    /// An overlong form of a character, which decoders disagree about.
    Overlong,
    /// Dot segments lead above `/`.
    AboveRoot,
    /// An encoded slash or backslash stands beside a dot segment.
    HiddenSlash,
}

impl std::fmt::Display for PathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not begin with `/`",
            Self::BadEscape => "the path has an invalid escape",
            Self::Overlong => "the path has an overlong encoding",
            Self::AboveRoot => "the path leads above `/`",
            Self::HiddenSlash => "the path has an encoded slash beside a dot segment",
        })
    }
}

/// Kong's reserved characters: their escapes stay.
const RESERVED: &[u8] = b"!*'();:@&=+$,/?%#[]";

/// Writes the normal form of `raw` to `out`: escapes of unreserved bytes decoded, the others in upper case, dot segments
/// resolved, repeated slashes merged. Bytes that are no UTF-8 stay escaped.
pub fn normalise(raw: &str, out: &mut String) -> Result<(), PathError> {
    out.clear();
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    let odd = |w: &[u8]| w[0] == b'/' && matches!(w[1], b'/' | b'.');
    if !bytes.contains(&b'%') && !bytes.windows(2).any(odd) {
        out.push_str(raw);
        return Ok(());
    }
    let decoded = decode(bytes)?;
    segments(&decoded, out)
}

fn decode(bytes: &[u8]) -> Result<String, PathError> {
    let mut all = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] != b'%' {
            all.push(bytes[i]);
            i += 1;
            continue;
        }
        let digit = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(i + 1), digit(i + 2)) else { return Err(PathError::BadEscape) };
        let byte = (high * 16 + low) as u8;
        if byte == 0 {
            return Err(PathError::BadEscape);
        }
        if RESERVED.contains(&byte) {
            push_escape(&mut all, byte);
        } else {
            all.push(byte);
        }
        i += 3;
    }
    match String::from_utf8(all) {
        Ok(text) => Ok(text),
        Err(e) => keep_escaped(e.as_bytes()),
    }
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
}

/// Bytes of another encoding than UTF-8 go on as they came; overlong forms do not.
fn keep_escaped(bytes: &[u8]) -> Result<String, PathError> {
    let overlong = |w: &[u8]| {
        matches!(w[0], 0xc0 | 0xc1)
            || (w[0] == 0xe0 && matches!(w.get(1), Some(0x80..=0x9f)))
            || (w[0] == 0xf0 && matches!(w.get(1), Some(0x80..=0x8f)))
    };
    if (0..bytes.len()).any(|i| overlong(&bytes[i..])) {
        return Err(PathError::Overlong);
    }
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        for b in chunk.invalid() {
            push_escape(&mut out, *b);
        }
    }
    // Only valid chunks and ASCII escapes were written.
    Ok(String::from_utf8(out).unwrap_or_default())
}

fn segments(path: &str, out: &mut String) -> Result<(), PathError> {
    let mut parts = path[1..].split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "" => {}
            "." => {}
            ".." => match out.rfind('/') {
                Some(at) => out.truncate(at),
                None => return Err(PathError::AboveRoot),
            },
            _ => {
                if hides_dots(part) {
                    return Err(PathError::HiddenSlash);
                }
                out.push('/');
                out.push_str(part);
                continue;
            }
        }
        if last {
            out.push('/');
        }
    }
    Ok(())
}

/// Whether a segment would have dot segments, were its encoded slashes or its backslashes slashes.
fn hides_dots(part: &str) -> bool {
    if !part.contains("%2F") && !part.contains('\\') {
        return false;
    }
    part.split("%2F").flat_map(|p| p.split('\\')).any(|p| p == "." || p == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_normal_form() {
        for (raw, want) in [
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("//a///b/", Ok("/a/b/")),
            ("/a/./b", Ok("/a/b")),
            ("/a/../b", Ok("/b")),
            ("/a/..", Ok("/")),
            ("/a/b/..", Ok("/a/")),
            ("/a/.", Ok("/a/")),
            ("/a/.%2E/b", Ok("/b")),
            ("/%61dmin", Ok("/admin")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a%252fb", Ok("/a%252fb")),
            ("/a%20b", Ok("/a b")),
            ("/%C3%BC", Ok("/ü")),
            ("/%e9", Ok("/%E9")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/a/...", Ok("/a/...")),
            ("/..", Err(PathError::AboveRoot)),
            ("/a/../../b", Err(PathError::AboveRoot)),
            ("/%zz", Err(PathError::BadEscape)),
            ("/a%0", Err(PathError::BadEscape)),
            ("/a%00", Err(PathError::BadEscape)),
            ("/%c0%ae", Err(PathError::Overlong)),
            ("/a/..%2fb", Err(PathError::HiddenSlash)),
            ("/a%2f../b", Err(PathError::HiddenSlash)),
            ("/a%5c..%5cb", Err(PathError::HiddenSlash)),
            ("a", Err(PathError::NotAbsolute)),
        ] {
            let mut out = String::new();
            let got = normalise(raw, &mut out).map(|()| out.as_str());
            assert_eq!(got, want, "{raw}");
            if want.is_ok() {
                let mut again = String::new();
                if normalise(&out, &mut again).is_ok() && !out.contains(|c: char| !c.is_ascii() || c == ' ') {
                    assert_eq!(out, again, "{raw}: not a fixed point");
                }
            }
        }
    }
}
