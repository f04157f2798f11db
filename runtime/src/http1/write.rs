//! Heads and chunk frames as bytes.

use super::Framing;
use crate::message::{Fields, RequestHead, ResponseHead, Version, names, tags};

/// Whether a field belongs to one connection only, so that the codec alone writes it.
#[inline]
pub fn hop_by_hop(tag: u8) -> bool {
    HOP >> tag & 1 == 1
}

/// A bit for each tag, of which there are fewer than 64.
const HOP: u64 = 1 << tags::CONNECTION
    | 1 << tags::KEEP_ALIVE
    | 1 << tags::PROXY_CONNECTION
    | 1 << tags::TRANSFER_ENCODING
    | 1 << tags::TE
    | 1 << tags::TRAILER
    | 1 << tags::UPGRADE
    | 1 << tags::CONTENT_LENGTH
    | 1 << tags::EXPECT
    | 1 << tags::PROXY
    | 1 << tags::HTTP2_SETTINGS;

fn fields(out: &mut Vec<u8>, fields: &Fields) {
    fields.write_lines(out, hop_by_hop);
}

/// One field line.
#[inline]
pub fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length(out: &mut Vec<u8>, n: u64) {
    line(out, b"Content-Length", itoa::Buffer::new().format(n).as_bytes());
}

/// What an upstream request says beside its fields.
pub struct UpstreamLine<'a> {
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub host: &'a str,
    pub framing: Framing,
    pub websocket: bool,
    pub te_trailers: bool,
    /// `Expect: 100-continue` goes on to the upstream.
    pub expect_continue: bool,
}

/// An upstream request's head, after which the body follows as `framing` says.
pub fn request(out: &mut Vec<u8>, head: &RequestHead, to: &UpstreamLine<'_>) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(to.path.as_bytes());
    if let Some(query) = to.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    line(out, b"Host", to.host.as_bytes());
    out.extend_from_slice(match (to.websocket, to.te_trailers) {
        (true, _) => b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
        (false, true) => b"Connection: keep-alive\r\nTE: trailers\r\n".as_slice(),
        (false, false) => b"Connection: keep-alive\r\n",
    });
    fields(out, &head.fields);
    match to.framing {
        Framing::Chunked | Framing::UntilClose => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Length(n) => length(out, n),
        // RFC 9110 8.6: methods with a meaning for bodies say that there is none.
        Framing::None if matches!(head.method.as_str(), "POST" | "PUT" | "PATCH") => length(out, 0),
        Framing::None => {}
    }
    if to.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What a response to the client says beside its fields.
pub struct ClientLine {
    pub framing: Framing,
    pub version: Version,
    pub keep_alive: bool,
    /// The length that a response to HEAD, or a 304, states without having a body.
    pub stated_length: Option<u64>,
    /// The request was HEAD: nothing may be said about a length that nobody knows.
    pub head_only: bool,
}

/// A response's head for the client.
pub fn response(out: &mut Vec<u8>, head: &ResponseHead, to: &ClientLine) {
    status_line(out, head.status);
    fields(out, &head.fields);
    match to.framing {
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Length(n) => length(out, n),
        Framing::None => {
            if let Some(n) = to.stated_length {
                length(out, n);
            } else if !to.head_only && !matches!(head.status, 100..=199 | 204 | 304) {
                length(out, 0);
            }
        }
        Framing::UntilClose => {}
    }
    if head.status == 426
        && let Some(protocols) = head.fields.get(&names::UPGRADE)
    {
        // RFC 9110 15.5.22: the one response that must say what to upgrade to.
        line(out, b"Upgrade", protocols);
        let connection: &[u8] = if to.keep_alive { b"Upgrade" } else { b"Upgrade, close" };
        line(out, b"Connection", connection);
        out.extend_from_slice(b"\r\n");
        return;
    }
    out.extend_from_slice(match (to.keep_alive, to.version) {
        (true, Version::H10) => b"Connection: keep-alive\r\n\r\n".as_slice(),
        (true, _) => b"\r\n",
        (false, _) => b"Connection: close\r\n\r\n",
    });
}

/// A `101` answer to a WebSocket handshake.
pub fn switching_protocols(out: &mut Vec<u8>, head: &ResponseHead) {
    status_line(out, 101);
    fields(out, &head.fields);
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
}

/// An interim answer (103 and its like).
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead) {
    status_line(out, head.status);
    fields(out, &head.fields);
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let digits =
        [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
    out.extend_from_slice(&digits);
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The customary reason phrase.
pub fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("")
}

/// The line before a chunk of `n` bytes.
pub fn chunk_size(out: &mut Vec<u8>, n: usize) {
    let mut digits = [0_u8; 16];
    let (mut at, mut rest) = (digits.len(), n);
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The end of a chunked body that trailers come after.
pub fn last_chunk(out: &mut Vec<u8>, trailers: &Fields) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter() {
        line(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_carry_no_hop_by_hop_fields_but_ours() {
        let mut head = RequestHead { method: "POST".into(), ..RequestHead::default() };
        for (n, v) in [
            ("X-A", "1"),
            ("Transfer-Encoding", "chunked"),
            ("te", "gzip"),
            ("Upgrade", "h2c"),
            ("Expect", "x"),
        ] {
            head.fields.push(n.as_bytes(), v.as_bytes());
        }
        let to = UpstreamLine {
            path: "/p",
            query: Some("q"),
            host: "a:1",
            framing: Framing::None,
            websocket: false,
            te_trailers: false,
            expect_continue: false,
        };
        let mut out = Vec::new();
        request(&mut out, &head, &to);
        let want = "POST /p?q HTTP/1.1\r\nHost: a:1\r\nConnection: keep-alive\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for (n, want) in [(1, "1\r\n"), (255, "ff\r\n"), (65536, "10000\r\n")] {
            let mut out = Vec::new();
            chunk_size(&mut out, n);
            assert_eq!(out, want.as_bytes());
        }
    }
}
