//! Requests from the command line.

use anyhow::Context as _;
use gw_loadgen::plan::Target;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::exit::{Code, WithCode};

/// A target from its parts.
pub fn target(
    url: &Uri,
    method: Option<&Method>,
    headers: &[(HeaderName, HeaderValue)],
    body: Option<&str>,
) -> anyhow::Result<Target> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.clone(), value.clone());
    }
    let body = body.map(read_body).transpose()?;
    let default = if body.is_some() { Method::POST } else { Method::GET };
    Ok(Target {
        name: url.path().to_owned(),
        method: method.cloned().unwrap_or(default),
        uri: url.clone(),
        headers: map,
        body: body.unwrap_or_default().into(),
    })
}

/// A body as written: a text, or `@FILE`.
pub fn read_body(text: &str) -> anyhow::Result<Vec<u8>> {
    match text.strip_prefix('@') {
        None => Ok(text.as_bytes().to_vec()),
        Some(path) => std::fs::read(path)
            .map_err(|e| WithCode(Code::Usage, format!("cannot read the body from `{path}`: {e}")))
            .context("a body that begins with `@` names a file"),
    }
}

/// Reads a method.
pub fn parse_method(text: &str) -> Result<Method, String> {
    text.to_ascii_uppercase().parse().map_err(|_| format!("`{text}` is not an HTTP method"))
}

/// Headers that belong to the connection or are made from the body; sending others would break the framing.
const OWN: [&str; 5] = ["content-length", "transfer-encoding", "connection", "upgrade", "te"];

/// Reads `Name: value`.
pub fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("`{text}` is not a header field, write `Name: value`"))?;
    header(name.trim(), value.trim())
}

/// A header field from its two halves.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed =
        HeaderName::try_from(name).map_err(|_| format!("`{name}` is not the name of a header field"))?;
    if OWN.contains(&parsed.as_str()) {
        return Err(format!("`{name}` is set by the connection itself"));
    }
    let value = HeaderValue::from_str(value)
        .map_err(|_| format!("the value of `{name}` has bytes that no header can have"))?;
    Ok((parsed, value))
}
