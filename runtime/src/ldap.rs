//! As much of LDAP (RFC 4511) as asking whether a name and a password belong together takes: the simple bind, and
//! StartTLS before it. Texts and bytes only; `effect` has the sockets.

use std::sync::Arc;
use std::time::Duration;

/// A directory server.
#[derive(Clone)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    /// How long an exchange may take, connecting included.
    pub timeout: Duration,
    /// How long an idle connection is kept.
    pub keepalive: Duration,
}

/// How the connection is protected.
#[derive(Clone)]
pub enum Tls {
    /// Passwords travel in clear text.
    None,
    /// TLS from the first byte (LDAPS).
    Direct(Arc<rustls::ClientConfig>),
    /// TLS once the server has agreed to it.
    Start(Arc<rustls::ClientConfig>),
}

/// A question: does this password belong to this name?
#[derive(Clone)]
pub struct Bind {
    pub server: Arc<Server>,
    /// Distinguished name.
    pub name: String,
    pub password: String,
}

impl std::fmt::Debug for Bind {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bind").field("host", &self.server.host).finish_non_exhaustive()
    }
}

/// Why the directory gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It cannot be connected to, or the connection broke.
    Connection,
    Tls,
    Timeout,
    /// It answered something else than an answer to the question.
    Protocol,
    /// It cannot answer now, says its result code.
    Refused(u8),
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection => f.write_str("cannot connect to the directory"),
            Self::Tls => f.write_str("no TLS with the directory"),
            Self::Timeout => f.write_str("the directory takes too long"),
            Self::Protocol => f.write_str("the directory breaks the protocol"),
            Self::Refused(code) => write!(f, "the directory cannot answer (result code {code})"),
        }
    }
}

/// The longest message that is read, in bytes; answers to binds are short.
pub const MAX_MESSAGE: usize = 64 * 1024;

const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
const BIND_RESPONSE: u8 = 0x61;
const EXTENDED_RESPONSE: u8 = 0x78;

/// The request for a simple bind.
pub fn bind_request(id: u8, name: &str, password: &str) -> Vec<u8> {
    let version = value(0x02, &[3]);
    let body = [version, value(0x04, name.as_bytes()), value(0x80, password.as_bytes())].concat();
    message(id, &value(0x60, &body))
}

/// The request for TLS.
pub fn start_tls_request(id: u8) -> Vec<u8> {
    message(id, &value(0x77, &value(0x80, START_TLS)))
}

/// Ids are small, so that they are one byte in every encoding.
fn message(id: u8, operation: &[u8]) -> Vec<u8> {
    value(0x30, &[&value(0x02, &[id & 0x7f]), operation].concat())
}

/// Tag, length, content.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    if content.len() < 0x80 {
        out.push(content.len() as u8);
    } else {
        let significant = &length[length.iter().position(|b| *b != 0).unwrap_or(0)..];
        out.push(0x80 | significant.len() as u8);
        out.extend_from_slice(significant);
    }
    out.extend_from_slice(content);
    out
}

/// The result code of the answer to message `id`.
pub fn result_code(id: u8, message: &[u8]) -> Result<u8, Unavailable> {
    let code = || {
        let (0x30, content, []) = read(message)? else { return None };
        let (0x02, number, rest) = read(content)? else { return None };
        let (BIND_RESPONSE | EXTENDED_RESPONSE, response, _) = read(rest)? else { return None };
        let (0x0a, [code], _) = read(response)? else { return None };
        (number == [id]).then_some(*code)
    };
    code().ok_or(Unavailable::Protocol)
}

/// Whether a bind's result code says that the password is right. Codes that are about the server and not about name and
/// password say nothing.
pub fn verdict(code: u8) -> Result<bool, Unavailable> {
    match code {
        0 => Ok(true),
        // constraintViolation (a locked account), noSuchObject, invalidDNSyntax, inappropriateAuthentication,
        // invalidCredentials, insufficientAccessRights, unwillingToPerform.
        19 | 32 | 34 | 48 | 49 | 50 | 53 => Ok(false),
        other => Err(Unavailable::Refused(other)),
    }
}

/// How long the message is that begins with these bytes; `None` until enough of them are there.
pub fn length(start: &[u8]) -> Result<Option<usize>, Unavailable> {
    let (tag, first, rest) = match start {
        [tag, first, rest @ ..] => (*tag, *first, rest),
        _ => return Ok(None),
    };
    if tag != 0x30 {
        return Err(Unavailable::Protocol);
    }
    let (head, content) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let Some(digits) = rest.get(..count) else { return Ok(None) };
            (2 + count, digits.iter().fold(0, |n, b| n * 256 + usize::from(*b)))
        }
        _ => return Err(Unavailable::Protocol),
    };
    let whole = head + content;
    if whole > MAX_MESSAGE { Err(Unavailable::Protocol) } else { Ok(Some(whole)) }
}

/// Tag and content of the first value, and what comes after it.
fn read(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = bytes else { return None };
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0, |n, b| n * 256 + usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// A text as the value in a distinguished name (RFC 4514): nothing in it can end the value.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (i, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => out.extend(['\\', c]),
            '#' | ' ' if i == 0 => out.extend(['\\', c]),
            ' ' if i == last => out.push_str("\\ "),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for b in c.encode_utf8(&mut bytes).bytes() {
                    out.push_str(&format!("\\{b:02x}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_encoded_as_the_standard_writes_them() {
        let want = [
            &[0x30, 0x16, 0x02, 0x01, 0x01, 0x60, 0x11, 0x02, 0x01, 0x03, 0x04, 0x08][..],
            b"cn=admin",
            &[0x80, 0x02],
            b"pw",
        ];
        assert_eq!(bind_request(1, "cn=admin", "pw"), want.concat());
        let long = bind_request(2, &"n".repeat(300), "");
        assert_eq!(long[..4], [0x30, 0x82, 0x01, 0x3c]);
        assert_eq!(length(&long), Ok(Some(long.len())));
        let tls = start_tls_request(3);
        assert!(tls.ends_with(START_TLS) && tls[5] == 0x77);
    }

    #[test]
    fn answers_are_read_and_nothing_else() {
        let response = |id: u8, tag: u8, code: u8| {
            let body = [value(0x0a, &[code]), value(0x04, b""), value(0x04, b"")].concat();
            value(0x30, &[value(0x02, &[id]), value(tag, &body)].concat())
        };
        assert_eq!(result_code(1, &response(1, BIND_RESPONSE, 49)), Ok(49));
        assert_eq!(result_code(1, &response(1, EXTENDED_RESPONSE, 0)), Ok(0));
        let good = response(1, BIND_RESPONSE, 0);
        let bad = |bytes: &[u8]| assert_eq!(result_code(1, bytes), Err(Unavailable::Protocol), "{bytes:?}");
        bad(&response(2, BIND_RESPONSE, 0));
        bad(&response(0, EXTENDED_RESPONSE, 52));
        bad(&response(1, 0x64, 0));
        bad(&[&good[..], &[0]].concat());
        for end in 0..good.len() {
            bad(&good[..end]);
        }
        assert_eq!((verdict(0), verdict(49), verdict(32)), (Ok(true), Ok(false), Ok(false)));
        assert_eq!(verdict(51), Err(Unavailable::Refused(51)));
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(length(&[]), Ok(None));
        assert_eq!(length(&[0x30, 0x82, 0x01]), Ok(None));
        assert_eq!(length(&[0x30, 0x05]), Ok(Some(7)));
        for bad in [&[0x31, 5][..], &[0x30, 0x80], &[0x30, 0x85], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(length(bad), Err(Unavailable::Protocol), "{bad:?}");
        }
    }

    #[test]
    fn names_cannot_end_their_value() {
        for (text, want) in [
            ("alice", "alice"),
            ("a,dc=evil", "a\\,dc\\=evil"),
            ("a+b\\c", "a\\+b\\\\c"),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a\0b", "a\\00b"),
            ("é", "é"),
            (" ", "\\ "),
            ("", ""),
        ] {
            assert_eq!(escape(text), want, "{text:?}");
        }
    }
}
