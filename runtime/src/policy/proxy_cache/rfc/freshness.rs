//! RFC 9111, sections 3 and 4.2: what may be kept, for how long it is fresh, and how old it is.

use crate::message::{FieldName, Fields, names};
use crate::policy::proxy_cache::control::Directives;

/// Statuses that may be kept without being told so.
const HEURISTIC: &[u16] = &[200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
/// Other statuses whose meaning for a cache is known.
const UNDERSTOOD: &[u16] = &[302, 303, 307, 400, 401, 403, 500, 502, 503, 504];
/// Seconds at most for which something is guessed to be fresh.
const GUESS_MAX: u64 = 86_400;

/// What a response says about caching.
pub struct Said {
    directives: Directives,
    /// `Expires` counts: there is no field for gateways alone.
    expires: bool,
}

impl Said {
    /// Reads `CDN-Cache-Control` (RFC 9213), else `Cache-Control`.
    pub fn by(fields: &Fields) -> Self {
        const TARGETED: &str = "CDN-Cache-Control";
        let name = FieldName::new(TARGETED);
        let targeted = fields.contains(&name)
            && fields.all(&name).all(|v| std::str::from_utf8(v).is_ok_and(is_dictionary));
        match targeted {
            true => Self { directives: Directives::named(fields, TARGETED), expires: false },
            false => Self { directives: Directives::of(fields), expires: true },
        }
    }

    /// Whether a directive is there.
    pub fn has(&self, name: &str) -> bool {
        self.directives.has(name)
    }

    /// A directive's seconds: 0 where they are no number, so that nothing is kept by mistake.
    pub fn seconds(&self, name: &str) -> Option<u64> {
        if !self.directives.has(name) {
            return None;
        }
        Some(self.directives.whole_seconds(name).unwrap_or(0))
    }

    /// Whether it must not be given stale, whatever happens.
    pub fn is_strict(&self) -> bool {
        ["must-revalidate", "proxy-revalidate", "s-maxage", "no-cache"].iter().any(|d| self.has(d))
    }
}

/// Whether a text is a dictionary of RFC 9651 as directives are written: keys, alone or with an integer or a token. One
/// that is not says nothing at all.
fn is_dictionary(text: &str) -> bool {
    let key = |k: &str| {
        k.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
            && k.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
    };
    let integer = |v: &str| (1..=15).contains(&v.len()) && v.bytes().all(|b| b.is_ascii_digit());
    !text.trim().is_empty()
        && text.split(',').map(str::trim).all(|member| match member.split_once('=') {
            Some((k, v)) => {
                key(k) && (integer(v) || v.bytes().all(|b| b.is_ascii_alphabetic()) && !v.is_empty())
            }
            None => key(member),
        })
}

/// The seconds since 1970 of an HTTP date.
pub fn date(fields: &Fields, name: &str) -> Option<u64> {
    let name = FieldName::new(name);
    let mut values = fields.all(&name);
    let first = std::str::from_utf8(values.next()?).ok()?;
    // Two dates are none.
    if values.next().is_some() {
        return None;
    }
    let at = httpdate::parse_http_date(first.trim()).ok()?;
    Some(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
}

/// How many seconds a response is fresh; `None` where it may not be kept at all.
pub fn lifetime(request: &Fields, status: u16, response: &Fields, now_s: u64) -> Option<u64> {
    let said = Said::by(response);
    let known = HEURISTIC.contains(&status) || UNDERSTOOD.contains(&status);
    if !(200..600).contains(&status) || matches!(status, 206 | 304) || said.has("private") {
        return None;
    }
    match said.has("must-understand") {
        true if !known => return None,
        true => {}
        false if said.has("no-store") => return None,
        false => {}
    }
    if Directives::of(request).has("no-store") || response.contains(&FieldName::new("Set-Cookie")) {
        return None;
    }
    let allowed = ["public", "s-maxage", "must-revalidate"].iter().any(|d| said.has(d));
    if request.contains(&names::AUTHORIZATION) && !allowed {
        return None;
    }
    let varies_by_all =
        response.all(&names::VARY).any(|v| v.split(|b| *b == b',').any(|n| n.trim_ascii() == b"*"));
    if varies_by_all {
        return None;
    }
    if let Some(seconds) = said.seconds("s-maxage").or_else(|| said.seconds("max-age")) {
        return Some(seconds);
    }
    let came = date(response, "Date").unwrap_or(now_s);
    if said.expires && response.contains(&FieldName::new("Expires")) {
        // A date that is none has passed.
        return Some(date(response, "Expires").map_or(0, |at| at.saturating_sub(came)));
    }
    if HEURISTIC.contains(&status) || said.has("public") {
        let modified = date(response, "Last-Modified");
        return Some(modified.map_or(0, |at| (came.saturating_sub(at) / 10).min(GUESS_MAX)));
    }
    None
}

/// How old a response was when it came, in seconds.
pub fn age(response: &Fields, asked_s: u64, now_s: u64) -> u64 {
    let apparent = date(response, "Date").map_or(0, |at| now_s.saturating_sub(at));
    let name = FieldName::new("Age");
    let said = response.all(&name).next().and_then(|v| std::str::from_utf8(v).ok());
    let said = said.and_then(|text| text.split(',').next()?.trim().parse::<u64>().ok()).unwrap_or(0);
    apparent.max(said.saturating_add(now_s.saturating_sub(asked_s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        let mut fields = Fields::default();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            let (name, value) = line.split_once(':').expect("a field");
            fields.push(name.trim().as_bytes(), value.trim().as_bytes());
        }
        fields
    }

    const NOW: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT

    #[test]
    fn lifetimes_follow_the_standard() {
        for (request, status, response, want) in [
            ("", 200, "Cache-Control: max-age=60", Some(60)),
            ("", 200, "Cache-Control: max-age=60, s-maxage=5", Some(5)),
            ("", 200, "Cache-Control: max-age=\"60\"", Some(60)),
            ("", 200, "Cache-Control: max-age=abc", Some(0)),
            ("", 200, "Cache-Control: max-age=99999999999999999999", Some(u64::MAX)),
            ("", 200, "Cache-Control: no-store", None),
            ("", 200, "Cache-Control: private, max-age=60", None),
            ("", 200, "Cache-Control: max-age=60\nSet-Cookie: a=b", None),
            ("", 200, "Cache-Control: max-age=60\nVary: a, *", None),
            ("Cache-Control: no-store", 200, "Cache-Control: max-age=60", None),
            ("Authorization: x", 200, "Cache-Control: max-age=60", None),
            ("Authorization: x", 200, "Cache-Control: public, max-age=60", Some(60)),
            ("", 200, "Expires: Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            (
                "",
                200,
                "Date: Sun, 06 Nov 1994 08:50:07 GMT\nExpires: Sun, 06 Nov 1994 08:50:37 GMT",
                Some(30),
            ),
            ("", 200, "Expires: 0", Some(0)),
            ("", 200, "Cache-Control: max-age=9\nExpires: 0", Some(9)),
            ("", 200, "Last-Modified: Sun, 06 Nov 1994 08:48:37 GMT", Some(6)),
            ("", 201, "Last-Modified: Sun, 06 Nov 1994 08:48:37 GMT", None),
            ("", 201, "Cache-Control: max-age=9", Some(9)),
            ("", 206, "Cache-Control: max-age=9", None),
            ("", 299, "Cache-Control: max-age=9, no-store, must-understand", None),
            ("", 200, "Cache-Control: max-age=9, no-store, must-understand", Some(9)),
            ("", 200, "Cache-Control: no-store\nCDN-Cache-Control: max-age=7", Some(7)),
            ("", 200, "Cache-Control: max-age=3\nCDN-Cache-Control: max-age=\"7\"", Some(3)),
            ("", 200, "Cache-Control: max-age=3\nCDN-Cache-Control: max-age=7, &&", Some(3)),
            ("", 200, "", Some(0)),
        ] {
            let got = lifetime(&fields(request), status, &fields(response), NOW);
            assert_eq!(got, want, "{request} {status} {response}");
        }
    }

    #[test]
    fn ages_add_up() {
        for (response, asked, want) in [
            ("", NOW, 0),
            ("Age: 30", NOW - 2, 32),
            ("Age: -1", NOW, 0),
            ("Age: 7, 9", NOW, 7),
            ("Date: Sun, 06 Nov 1994 08:49:07 GMT", NOW, 30),
            ("Date: Sun, 06 Nov 1994 08:49:07 GMT\nAge: 5", NOW, 30),
            ("Date: soon", NOW, 0),
        ] {
            assert_eq!(age(&fields(response), asked, NOW), want, "{response}");
        }
    }
}
