//! The description of a request, as JSON.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Answers;
use super::body::AnswerBody;

/// How much of a request's body the answer shows.
const SHOWN_BODY: usize = 1 << 20;

/// What an answer says. `gw.echo/1`.
#[derive(Serialize)]
struct Description<'a> {
    schema: &'static str,
    method: &'a str,
    path: &'a str,
    /// Without the question mark; null where there is none.
    query: Option<&'a str>,
    http_version: &'static str,
    peer: String,
    /// Lower-case name to value; to a list where the name comes more than once.
    headers: Map<String, Value>,
    body: String,
    /// `text`, or `base64` where the body is not UTF-8.
    body_encoding: &'static str,
    /// Bytes received, also where `body` shows fewer.
    body_bytes: u64,
    body_truncated: bool,
}

/// Reads a request to its end and answers it.
pub async fn answer(request: Request<Incoming>, peer: SocketAddr, answers: &Answers) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    let knobs = match answers.defaults.of_request(head.uri.query(), &head.headers) {
        Ok(knobs) => knobs,
        Err(message) => return refusal(&message),
    };
    let Ok((body, bytes)) = read(body).await else { return refusal("the request's body broke off") };
    if !answers.canned.is_empty() {
        let (response, delay) = answers.canned.answer(&head, &knobs);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        return response;
    }
    if !knobs.delay.is_zero() {
        tokio::time::sleep(knobs.delay).await;
    }
    let bodiless = matches!(knobs.status, 204 | 205 | 304);
    let (content, kind) = match knobs.size {
        _ if bodiless => (AnswerBody::text("", false), "text/plain"),
        Some(size) => (AnswerBody::filler(size, knobs.chunked), "text/plain"),
        None => {
            let shown = String::from_utf8(body);
            let (body, body_encoding) = match shown {
                Ok(text) => (text, "text"),
                Err(error) => (STANDARD.encode(error.as_bytes()), "base64"),
            };
            let description = Description {
                schema: "gw.echo/1",
                method: head.method.as_str(),
                path: head.uri.path(),
                query: head.uri.query(),
                http_version: version(head.version),
                peer: peer.to_string(),
                headers: headers(&head),
                body,
                body_encoding,
                body_bytes: bytes,
                body_truncated: bytes > SHOWN_BODY as u64,
            };
            // Text and numbers always serialise.
            let json = serde_json::to_vec(&description).unwrap_or_default();
            (AnswerBody::text(json, knobs.chunked), "application/json")
        }
    };
    let mut response = Response::new(content);
    *response.status_mut() = StatusCode::from_u16(knobs.status).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The beginning of a body, and how long it was. A byte more than shown is not kept but counted.
async fn read(mut body: Incoming) -> Result<(Vec<u8>, u64), hyper::Error> {
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            bytes += data.len() as u64;
            let room = SHOWN_BODY - kept.len();
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok((kept, bytes))
}

fn headers(head: &http::request::Parts) -> Map<String, Value> {
    let mut out = Map::new();
    // HTTP/2 says in :authority what HTTP/1.1 says in Host.
    if let (Some(authority), false) = (head.uri.authority(), head.headers.contains_key("host")) {
        out.insert("host".to_owned(), Value::from(authority.as_str()));
    }
    for name in head.headers.keys() {
        let mut values = values(&head.headers, name);
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        out.insert(name.as_str().to_owned(), value);
    }
    out
}

fn values(headers: &HeaderMap, name: &http::HeaderName) -> Vec<Value> {
    headers.get_all(name).iter().map(|v| Value::from(String::from_utf8_lossy(v.as_bytes()))).collect()
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_11 => "1.1",
        http::Version::HTTP_2 => "2",
        _ => "other",
    }
}

fn refusal(message: &str) -> Response<AnswerBody> {
    let json = serde_json::json!({ "schema": "gw.echo/1", "error": message });
    let mut response = Response::new(AnswerBody::text(json.to_string(), false));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
