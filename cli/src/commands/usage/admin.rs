//! Asking a running gateway.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use gw_runtime::usage::{self, Filter, Row};
use serde_json::Value;

use crate::exit::{Code, WithCode};

/// How long connecting, and then each read, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the longest answer that is read.
const LONGEST: u64 = 256 << 20;

/// The rows that the gateway with this admin listener reports.
pub fn ask(admin: &str, filter: &Filter) -> Result<Vec<Row>, WithCode> {
    let authority = admin.trim_start_matches("http://").trim_end_matches('/');
    let failed = |why: &dyn std::fmt::Display| {
        WithCode(Code::Environment, format!("cannot ask the gateway at `{authority}`: {why}"))
    };
    let answer = exchange(authority, &path(filter)).map_err(|e| failed(&e))?;
    let (status, body) = split(&answer).ok_or_else(|| failed(&"this is no HTTP"))?;
    let document: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let message = || document.get("message").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
    match status {
        200 => usage::from_json(&document)
            .ok_or_else(|| failed(&"it answers in a form that this gw does not know")),
        400 => Err(WithCode(Code::Usage, message())),
        status => Err(failed(&format!("status {status}: {}", message()))),
    }
}

fn path(filter: &Filter) -> String {
    let mut path = "/usage".to_owned();
    let pairs = [("consumer", &filter.consumers), ("plan", &filter.plans), ("route", &filter.routes)];
    for (name, value) in pairs.iter().flat_map(|(name, values)| values.iter().map(move |v| (name, v))) {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&format!("{name}={}", escape(value)));
    }
    if filter.keys > 0 {
        path.push_str(&format!("{}keys={}", if path.contains('?') { '&' } else { '?' }, filter.keys));
    }
    path
}

fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn exchange(authority: &str, path: &str) -> std::io::Result<String> {
    let no_address = || std::io::Error::other("the name has no address");
    let address = authority.to_socket_addrs()?.next().ok_or_else(no_address)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    Ok(answer)
}

fn split(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_query() {
        let filter = Filter {
            consumers: vec!["a b&c".into(), "d".into()],
            plans: vec!["é".into()],
            ..Filter::default()
        };
        assert_eq!(path(&filter), "/usage?consumer=a%20b%26c&consumer=d&plan=%C3%A9");
        assert_eq!(path(&Filter::default()), "/usage");
        assert_eq!(path(&Filter { keys: 5, ..Filter::default() }), "/usage?keys=5");
    }
}
