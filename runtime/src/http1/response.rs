//! Response heads of upstreams. What cannot be told apart from an attack is refused, and becomes a 502.

use super::scan::{self, content_length, field_line, head_end, list_has};
use super::{Framing, Reject};
use crate::message::{ResponseHead, tags};

/// What a response says about its connection and body, beside its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of the head.
    pub len: usize,
    pub framing: Framing,
    pub keep_alive: bool,
    pub websocket: bool,
}

/// Longest response head.
const HEAD_MAX: usize = 64 * 1024;

/// Parses a response head. `method` decides about the body (RFC 9112 6.3).
pub fn parse(bytes: &[u8], method: &str, head: &mut ResponseHead) -> Result<Option<Meta>, Reject> {
    let end = head_end(bytes);
    if end.unwrap_or(bytes.len()) > HEAD_MAX {
        return Err(Reject::bad("the response's headers are too large"));
    }
    let Some(end) = end else {
        return incomplete(bytes).map(|()| None);
    };
    head.fields.clear();
    let line_end = memchr::memchr(b'\n', bytes).unwrap_or(0);
    let line =
        bytes[..line_end].strip_suffix(b"\r").ok_or(Reject::bad("a line ends with a bare line feed"))?;
    let http10 = status_line(line, head)?;
    let mut meta = Meta { len: end, keep_alive: !http10, ..Meta::default() };
    fields(&bytes[line_end + 1..end], method, head, &mut meta)?;
    Ok(Some(meta))
}

/// Refuses early what no further bytes can mend: an upstream that speaks something else, or with bare line feeds, would
/// be waited for until the timeout.
fn incomplete(bytes: &[u8]) -> Result<(), Reject> {
    if bytes.iter().zip(b"HTTP/1.").any(|(a, b)| a != b) {
        return Err(Reject::bad("the answer is not HTTP/1"));
    }
    match memchr::memchr(b'\n', bytes) {
        Some(at) if !bytes[..at].ends_with(b"\r") => Err(Reject::bad("a line ends with a bare line feed")),
        _ => Ok(()),
    }
}

fn status_line(line: &[u8], head: &mut ResponseHead) -> Result<bool, Reject> {
    const BAD: Reject = Reject::bad("the status line is malformed");
    let http10 = match line.get(..9) {
        Some(b"HTTP/1.1 ") => false,
        Some(b"HTTP/1.0 ") => true,
        _ => return Err(BAD),
    };
    let digits = line.get(9..12).ok_or(BAD)?;
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(line.get(12), None | Some(b' ')) {
        return Err(BAD);
    }
    head.status = digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    if head.status < 100 || !scan::is_value(line) {
        return Err(BAD);
    }
    Ok(http10)
}

fn fields(bytes: &[u8], method: &str, head: &mut ResponseHead, meta: &mut Meta) -> Result<(), Reject> {
    let mut length: Option<u64> = None;
    let mut chunked = false;
    let mut connection_named = false;
    let mut upgrade = false;
    let base = head.fields.adopt(bytes);
    for (at, line) in scan::lines(bytes) {
        let line = field_line(line)?;
        let value = line.value;
        match line.tag {
            tags::CONTENT_LENGTH => {
                let n = content_length(value)?;
                if length.is_some_and(|l| l != n) {
                    return Err(Reject::bad("the response has two different Content-Lengths"));
                }
                if length.replace(n).is_some() {
                    continue;
                }
            }
            tags::TRANSFER_ENCODING => {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reject::bad("the response's Transfer-Encoding is not `chunked`"));
                }
                chunked = true;
            }
            tags::CONNECTION => {
                if list_has(value, "close") {
                    meta.keep_alive = false;
                } else if list_has(value, "keep-alive") {
                    meta.keep_alive = true;
                }
                upgrade |= list_has(value, "upgrade");
                connection_named |= scan::names_fields(value);
            }
            tags::UPGRADE => meta.websocket = value.eq_ignore_ascii_case(b"websocket"),
            _ => {}
        }
        scan::keep(&mut head.fields, base, at, &line);
    }
    meta.websocket &= upgrade && head.status == 101;
    let bodyless = method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304);
    meta.framing = match (chunked, length) {
        (true, Some(_)) => {
            return Err(Reject::bad("the response has both Content-Length and Transfer-Encoding"));
        }
        _ if bodyless => Framing::None,
        (true, None) => Framing::Chunked,
        (false, Some(0)) => Framing::None,
        (false, Some(n)) => Framing::Length(n),
        (false, None) => Framing::UntilClose,
    };
    meta.keep_alive &= meta.framing != Framing::UntilClose;
    if connection_named {
        scan::remove_connection_named(&mut head.fields);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, method: &str) -> Result<Option<(ResponseHead, Meta)>, &'static str> {
        let mut head = ResponseHead::default();
        parse(text.as_bytes(), method, &mut head).map(|m| m.map(|m| (head, m))).map_err(|r| r.reason)
    }

    #[test]
    fn framing_follows_rfc_9112() {
        for (text, method, want, keep) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", Framing::None, true),
            ("HTTP/1.1 204\r\n\r\n", "GET", Framing::None, true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", Framing::None, true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", Framing::Chunked, true),
            ("HTTP/1.1 200 OK\r\n\r\n", "GET", Framing::UntilClose, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", "GET", Framing::Length(1), false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n",
                "GET",
                Framing::Length(1),
                false,
            ),
        ] {
            let (_, meta) = run(text, method).unwrap().unwrap();
            assert_eq!((meta.framing, meta.keep_alive), (want, keep), "{text:?}");
        }
    }

    #[test]
    fn ambiguous_responses_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: /a\rSet-Cookie: x=1\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            // These would never end.
            "SSH-2.0-OpenSSH_9.6\r\n",
            "HTTP/2",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            &format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(HEAD_MAX)),
        ] {
            assert!(run(text, "GET").is_err(), "{text:?}");
        }
        for text in ["", "HTT", "HTTP/1.1 200 OK\r", "HTTP/1.1 200 OK\r\n"] {
            assert!(run(text, "GET").unwrap().is_none(), "{text:?}");
        }
    }
}
