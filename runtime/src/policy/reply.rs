//! Answers of the gateway itself, in the shapes that Kong gives them.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;

use super::BodyError;
use crate::exchange::{Exchange, RequestId};
use crate::message::{FieldName, Fields, RequestHead, Version, names};

/// An answer that does not come from an upstream.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    /// No body and no type if `None`.
    pub content_type: Option<Cow<'static, str>>,
    pub body: Bytes,
    /// Further fields.
    pub fields: Vec<(FieldName, String)>,
    /// The connection must not be used for another request.
    pub close: bool,
}

/// What stands around message and request id in a JSON error.
const JSON_PARTS: [&str; 3] = ["{\n  \"message\":", ",\n  \"request_id\":\"", "\"\n}"];

/// What JSON answers are labelled with.
pub const JSON: &str = "application/json; charset=utf-8";

impl Reply {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// An answer with a body.
    pub fn with_body(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        body: impl Into<Bytes>,
    ) -> Self {
        Self { status, content_type: Some(content_type.into()), body: body.into(), ..Self::default() }
    }

    /// `{"message":"..."}` and nothing else: Kong's `kong.response.exit(status, {message})`.
    pub fn exit(status: u16, message: &str) -> Self {
        Self::with_body(status, JSON, format!("{{\"message\":{}}}", json_string(message)))
    }

    /// Kong's `kong.response.error`: the shape follows `Accept` and names the request.
    pub fn error(request: &RequestHead, id: RequestId, status: u16, message: &str) -> Self {
        Self::shaped(negotiate(request, Shape::Json), id, status, message)
    }

    /// An error that nginx itself makes under Kong: without `Accept` the request's content type decides, then plain
    /// text.
    pub fn gateway_error(request: &RequestHead, id: RequestId, status: u16, message: &str) -> Self {
        let by_type =
            request.fields.text(&names::CONTENT_TYPE).and_then(Shape::of_type).unwrap_or(Shape::Plain);
        Self::shaped(negotiate(request, by_type), id, status, message)
    }

    /// The answer where a policy needs the request's body and cannot have it. The rest of the body is still on the
    /// connection, so that ends.
    pub fn unread(x: &Exchange, error: BodyError) -> Self {
        let (status, message) = match error {
            BodyError::TooLarge => (413, "Payload too large"),
            BodyError::Broken => (400, "Bad request"),
            BodyError::Timeout => (408, "Request timeout"),
            BodyError::NoRoom => return Self::no_room(&x.request, x.request_id),
        };
        Self::gateway_error(&x.request, x.request_id, status, message).closing()
    }

    /// The answer while there is no memory for the request.
    #[cold]
    pub fn no_room(request: &RequestHead, id: RequestId) -> Self {
        crate::overload::shed();
        Self::gateway_error(request, id, 503, "Service temporarily unavailable")
            .field(names::RETRY_AFTER, "1")
            .closing()
    }

    fn shaped(shape: Shape, id: RequestId, status: u16, message: &str) -> Self {
        let (content_type, body) = match shape {
            Shape::Json => {
                // As long as it will be unless the message needs escapes: a body of just its size is not moved again.
                let size = JSON_PARTS.iter().map(|p| p.len()).sum::<usize>() + message.len() + 2 + 32;
                let mut body = String::with_capacity(size);
                body.push_str(JSON_PARTS[0]);
                push_json_string(&mut body, message);
                body.push_str(JSON_PARTS[1]);
                body.push_str(std::str::from_utf8(&id.hex()).unwrap_or_default());
                body.push_str(JSON_PARTS[2]);
                (JSON, body)
            }
            Shape::Plain => ("text/plain; charset=utf-8", format!("{message}\nrequest_id: {id}\n")),
            Shape::Html => (
                "text/html; charset=utf-8",
                format!(
                    "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  \
                     <body>\n    <h1>Error</h1>\n    <p>{}.</p>\n    <p>request_id: {id}</p>\n  </body>\n</html>\n",
                    escape(message)
                ),
            ),
            Shape::Xml => (
                "application/xml; charset=utf-8",
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{}</message>\n  \
                     <requestid>{id}</requestid>\n</error>\n",
                    escape(message)
                ),
            ),
        };
        Self::with_body(status, content_type, body)
    }

    /// A gRPC answer of headers alone.
    pub fn grpc(status: u8, message: &str) -> Self {
        let reply = Self::with_body(200, GRPC, Bytes::new());
        let reply = reply.field(FieldName::new("grpc-status"), status.to_string());
        if message.is_empty() {
            reply
        } else {
            reply.field(FieldName::new("grpc-message"), grpc_message(message))
        }
    }

    /// The same answer for a gRPC client: its status and message, where HTTP's status and body would say nothing.
    #[must_use]
    pub fn into_grpc(self) -> Self {
        if self.content_type.as_deref().is_some_and(|t| is_grpc(t.as_bytes())) {
            return self;
        }
        let message = match serde_json::from_slice::<serde_json::Value>(&self.body) {
            Ok(body) => body.get("message").and_then(|m| m.as_str()).unwrap_or_default().to_owned(),
            Err(_) => String::from_utf8_lossy(&self.body).lines().next().unwrap_or_default().to_owned(),
        };
        let mut reply = Self::grpc(grpc_status(self.status), &message);
        reply.fields.extend(self.fields);
        reply.close = self.close;
        reply
    }

    /// The same answer with one more field.
    #[must_use]
    pub fn field(mut self, name: FieldName, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The same answer, after which the connection ends.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Writes status-independent fields: type and extras. Length and connection are the codec's.
    pub fn write_fields(&self, fields: &mut Fields) {
        match &self.content_type {
            Some(Cow::Borrowed(t)) => fields.put(&names::CONTENT_TYPE, t),
            Some(Cow::Owned(t)) => fields.append(&names::CONTENT_TYPE, t),
            None => {}
        }
        for (name, value) in &self.fields {
            fields.append(name, value);
        }
    }
}

/// What gRPC's media types begin with.
const GRPC: &str = "application/grpc";
/// gRPC statuses that the gateway itself gives.
pub const CANCELLED: u8 = 1;
pub const DEADLINE_EXCEEDED: u8 = 4;
pub const UNAVAILABLE: u8 = 14;

/// Whether a content type is gRPC's.
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type.get(..GRPC.len()).is_some_and(|t| t.eq_ignore_ascii_case(GRPC.as_bytes()))
}

/// Whether a request is a gRPC call, whose errors gRPC's own client must understand.
pub fn calls_grpc(request: &RequestHead) -> bool {
    request.version == Version::H2 && request.fields.get(&names::CONTENT_TYPE).is_some_and(is_grpc)
}

/// The gRPC status for an HTTP status (Kong's table, with 408, 413 and 502 added).
fn grpc_status(http: u16) -> u8 {
    match http {
        200..=299 => 0,
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        408 | 504 => DEADLINE_EXCEEDED,
        409 => 10,
        413 | 429 => 8,
        499 => CANCELLED,
        501 => 12,
        502 | 503 => UNAVAILABLE,
        500..=599 => 13,
        _ => 2,
    }
}

/// A `grpc-message`: what is not printable ASCII is percent-encoded, and `%` itself.
fn grpc_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'%' | 0..=0x1f | 0x7f.. => {
                let _ = write!(out, "%{b:02X}");
            }
            _ => out.push(char::from(b)),
        }
    }
    out
}

/// The trailers that end a call.
pub fn grpc_trailers(status: u8, message: &str) -> Fields {
    let mut fields = Fields::default();
    fields.push(b"grpc-status", itoa::Buffer::new().format(status).as_bytes());
    fields.push(b"grpc-message", grpc_message(message).as_bytes());
    fields
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Json,
    Html,
    Plain,
    Xml,
}

impl Shape {
    fn of_type(media: &str) -> Option<Self> {
        match media.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
            "application/json" | "application/*" => Some(Self::Json),
            "text/html" => Some(Self::Html),
            "text/plain" | "text/*" => Some(Self::Plain),
            "application/xml" => Some(Self::Xml),
            _ => None,
        }
    }
}

/// The shape that `Accept` prefers; `absent` where there is none.
fn negotiate(request: &RequestHead, absent: Shape) -> Shape {
    if calls_grpc(request) {
        // From which the message is taken again.
        return Shape::Json;
    }
    let accept = request.error_type.as_deref().or_else(|| request.fields.text(&names::ACCEPT));
    let Some(accept) = accept else { return absent };
    if accept == "*/*" {
        return Shape::Json;
    }
    let mut best = (Shape::Json, 0.0_f32);
    for range in accept.split(',') {
        let q = range.split(';').find_map(|p| p.trim().strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        let shape = Shape::of_type(range).unwrap_or(Shape::Json);
        if q > best.1 {
            best = (shape, q);
        }
    }
    best.0
}

/// Text as a JSON string, quotes included.
pub fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_json_string(&mut out, text);
    out
}

/// Appends text as a JSON string.
pub fn push_json_string(out: &mut String, text: &str) {
    let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '"' => {
                let _ = write!(out, "&#{};", c as u32);
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(accept: Option<&str>) -> String {
        let mut head = RequestHead::default();
        if let Some(a) = accept {
            head.fields.push(b"Accept", a.as_bytes());
        }
        Reply::error(&head, RequestId(1), 404, "no").content_type.unwrap_or_default().into_owned()
    }

    #[test]
    fn the_shape_of_an_error_follows_accept() {
        for (accept, want) in [
            (None, JSON),
            (Some("*/*"), JSON),
            (Some("text/html"), "text/html; charset=utf-8"),
            (Some("text/*;q=0.5, application/xml"), "application/xml; charset=utf-8"),
            (Some("image/png"), JSON),
        ] {
            assert_eq!(shape(accept), want, "{accept:?}");
        }
        let call = RequestHead {
            version: Version::H2,
            fields: {
                let mut fields = Fields::default();
                fields.push(b"content-type", b"application/grpc+proto");
                fields.push(b"accept", b"text/html");
                fields
            },
            ..RequestHead::default()
        };
        let reply = Reply::gateway_error(&call, RequestId(1), 502, "it \u{e9}chou%").into_grpc();
        assert_eq!((reply.status, reply.content_type.as_deref(), reply.body.len()), (200, Some(GRPC), 0));
        assert_eq!(reply.fields[0].1, "14");
        assert_eq!(reply.fields[1].1, "it %C3%A9chou%25");
        let plain = Reply::gateway_error(&RequestHead::default(), RequestId(1), 502, "no");
        assert_eq!(plain.content_type.as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(plain.body, format!("no\nrequest_id: {:032x}\n", 1));
    }
}
