//! The path that the upstream gets (Kong's `path_handling`).

/// Writes to `out` the path for a service whose own path is `base`. `path` is in normal form; `matched_len` bytes of it were
/// matched by the route and go where `strip` says so.
pub fn upstream_path(base: &str, path: &str, matched_len: usize, strip: bool, v1: bool, out: &mut String) {
    out.clear();
    let rest = match strip {
        true => path.get(matched_len..).unwrap_or(""),
        false => path.strip_prefix('/').unwrap_or(path),
    };
    let rest = without_dots(rest);
    if base == "/" && !strip && !v1 {
        // By far the most common case.
        escape(path, out);
        return;
    }
    let joined = if v1 { join_v1(base, rest) } else { join_v0(base, path, rest, strip) };
    for part in joined {
        escape(part, out);
    }
}

/// What is left after stripping must not begin with a dot segment.
fn without_dots(rest: &str) -> &str {
    match rest {
        "." | ".." => "",
        _ => rest.strip_prefix("../").or_else(|| rest.strip_prefix("./")).unwrap_or(rest),
    }
}

fn join_v0<'a>(base: &'a str, path: &'a str, rest: &'a str, strip: bool) -> [&'a str; 3] {
    let slash_end = path.len() > 1 && path.ends_with('/');
    match (base.strip_suffix('/'), strip) {
        (Some(short), true) => match rest {
            "" if base == "/" => ["/", "", ""],
            "" if path.ends_with('/') => [base, "", ""],
            "" => [short, "", ""],
            _ if rest.starts_with('/') => [short, rest, ""],
            _ => [base, rest, ""],
        },
        (Some(_), false) => [base, rest, ""],
        (None, true) => match rest {
            "" if slash_end => [base, "/", ""],
            "" => [base, "", ""],
            _ if rest.starts_with('/') => [base, rest, ""],
            _ => [base, "/", rest],
        },
        (None, false) if path == "/" => [base, "", ""],
        (None, false) => [base, "/", rest],
    }
}

fn join_v1<'a>(base: &'a str, rest: &'a str) -> [&'a str; 3] {
    match base.ends_with('/') && rest.starts_with('/') {
        true => [base, &rest[1..], ""],
        false => [base, rest, ""],
    }
}

/// Escapes what may not stand in a request line.
fn escape(text: &str, out: &mut String) {
    const PLAIN: &[u8] = b"!#$&'()*+,/:;=?@[]-_.~%";
    let plain = |b: u8| b.is_ascii_alphanumeric() || PLAIN.contains(&b);
    if text.bytes().all(plain) {
        out.push_str(text);
        return;
    }
    for b in text.bytes() {
        if plain(b) {
            out.push(b as char);
        } else {
            use std::fmt::Write as _;
            let _ = write!(out, "%{b:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, route: &str, strip: bool, path: &str, v0: &str, v1: &str) {
        let mut out = String::new();
        upstream_path(base, path, route.len(), strip, false, &mut out);
        assert_eq!(out, v0, "v0 {base} {route} {strip} {path}");
        upstream_path(base, path, route.len(), strip, true, &mut out);
        assert_eq!(out, v1, "v1 {base} {route} {strip} {path}");
    }

    #[test]
    fn paths_join_as_kong_joins_them() {
        check("/service", "/route", true, "/routereq", "/service/req", "/servicereq");
        check("/service", "/route", false, "/route", "/service/route", "/serviceroute");
        check("/srv/", "/rou", true, "/rou", "/srv", "/srv/");
        check("/service", "/route/", true, "/route/", "/service/", "/service");
        check("/", "/route", true, "/route/", "/", "/");
        check("/", "/a", false, "/a b", "/a%20b", "/a%20b");
    }
}
