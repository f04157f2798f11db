//! Answers that are written down: what the services of an example say, without the services.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Deserialize;

use super::body::AnswerBody;
use super::knobs::{Knobs, parse_delay, parse_status};

/// The answers of a file, in its order: the first that fits is given.
#[derive(Debug, Default)]
pub struct Canned(Vec<Answer>);

/// One entry as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: Option<String>,
    method: Option<String>,
    path: String,
    delay: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<serde_json::Value>,
}

#[derive(Debug)]
struct Answer {
    /// Without port, in lower case.
    host: Option<String>,
    method: Option<String>,
    /// Ends with `*` where it is a prefix; has a `?` where the query counts.
    path: String,
    delay: Option<Duration>,
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

impl Canned {
    /// Reads a file; the error says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))?;
        Self::parse(&text).map_err(|e| format!("`{}`: {e}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: Vec<Written> = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
        written.into_iter().map(Answer::new).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none, so that requests are described.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The answer to a request, and how long it waits; 404 where none is written.
    pub fn answer(&self, head: &http::request::Parts, knobs: &Knobs) -> (Response<AnswerBody>, Duration) {
        let authority = head.headers.get(HOST).and_then(|h| h.to_str().ok());
        let host = authority.or_else(|| head.uri.authority().map(|a| a.as_str())).unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
        let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
        let found = self.0.iter().find(|a| a.fits(&host, head.method.as_str(), head.uri.path(), target));
        let Some(found) = found else {
            let body =
                format!("{{\"error\":\"no answer is written for {} {target} of {host}\"}}", head.method);
            let mut response = Response::new(AnswerBody::text(body, false));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return (response, Duration::ZERO);
        };
        let mut response = Response::new(AnswerBody::text(found.body.clone(), knobs.chunked));
        let status = if knobs.status == 200 { found.status } else { knobs.status };
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &found.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        (response, found.delay.unwrap_or_default().max(knobs.delay))
    }
}

impl Answer {
    fn new(written: Written) -> Result<Self, String> {
        let of = |what: String| format!("{}: {what}", written.path);
        let header = |(name, value): (&String, &String)| {
            let name = name.parse().map_err(|_| format!("`{name}` is no header name"))?;
            let value = value.parse().map_err(|_| format!("`{value}` is no header value"))?;
            Ok((name, value))
        };
        if !written.path.starts_with('/') {
            return Err(of("a path begins with `/`".to_owned()));
        }
        Ok(Self {
            delay: written.delay.as_deref().map(parse_delay).transpose().map_err(of)?,
            status: match written.status {
                Some(status) => parse_status(&status.to_string()).map_err(of)?,
                None => 200,
            },
            headers: written.headers.iter().map(header).collect::<Result<_, String>>().map_err(of)?,
            // A text is sent as it is, so that answers need not be JSON.
            body: match &written.body {
                None => Vec::new(),
                Some(serde_json::Value::String(text)) => text.clone().into_bytes(),
                Some(json) => json.to_string().into_bytes(),
            },
            host: written.host.map(|h| h.to_ascii_lowercase()),
            method: written.method,
            path: written.path,
        })
    }

    fn fits(&self, host: &str, method: &str, path: &str, target: &str) -> bool {
        let asked = if self.path.contains('?') { target } else { path };
        let path = match self.path.strip_suffix('*') {
            Some(prefix) => asked.starts_with(prefix),
            None => asked == self.path,
        };
        path && self.host.as_deref().is_none_or(|h| h == host)
            && self.method.as_deref().is_none_or(|m| m == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: &str = "- {host: A.test, path: /x, body: {n: 1}, headers: {ETag: '\"1\"'}}\n\
                           - {path: '/y?q=1', status: 503, delay: 20ms}\n- {method: POST, path: '/z*', body: text}\n";

    #[test]
    fn the_first_answer_that_fits_is_given() {
        let canned = Canned::parse(ANSWERS).expect("good answers");
        for (method, host, target, want) in [
            ("GET", "a.test:80", "/x?any=1", (200, 0)),
            ("GET", "b.test", "/x", (404, 0)),
            ("GET", "b.test", "/y?q=1", (503, 20)),
            ("GET", "b.test", "/y", (404, 0)),
            ("POST", "b.test", "/z/1", (200, 0)),
            ("GET", "b.test", "/z/1", (404, 0)),
        ] {
            let request = http::Request::builder().method(method).uri(target).header(HOST, host);
            let (head, ()) = request.body(()).expect("a request").into_parts();
            let (response, delay) = canned.answer(&head, &Knobs::default());
            let got = (response.status().as_u16(), delay.as_millis());
            assert_eq!(got, want, "{method} {host} {target}");
        }
        for bad in
            ["- {path: x}", "- {path: /x, status: 99}", "- {path: /x, delay: soon}", "- {pth: /x}", "{}"]
        {
            assert!(Canned::parse(bad).is_err(), "{bad}");
        }
    }
}
