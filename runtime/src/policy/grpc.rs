//! What the policies share that call gRPC services for clients that cannot: the call, its framing, and how it ended.

use bytes::Bytes;

use super::call::{Call, CallError, CallResponse, CallTo};
use super::reply;
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::snapshot::ServiceId;

/// Fields that are the client's business with the gateway, or are made anew.
const NOT_SENT: &[&str] =
    &["Content-Type", "Content-Length", "Accept", "Accept-Encoding", "X-Grpc-Web", "Origin"];

/// gRPC statuses, as far as the gateway gives them.
pub const OK: u8 = 0;
pub const UNKNOWN: u8 = 2;
pub const INVALID_ARGUMENT: u8 = 3;
pub const RESOURCE_EXHAUSTED: u8 = 8;
pub const UNIMPLEMENTED: u8 = 12;
pub const INTERNAL: u8 = 13;

/// A call with these messages, on behalf of the request.
pub fn call(x: &Exchange, service: ServiceId, path: String, messages: Bytes) -> Call {
    let mut fields = x.request.fields.clone();
    for name in NOT_SENT {
        fields.remove(&FieldName::new(name));
    }
    fields.append(&names::CONTENT_TYPE, "application/grpc+proto");
    Call {
        to: CallTo::Service(service),
        method: "POST".to_owned(),
        path,
        fields,
        body: messages,
        timeout: x.snapshot.services[service.0 as usize].read_timeout,
        max_body: x.snapshot.gateway.limits.buffered_body,
    }
}

/// The fields that say how a call ended, if it ended as gRPC has it: those after its messages, or the head's of a call
/// without messages.
pub fn ending(response: &CallResponse) -> Option<Fields> {
    let status = FieldName::new("grpc-status");
    if response.status != 200 {
        return None;
    }
    if response.fields.contains(&status) {
        let mut own = Fields::default();
        for (name, value) in response.fields.iter().filter(|(name, _)| name.starts_with(b"grpc-")) {
            own.push(name, value);
        }
        return Some(own);
    }
    response.trailers.contains(&status).then(|| response.trailers.clone())
}

/// The fields of a call's head that are the service's own word to the client.
pub fn metadata(response: &CallResponse) -> impl Iterator<Item = (FieldName, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = response.fields.iter().map(move |(name, value)| (FieldName::new(&text(name)), text(value)));
    fields.filter(|(name, _)| {
        ![names::CONTENT_TYPE, names::CONTENT_LENGTH, names::DATE, names::SERVER].contains(name)
            && !name.as_str().starts_with("grpc-")
    })
}

/// The status for a call that came to no end of its own.
pub fn status_of(error: CallError) -> u8 {
    match error {
        CallError::Timeout => reply::DEADLINE_EXCEEDED,
        CallError::TooLarge => RESOURCE_EXHAUSTED,
        _ => reply::UNAVAILABLE,
    }
}

/// What gRPC's own table says of an HTTP status.
pub fn status_of_http(http: u16) -> u8 {
    match http {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => reply::UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// A message on the wire: a flag, a length, and the message. Flags other than 0 and 1 are none of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub compressed: bool,
    pub message: &'a [u8],
}

/// The messages of a body, of which each must be whole.
pub fn frames(mut body: &[u8]) -> Option<Vec<Frame<'_>>> {
    let mut all = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = body {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *flag > 1 || rest.len() < length {
            return None;
        }
        let (message, more) = rest.split_at(length);
        all.push(Frame { compressed: *flag == 1, message });
        body = more;
    }
    body.is_empty().then_some(all)
}

/// Appends a message.
pub fn push_frame(out: &mut Vec<u8>, message: &[u8]) {
    out.push(0);
    // Bodies are bounded far below this.
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_whole_messages() {
        for (bytes, want) in [
            (&b""[..], Some(vec![])),
            (b"\0\0\0\0\0", Some(vec![(false, &b""[..])])),
            (b"\0\0\0\0\x02ab\x01\0\0\0\x01c", Some(vec![(false, b"ab"), (true, b"c")])),
            (b"\0\0\0\0\x02a", None),
            (b"\x02\0\0\0\0", None),
            (b"\0\0\0", None),
            (b"\0\xff\xff\xff\xffa", None),
        ] {
            let got = frames(bytes);
            let got = got.map(|all| all.iter().map(|f| (f.compressed, f.message)).collect::<Vec<_>>());
            assert_eq!(got, want, "{bytes:?}");
        }
        let mut out = Vec::new();
        push_frame(&mut out, b"ab");
        assert_eq!(out, b"\0\0\0\0\x02ab");
    }
}
