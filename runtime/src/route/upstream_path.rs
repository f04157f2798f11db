//! The path to ask of the upstream.

use super::normalise::push_escape;

/// Writes the path to ask of the upstream to `out`, replacing what is there.
///
/// `base` is the service's path (`/` if it has none), `path` the request's normal form, `matched_len` how much of it
/// the route's path matched (0: the route has no paths), `strip` the route's `strip_path`, `v1` whether the older of
/// Kong's two ways of joining applies (`path_handling: v1`, in the traditional flavor only).
pub fn upstream_path(base: &str, path: &str, matched_len: usize, strip: bool, v1: bool, out: &mut String) {
    out.clear();
    let base = if base.is_empty() { "/" } else { base };
    let rest = if strip && matched_len > 0 { path.get(matched_len..) } else { path.get(1..) };
    let rest = without_dots(rest.unwrap_or(""));
    let (base, rest) = match (v1, strip) {
        (true, true) => join_v1_stripped(base, rest),
        (true, false) => (base, path.get(1..).unwrap_or("")),
        (false, true) => return join_v0_stripped(base, rest, path, out),
        (false, false) => join_v0(base, path),
    };
    escape_onto(base, out);
    escape_onto(rest, out);
}

/// What `X-Forwarded-Prefix` says: the stripped prefix, if one was stripped that is more than `/`.
pub fn forwarded_prefix(path: &str, matched_len: usize, strip: bool) -> Option<&str> {
    let prefix = path.get(..matched_len)?;
    (strip && !matches!(prefix, "" | "/")).then_some(prefix)
}

/// Writes `path` to `out`, replacing what is there, with everything escaped that may not stand in a request line.
pub fn escape_path(path: &str, out: &mut String) {
    out.clear();
    escape_onto(path, out);
}

/// A byte prefix may end inside a segment; what is left must not turn into a dot segment.
fn without_dots(rest: &str) -> &str {
    if matches!(rest, "." | "..") {
        return "";
    }
    rest.strip_prefix("../").or_else(|| rest.strip_prefix("./")).unwrap_or(rest)
}

fn join_v1_stripped<'a>(base: &'a str, rest: &'a str) -> (&'a str, &'a str) {
    match (base.strip_suffix('/'), rest.starts_with('/')) {
        (Some(base), true) => (base, rest),
        _ => (base, rest),
    }
}

fn join_v0<'a>(base: &'a str, path: &'a str) -> (&'a str, &'a str) {
    match (base.ends_with('/'), path) {
        (true, _) => (base, path.get(1..).unwrap_or("")),
        (false, "/") => (base, ""),
        (false, _) => (base, path),
    }
}

fn join_v0_stripped(base: &str, rest: &str, path: &str, out: &mut String) {
    let bare = base.strip_suffix('/').unwrap_or(base);
    let directory = path.ends_with('/') && (path.len() > 1 || bare.len() < base.len());
    escape_onto(bare, out);
    match rest {
        "" if base == "/" || directory => out.push('/'),
        "" => {}
        _ if rest.starts_with('/') => escape_onto(rest, out),
        _ => {
            out.push('/');
            escape_onto(rest, out);
        }
    }
}

fn escape_onto(text: &str, out: &mut String) {
    if text.bytes().all(is_allowed) {
        out.push_str(text);
        return;
    }
    for byte in text.bytes() {
        if is_allowed(byte) { out.push(char::from(byte)) } else { push_escape(byte, out) }
    }
}

const ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let punctuation = b"!#$&'()*+,/:;=?@[]-_.~%";
    let mut i = 0;
    while i < punctuation.len() {
        allowed[punctuation[i] as usize] = true;
        i += 1;
    }
    allowed
};

fn is_allowed(byte: u8) -> bool {
    ALLOWED[byte as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Base, matched part, strip, path; the path in v0 and in v1.
    #[test]
    fn service_path_and_request_path_are_joined_as_kong_joins_them() {
        let cases = [
            ("/", "/", true, "/", "/", "/"),
            ("/", "/route", true, "/route", "/", "/"),
            ("/", "/route", true, "/route/", "/", "/"),
            ("/", "/route/", true, "/route/", "/", "/"),
            ("/", "/route", true, "/routereq", "/req", "/req"),
            ("/", "/route", false, "/route/req", "/route/req", "/route/req"),
            ("/service", "/route", true, "/routereq", "/service/req", "/servicereq"),
            ("/service", "/route", false, "/route", "/service/route", "/serviceroute"),
            ("/service", "/route/", true, "/route/", "/service/", "/service"),
            ("/service", "/route", true, "/route", "/service", "/service"),
            ("/service", "/route", true, "/route/", "/service/", "/service/"),
            ("/service", "/", false, "/", "/service", "/service"),
            ("/service", "", true, "/", "/service", "/service"),
            ("/service", "", true, "/route", "/service/route", "/serviceroute"),
            ("/srv/", "/", true, "/", "/srv/", "/srv/"),
            ("/srv/", "/rou", true, "/rou", "/srv", "/srv/"),
            ("/srv/", "/rou", true, "/rou/", "/srv/", "/srv/"),
            ("/srv/", "/rou", true, "/rou/te", "/srv/te", "/srv/te"),
            ("/srv/", "/rou", false, "/rou/te", "/srv/rou/te", "/srv/rou/te"),
            ("/base", "/foo", true, "/foo../secret", "/base/secret", "/basesecret"),
            ("/base", "/foo", true, "/foo./secret", "/base/secret", "/basesecret"),
            ("/base", "/foo", true, "/foo..", "/base", "/base"),
            ("/base", "/", true, "/a b|é\\", "/base/a%20b%7C%C3%A9%5C", "/basea%20b%7C%C3%A9%5C"),
            ("", "/", true, "/100%25/[x]", "/100%25/[x]", "/100%25/[x]"),
        ];
        for (base, matched, strip, path, v0, v1) in cases {
            for (is_v1, expected) in [(false, v0), (true, v1)] {
                let mut out = String::from("left over");
                upstream_path(base, path, matched.len(), strip, is_v1, &mut out);
                assert_eq!(out, expected, "{base} {matched} {strip} {path} v1={is_v1}");
            }
        }
    }

    #[test]
    fn only_a_stripped_prefix_is_forwarded() {
        assert_eq!(forwarded_prefix("/foo/x", 4, true), Some("/foo"));
        assert_eq!(forwarded_prefix("/foo/x", 4, false), None);
        assert_eq!(forwarded_prefix("/foo", 1, true), None, "stripping `/` strips nothing");
        assert_eq!(forwarded_prefix("/foo", 0, true), None);
    }
}
