//! Request heads: from bytes to a [`RequestHead`], refusing what RFC 9112 refuses and what proxies disagree about.

use super::scan::{self, content_length, field_line, head_end, is_target, is_token, list_has};
use super::{Framing, Reject};
use crate::message::{RequestHead, Version, names, tags};
use crate::model::gateway::Limits;

/// What a request says about its connection and body, beside its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of the head.
    pub len: usize,
    pub framing: Framing,
    pub keep_alive: bool,
    /// `Expect: 100-continue`.
    pub expect_continue: bool,
    /// A WebSocket handshake.
    pub websocket: bool,
    /// `TE: trailers`.
    pub te_trailers: bool,
    /// `OPTIONS *`.
    pub asterisk: bool,
}

/// Longest method; longer ones are no methods that anybody uses.
const METHOD_MAX: usize = 16;

/// Parses the head at the start of `bytes` into `head`. `Ok(None)`: more bytes are needed.
pub fn parse(bytes: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Option<Meta>, Reject> {
    let skipped = leading_empty_lines(bytes)?;
    let bytes = &bytes[skipped..];
    let Some(end) = head_end(bytes) else { return incomplete(bytes, limits).map(|()| None) };
    let line_end = memchr::memchr(b'\n', bytes).unwrap_or(0);
    if end - line_end > limits.header_bytes + 2 {
        return Err(Reject { status: 431, reason: "the request's headers are too large" });
    }
    head.clear();
    let mut meta = Meta { len: skipped + end, ..Meta::default() };
    let line =
        bytes[..line_end].strip_suffix(b"\r").ok_or(Reject::bad("a line ends with a bare line feed"))?;
    let absolute_host = request_line(line, limits, head, &mut meta)?;
    fields(&bytes[line_end + 1..end], limits, head, &mut meta, absolute_host)?;
    Ok(Some(meta))
}

/// RFC 9112 2.2: a few empty lines before a request are ignored.
fn leading_empty_lines(bytes: &[u8]) -> Result<usize, Reject> {
    let mut n = 0;
    while bytes[n..].starts_with(b"\r\n") {
        n += 2;
        if n > 8 {
            return Err(Reject::bad("too many empty lines before the request"));
        }
    }
    match bytes[n..] {
        [b'\n', ..] => Err(Reject::bad("a line ends with a bare line feed")),
        _ => Ok(n),
    }
}

/// Refuses early what no further bytes can mend.
fn incomplete(bytes: &[u8], limits: &Limits) -> Result<(), Reject> {
    // TLS, or something else that is not HTTP, has no line that could be waited for.
    let start = bytes.iter().take_while(|b| **b != b' ').take(METHOD_MAX);
    if bytes != b"\r" && !start.copied().all(is_method_byte) {
        return Err(Reject::bad("the request line is malformed"));
    }
    match memchr::memchr(b'\n', bytes) {
        None if bytes.len() > limits.uri + METHOD_MAX + 16 => Err(too_long_line(bytes)),
        None => Ok(()),
        Some(at) => {
            let line =
                bytes[..at].strip_suffix(b"\r").ok_or(Reject::bad("a line ends with a bare line feed"))?;
            request_line(line, limits, &mut RequestHead::default(), &mut Meta::default())?;
            let rest = &bytes[at + 1..];
            if rest.len() > limits.header_bytes {
                return Err(Reject { status: 431, reason: "the request's headers are too large" });
            }
            let mut from = 0;
            while let Some(i) = memchr::memchr(b'\n', &rest[from..]) {
                if from + i == 0 || rest[from + i - 1] != b'\r' {
                    return Err(Reject::bad("a line ends with a bare line feed"));
                }
                from += i + 1;
            }
            Ok(())
        }
    }
}

fn too_long_line(bytes: &[u8]) -> Reject {
    match memchr::memchr(b' ', bytes) {
        Some(at) if at <= METHOD_MAX => Reject { status: 414, reason: "the request target is too long" },
        _ => Reject { status: 501, reason: "the method is too long" },
    }
}

/// Refuses what is no method, in whichever version of HTTP it came: upstreams are told of it in HTTP/1.1.
pub fn check_method(method: &[u8]) -> Result<(), Reject> {
    if method.len() > METHOD_MAX && is_token(method) {
        return Err(Reject { status: 501, reason: "the method is too long" });
    }
    if method.is_empty() || !method.iter().copied().all(is_method_byte) {
        return Err(Reject::bad("the method is malformed"));
    }
    Ok(())
}

fn is_method_byte(b: u8) -> bool {
    b.is_ascii_uppercase() || matches!(b, b'-' | b'_')
}

/// Parses the request line. Returns the authority of an absolute-form target, which wins over `Host`.
fn request_line(
    line: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
    meta: &mut Meta,
) -> Result<Option<String>, Reject> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Reject::bad("the request line is malformed"));
    };
    check_method(method)?;
    (head.version, meta.keep_alive) = match version {
        b"HTTP/1.1" => (Version::H11, true),
        b"HTTP/1.0" => (Version::H10, false),
        v if v.starts_with(b"HTTP/") && v.len() == 8 => {
            return Err(Reject { status: 505, reason: "the HTTP version is not supported" });
        }
        _ => return Err(Reject::bad("the HTTP version is malformed")),
    };
    match method {
        b"GET" => head.method.push_str("GET"),
        b"POST" => head.method.push_str("POST"),
        _ => push_ascii(&mut head.method, method),
    }
    if target.len() > limits.uri {
        return Err(Reject { status: 414, reason: "the request target is too long" });
    }
    if !is_target(target) {
        return Err(Reject::bad("the request target has a character that is not allowed"));
    }
    if matches!(method, b"CONNECT" | b"TRACE") {
        return Err(Reject { status: 405, reason: "the method is not allowed" });
    }
    if target == b"*" {
        if method != b"OPTIONS" {
            return Err(Reject::bad("the target `*` is for OPTIONS only"));
        }
        meta.asterisk = true;
        head.raw_path.push('*');
        return Ok(None);
    }
    if target[0] == b'/' {
        set_target(head, target);
        return Ok(None);
    }
    let rest = strip_scheme(target).ok_or(Reject::bad("the request target is malformed"))?;
    let slash = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    match path.first() {
        Some(b'/') => set_target(head, path),
        _ => {
            head.raw_path.push('/');
            if let [b'?', query @ ..] = path {
                let mut q = String::new();
                push_ascii(&mut q, query);
                head.query = Some(q);
            }
        }
    }
    let mut host = String::new();
    set_host(&mut host, authority)?;
    Ok(Some(host))
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let lower = |n: usize| target.get(..n).map(<[u8]>::to_ascii_lowercase);
    if lower(7).as_deref() == Some(b"http://") {
        return Some(&target[7..]);
    }
    (lower(8).as_deref() == Some(b"https://")).then(|| &target[8..])
}

/// Splits a target that begins with `/` into path and query.
pub fn set_target(head: &mut RequestHead, target: &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(at) => {
            push_ascii(&mut head.raw_path, &target[..at]);
            let mut query = String::with_capacity(target.len() - at);
            push_ascii(&mut query, &target[at + 1..]);
            head.query = Some(query);
        }
        None => push_ascii(&mut head.raw_path, target),
    }
}

/// Appends bytes, escaping those beyond ASCII.
fn push_ascii(to: &mut String, bytes: &[u8]) {
    if bytes.is_ascii() {
        // ASCII is always UTF-8.
        to.push_str(std::str::from_utf8(bytes).unwrap_or_default());
        return;
    }
    for &b in bytes {
        if b.is_ascii() {
            to.push(b as char);
        } else {
            use std::fmt::Write as _;
            let _ = write!(to, "%{b:02X}");
        }
    }
}

/// Checks and keeps an authority: a host name or address, and perhaps a port.
pub fn set_host(to: &mut String, authority: &[u8]) -> Result<(), Reject> {
    const BAD: Reject = Reject::bad("the Host is malformed");
    let (name, port) = match authority {
        [b'[', ..] => {
            let close = memchr::memchr(b']', authority).ok_or(BAD)?;
            let inside = &authority[1..close];
            if !inside.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
                return Err(BAD);
            }
            (inside, &authority[close + 1..])
        }
        _ => {
            let colon = memchr::memchr(b':', authority).unwrap_or(authority.len());
            let allowed =
                |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'%' | b'*');
            if !authority[..colon].iter().all(allowed) {
                return Err(BAD);
            }
            authority.split_at(colon)
        }
    };
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && (digits.is_empty() || std::str::from_utf8(digits).is_ok_and(|d| d.parse::<u16>().is_ok()))
        }
        _ => false,
    };
    if name.is_empty() || name.len() > 255 || !port_ok {
        return Err(BAD);
    }
    to.clear();
    push_ascii(to, authority);
    Ok(())
}

fn fields(
    bytes: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
    meta: &mut Meta,
    absolute_host: Option<String>,
) -> Result<(), Reject> {
    let mut host_seen = false;
    let mut length: Option<u64> = None;
    let mut chunked = false;
    let mut upgrade = false;
    let mut websocket = false;
    let mut connection_named = false;
    let mut count = 0;
    let base = head.fields.adopt(bytes);
    for (at, line) in scan::lines(bytes) {
        let line = field_line(line)?;
        let value = line.value;
        count += 1;
        if count > limits.header_count {
            return Err(Reject { status: 431, reason: "the request has too many headers" });
        }
        match line.tag {
            tags::HOST => {
                if host_seen {
                    return Err(Reject::bad("the request has two Host headers"));
                }
                host_seen = true;
                set_host(&mut head.host, value)?;
                continue;
            }
            tags::CONTENT_LENGTH => {
                if length.is_some() {
                    return Err(Reject::bad("the request has two Content-Length headers"));
                }
                length = Some(content_length(value)?);
            }
            tags::TRANSFER_ENCODING => {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    let known = value.to_ascii_lowercase();
                    let unknown = !known.is_empty()
                        && !known.split(|b| *b == b',').any(|c| {
                            matches!(
                                scan::trim(c),
                                b"chunked" | b"gzip" | b"deflate" | b"compress" | b"identity" | b"x-gzip"
                            )
                        });
                    return Err(match unknown {
                        true => Reject { status: 501, reason: "the transfer coding is not supported" },
                        false => Reject::bad("the Transfer-Encoding is not `chunked`"),
                    });
                }
                chunked = true;
            }
            tags::CONNECTION => {
                if list_has(value, "close") {
                    meta.keep_alive = false;
                } else if head.version == Version::H10 && list_has(value, "keep-alive") {
                    meta.keep_alive = true;
                }
                upgrade |= list_has(value, "upgrade");
                connection_named |= scan::names_fields(value);
            }
            tags::AUTHORIZATION if head.fields.contains(&names::AUTHORIZATION) => {
                // Which of two counts is what parsers disagree about.
                return Err(Reject::bad("the request has two Authorization headers"));
            }
            tags::UPGRADE => websocket = value.eq_ignore_ascii_case(b"websocket"),
            tags::TE => meta.te_trailers |= list_has(value, "trailers"),
            tags::EXPECT => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reject { status: 417, reason: "the expectation is not supported" });
                }
                meta.expect_continue = head.version == Version::H11;
            }
            _ => {}
        }
        scan::keep(&mut head.fields, base, at, &line);
    }
    if let Some(host) = absolute_host {
        head.host = host;
    } else if !host_seen && head.version == Version::H11 {
        return Err(Reject::bad("the request has no Host header"));
    }
    meta.framing = match (chunked, length) {
        (true, Some(_)) => {
            return Err(Reject::bad("the request has both Content-Length and Transfer-Encoding"));
        }
        (true, None) if head.version == Version::H10 => {
            return Err(Reject::bad("Transfer-Encoding is not allowed in HTTP/1.0"));
        }
        (true, None) => Framing::Chunked,
        (false, Some(0) | None) => Framing::None,
        (false, Some(n)) => Framing::Length(n),
    };
    meta.websocket = upgrade && websocket && head.method == "GET" && head.version == Version::H11;
    if connection_named {
        scan::remove_connection_named(&mut head.fields);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Option<(RequestHead, Meta)>, u16> {
        let mut head = RequestHead::default();
        let limits = Limits::default();
        parse(text.as_bytes(), &limits, &mut head).map(|m| m.map(|m| (head, m))).map_err(|r| r.status)
    }

    #[test]
    fn a_plain_request_is_read() {
        let text = "GET /a%20b?x=1 HTTP/1.1\r\nHost: a.test:80\r\nX-A: b\r\n\r\nrest";
        let (head, meta) = run(text).unwrap().unwrap();
        assert_eq!(
            (head.method.as_str(), head.raw_path.as_str(), head.query.as_deref()),
            ("GET", "/a%20b", Some("x=1"))
        );
        assert_eq!(head.host, "a.test:80");
        assert_eq!(head.fields.len(), 1);
        assert_eq!(meta.len, text.len() - 4);
        assert!(meta.keep_alive && meta.framing == Framing::None);
    }

    #[test]
    fn refusals_have_their_status() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\n", 400),
            ("GET / HTTP/1.1\nHost: a\n\n", 400),
            ("\x16\x03\x01\x02", 400),
            ("get ", 400),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:22 HTTP/1.1\r\nHost: a:22\r\n\r\n", 405),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
            ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nExpect: y 100-continue\r\n\r\n", 417),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
            (&long, 414),
            (&many, 431),
        ] {
            assert_eq!(run(text).err(), Some(status), "{:?}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn more_bytes_may_be_needed() {
        for text in ["", "GE", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", "\r", "\r\n\r\n"] {
            assert!(run(text).unwrap().is_none(), "{text:?}");
        }
    }

    #[test]
    fn absolute_form_wins_over_host() {
        let (head, _) = run("GET http://gw.test/p?q HTTP/1.1\r\nHost: evil.test\r\n\r\n").unwrap().unwrap();
        assert_eq!(
            (head.host.as_str(), head.raw_path.as_str(), head.query.as_deref()),
            ("gw.test", "/p", Some("q"))
        );
        let (head, _) = run("GET http://gw.test HTTP/1.1\r\nHost: gw.test\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.raw_path, "/");
    }

    #[test]
    fn a_name_as_long_as_an_option_is_still_a_name() {
        for named in ["X-Foo", "X-Admin", "X-Internal", "X-A, close", "close,X-A"] {
            let name = named.trim_start_matches("close,").trim_end_matches(", close");
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {named}\r\n{name}: 1\r\n\r\n");
            let (head, _) = run(&text).unwrap().unwrap();
            assert!(head.fields.iter().all(|(n, _)| n != name.as_bytes()), "{named}");
        }
    }

    #[test]
    fn fields_named_by_connection_go() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Gone, Content-Length\r\nX-Gone: 1\r\nX-Here: 1\r\n\r\n";
        let (head, meta) = run(text).unwrap().unwrap();
        let names: Vec<_> =
            head.fields.iter().map(|(n, _)| String::from_utf8_lossy(n).into_owned()).collect();
        assert_eq!(names, ["Connection", "X-Here"]);
        assert!(!meta.keep_alive);
    }
}
