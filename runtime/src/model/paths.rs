//! Paths of services and routes: their form, their normal form, and how older formats wrote them.

use super::rules::Broken;
use crate::route::{PathError, normalise};

fn broken(message: String) -> Broken {
    Broken { message, ..Broken::default() }
}

/// Characters that stay percent-encoded in normal form: encoded and plain they mean different things.
const RESERVED: &[u8] = b"!*'();:@&=+$,/?%#[]";

/// Whether a byte may stand in a path without an escape. Beyond ASCII nothing is said: the normal form of `%C3%A9` is
/// the letter itself.
fn is_written_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || RESERVED.contains(&byte) || b"-._~".contains(&byte)
}

/// A path that begins with `/`, has no empty segment, only characters that RFC 3986 allows, and valid escapes.
pub(super) fn prefix(text: &str, shown: &str) -> Result<(), Broken> {
    if !text.starts_with('/') {
        return Err(Broken {
            message: format!("should start with: / (`{shown}`)"),
            help: None,
            better: (text == shown).then(|| format!("/{text}")),
        });
    }
    if text.contains("//") {
        return Err(broken(format!("must not have empty segments: `{shown}`")));
    }
    if !text.bytes().all(is_written_plain) {
        let message =
            format!("invalid path: '{shown}' (characters outside of the reserved list of RFC 3986 found)");
        return Err(Broken {
            message,
            help: Some("write other characters as `%XX`".to_owned()),
            better: None,
        });
    }
    for (i, _) in text.match_indices('%') {
        if escape(text.as_bytes(), i).is_none() {
            return Err(broken(format!(
                "invalid url-encoded value in `{shown}`: a `%` needs two hexadecimal digits"
            )));
        }
    }
    Ok(())
}

/// A path of a route: `/prefix` in normal form, or `~/regex`.
pub(super) fn route_path(text: &str, shown: &str) -> Result<(), Broken> {
    if let Some(pattern) = text.strip_prefix('~') {
        if !pattern.starts_with('/') {
            return Err(broken(format!(
                "should start with: / (fixed path) or ~/ (regex path), not `{shown}`"
            )));
        }
        return regex(pattern, shown);
    }
    if !text.starts_with('/') {
        return Err(Broken {
            message: format!("should start with: / (fixed path) or ~/ (regex path), not `{shown}`"),
            help: None,
            better: (text == shown && !text.is_empty()).then(|| format!("/{text}")),
        });
    }
    prefix(text, shown).map_err(|mut b| {
        if text.contains(['(', '\\', '^', '{']) {
            b.help = Some("a regular expression begins with `~/`".to_owned());
        }
        b
    })?;
    match normal_form(text) {
        Ok(normal) if normal == text => Ok(()),
        Ok(normal) if text == shown => Err(Broken {
            message: format!("non-normalized path, consider use '{normal}' instead"),
            help: None,
            better: Some(normal),
        }),
        Ok(_) => Err(broken(format!("non-normalized path `{shown}`"))),
        Err(why) => Err(broken(format!("no request can match `{shown}`: {why}"))),
    }
}

/// A regular expression of the linear-time engine.
pub(super) fn regex(text: &str, shown: &str) -> Result<(), Broken> {
    // A quick way out for what surely compiles: configs may hold very many.
    let simple = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~%".contains(&b);
    if text.bytes().all(simple) {
        return Ok(());
    }
    let Err(error) = regex::Regex::new(text) else { return Ok(()) };
    let error = error.to_string();
    let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
    let help = if error.contains("look-around") || error.contains("backreferences") {
        "look-around and backreferences are left out of the engine so that no pattern can take long; rewrite the pattern, or use several routes"
    } else {
        "patterns are in the syntax of the Rust `regex` crate"
    };
    Err(Broken {
        message: format!("invalid regex: '{shown}' ({reason})"),
        help: Some(help.to_owned()),
        better: None,
    })
}

/// The normal form of a path as a config writes it: that of requests, with escapes for what RFC 3986 does not allow to
/// be written as it is (a space, for instance).
pub(super) fn normal_form(path: &str) -> Result<String, PathError> {
    let mut normal = String::new();
    normalise(path, &mut normal)?;
    if normal.bytes().all(is_written_plain) {
        return Ok(normal);
    }
    let mut written = String::with_capacity(normal.len() + 8);
    for c in normal.chars() {
        match u8::try_from(c) {
            Ok(byte) if c.is_ascii() && !is_written_plain(byte) => written.push_str(&format!("%{byte:02X}")),
            _ => written.push(c),
        }
    }
    Ok(written)
}

/// What requests' normal form is compared with, for a path in [`normal_form`].
pub(super) fn matched(path: &str) -> Option<String> {
    let mut normal = String::new();
    normalise(path, &mut normal).is_ok().then_some(normal)
}

/// The byte that the escape at `at` stands for.
fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |b: u8| (b as char).to_digit(16);
    let (high, low) = (digit(*bytes.get(at + 1)?)?, digit(*bytes.get(at + 2)?)?);
    u8::try_from(high * 16 + low).ok()
}

/// A path of format 1.1 or 2.1 as format 3.0 writes it: what could be a pattern was one.
pub(super) fn migrated(path: &str) -> String {
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~/%-".contains(&b));
    if plain {
        return normal_form(path).unwrap_or_else(|_| path.to_owned());
    }
    let bytes = path.as_bytes();
    let mut pattern = vec![b'~'];
    let mut i = 0;
    while i < bytes.len() {
        match (bytes[i] == b'%').then(|| escape(bytes, i)).flatten() {
            Some(byte) if RESERVED.contains(&byte) && !b"*()+$?[]".contains(&byte) => {
                pattern.extend_from_slice(format!("%{byte:02X}").as_bytes());
                i += 3;
            }
            // Once decoded, a metacharacter would no longer be a character.
            Some(byte) => {
                if b"\\^$.[]|()?*+{}".contains(&byte) {
                    pattern.push(b'\\');
                }
                pattern.push(byte);
                i += 3;
            }
            None => {
                pattern.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8(pattern).unwrap_or_else(|_| format!("~{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let got = route_path(path, path).err().map(|b| b.message).unwrap_or_default();
        assert!(if expected.is_empty() { got.is_empty() } else { got.contains(expected) }, "{path}: {got}");
    }

    #[test]
    fn paths_of_routes_are_prefixes_in_normal_form_or_patterns() {
        for (path, expected) in [
            ("/", ""),
            ("/orders", ""),
            ("/orders/", ""),
            ("/a%2Fb", ""),
            ("/a+b:c@d", ""),
            ("orders", "should start with"),
            ("", "should start with"),
            ("//a", "must not have empty segments"),
            ("/a b", "characters outside"),
            ("/a%20b", ""),
            ("/a%7bid%7d", "consider use '/a%7Bid%7D' instead"),
            ("/a/..%2Fb", "no request can match"),
            ("/a%00", "no request can match"),
            ("/%C3%A9", "consider use '/é' instead"),
            ("/%FF", ""),
            ("/a%zz", "invalid url-encoded value"),
            ("/a/../b", "non-normalized path, consider use '/b' instead"),
            ("/./a", "consider use '/a' instead"),
            ("/a%2fb", "consider use '/a%2Fb' instead"),
            ("/%61", "consider use '/a' instead"),
            ("/../a", "climbs above"),
            ("~/a/(?<id>\\d+)$", ""),
            ("~/a(?!b)", "invalid regex"),
            ("~/a(b", "invalid regex"),
            ("~a", "should start with"),
        ] {
            check(path, expected);
        }
        assert_eq!(route_path("/x/${B}/../y", "masked").err().map(|b| b.message.contains("B}")), Some(false));
    }

    #[test]
    fn paths_of_older_formats_are_rewritten() {
        for (old, new) in [
            ("/a", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/\\d+$", "~/a/\\d+$"),
            ("/a(b)", "~/a(b)"),
            ("/a%2eb(c)", "~/a\\.b(c)"),
            ("/a%2Fb(c)", "~/a%2Fb(c)"),
        ] {
            assert_eq!(migrated(old), new, "{old}");
        }
    }
}
