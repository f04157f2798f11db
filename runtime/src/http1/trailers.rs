//! Trailers: fields after a body. They come after everything was decided by the head, so what the head decides must not
//! come as one (RFC 9110 6.5.1).

use super::scan;
use crate::message::Fields;
use crate::message::name::OTHER;

/// Names that no trailer may have, beside those with a tag: framing, routing, authentication, modifiers of the request
/// and of the response.
const FORBIDDEN: &[&str] = &[
    "age",
    "authentication-info",
    "cache-control",
    "content-disposition",
    "content-language",
    "content-location",
    "content-range",
    "content-security-policy",
    "expires",
    "forwarded",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authentication-info",
    "range",
    "set-cookie",
    "strict-transport-security",
    "warning",
];
/// Beginnings of such names.
const FORBIDDEN_FAMILIES: &[&str] = &["accept-", "access-control-", "if-", "sec-", "x-forwarded-", "x-kong-"];

/// Whether a field may come after a body.
pub fn may_trail(tag: u8, name: &[u8]) -> bool {
    let begins =
        |family: &&str| name.get(..family.len()).is_some_and(|n| n.eq_ignore_ascii_case(family.as_bytes()));
    tag == OTHER
        && !FORBIDDEN.iter().any(|f| name.eq_ignore_ascii_case(f.as_bytes()))
        && !FORBIDDEN_FAMILIES.iter().any(begins)
}

/// The fields of trailer lines that may be passed on. The lines have been checked when they came.
pub fn fields_of(lines: &[u8]) -> Fields {
    let mut fields = Fields::default();
    for (_, line) in scan::lines(lines) {
        if let Ok(line) = scan::field_line(line)
            && may_trail(line.tag, line.name)
        {
            fields.push(line.name, line.value);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_head_decides_does_not_trail() {
        let lines = b"X-Sum: 1\r\nContent-Length: 3\r\nset-cookie: a\r\nAccess-Control-Allow-Origin: *\r\n\
            grpc-status: 0\r\nIf-Match: x\r\nAuthorization: y\r\nContent-Digest: z\r\n";
        let fields = fields_of(lines);
        let names: Vec<_> = fields.iter().map(|(n, _)| String::from_utf8_lossy(n).into_owned()).collect();
        assert_eq!(names, ["X-Sum", "grpc-status", "Content-Digest"]);
    }
}
