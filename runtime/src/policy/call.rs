//! Requests that a policy makes of its own: what to ask, and what came of it. Performed by [`crate::effect::call`].

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::Cx;
use crate::message::Fields;
use crate::model::Model;
use crate::snapshot::{Scheme, Service, ServiceId};
use crate::tls::lasting::ClientConfigs;
use crate::tls::{ClientSettings, ClientTls};

/// One request. Redirects are never followed.
#[derive(Clone, Debug)]
pub struct Call {
    pub to: CallTo,
    /// Methods that promise to change nothing are tried again as a client's request would be.
    pub method: String,
    /// Path and query. A service's own path comes in front of it.
    pub path: String,
    /// Every field but those of one connection. A `Host` among them stands in place of the server's own name. A service
    /// is told about the client as by a client's own request.
    pub fields: Fields,
    pub body: Bytes,
    /// For everything, from the name's resolution to the answer's last byte.
    pub timeout: Duration,
    /// The longest body that is taken, in bytes.
    pub max_body: usize,
}

/// Calls of which later ones depend on what earlier ones were answered.
pub trait Series: std::fmt::Debug + Any {
    /// The calls to send now, each with a number of its own. Asked at the beginning and after every answer. `None` ends
    /// the series and the calls that are under way; so does nothing to send while none is. How many there may be is the
    /// policy's to bound.
    fn next(&mut self) -> Option<Vec<(usize, Call)>>;

    /// Takes what came of a call.
    fn answered(&mut self, number: usize, result: Result<CallResponse, CallError>);
}

/// What to do with the answer to a call that nobody waits for.
pub struct Done(Box<dyn FnOnce(Result<CallResponse, CallError>)>);

impl Done {
    /// Does this.
    pub fn new(done: impl FnOnce(Result<CallResponse, CallError>) + 'static) -> Self {
        Self(Box::new(done))
    }

    /// The answer is there, or will never be.
    pub fn call(self, result: Result<CallResponse, CallError>) {
        (self.0)(result);
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum CallTo {
    /// A service of the config, with its targets, TLS settings, retries and health.
    Service(ServiceId),
    /// The same, with the path as the client's own request would have it: nothing comes in front of it.
    Exactly(ServiceId),
    Endpoint(Arc<Endpoint>),
}

impl CallTo {
    /// The service with this name or id.
    pub fn service(model: &Model, name: &str) -> Option<Self> {
        let named = |s: &crate::model::Service| s.name.as_ref().is_some_and(|n| n.value == name);
        let at = model.services.iter().position(named);
        let at = at.or_else(|| model.services.iter().position(|s| s.id == name))?;
        // Services are compiled in the model's order.
        Some(Self::Service(ServiceId(at as u32)))
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct CallResponse {
    pub status: u16,
    pub fields: Fields,
    /// Without framing; any content coding is still there.
    pub body: Bytes,
    /// What came after the body; of gRPC services alone.
    pub trailers: Fields,
    /// From the call's beginning to its last byte.
    pub took: Duration,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("it took too long")]
    Timeout,
    /// No connection came about, or no trusted one.
    #[error("no connection came about")]
    Unreachable,
    #[error("its name cannot be resolved")]
    Unresolved,
    /// The connection broke, or the answer is malformed.
    #[error("its answer is broken or malformed")]
    Broken,
    #[error("its answer is longer than allowed")]
    TooLarge,
    #[error("none of its targets is available")]
    TargetsDown,
    /// The host was not named by the config, and its address is not public.
    #[error("its address is not public, and only a host that the config names may be private")]
    Private,
    /// The call itself cannot be sent: a malformed path or method, or an endpoint that speaks gRPC.
    #[error("the call is malformed")]
    Invalid,
}

/// A server that is none of the config's services, named by a URL.
pub struct Endpoint {
    /// How it is reached; without id and name.
    pub service: Service,
    /// Path and query of the URL.
    pub path: String,
    /// Refuse it if it has a private address: the URL comes from a document, not from the config.
    pub public_only: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the path: its query may hold a secret.
        f.debug_struct("Endpoint").field("authority", &self.service.authority).finish_non_exhaustive()
    }
}

/// How endpoints are connected to. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    tls: Arc<rustls::ClientConfig>,
    connect_timeout: Duration,
}

impl PartialEq for Transport {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tls, &other.tls) && self.connect_timeout == other.connect_timeout
    }
}

impl Transport {
    /// TLS by the system's CAs and the config's `gateway.tls.upstream_ca`; certificates are verified unless `verify` is
    /// off.
    pub fn new(cx: &mut Cx<'_>, verify: bool, connect_timeout: Duration) -> std::io::Result<Self> {
        let ca = cx.model.gateway.tls.upstream_authorities().into_iter().collect();
        let settings = ClientSettings { verify, ca, ..ClientSettings::default() };
        let tls = cx.shared.get::<ClientConfigs>().get(&settings)?;
        Ok(Self::over(tls, connect_timeout))
    }

    /// The same with TLS by these settings.
    pub fn over(tls: Arc<rustls::ClientConfig>, connect_timeout: Duration) -> Self {
        Self { tls, connect_timeout }
    }

    /// The endpoint at `url`; the error says what is wrong with the URL.
    pub fn endpoint(&self, url: &str) -> Result<Endpoint, &'static str> {
        let url = Url::parse(url)?;
        let scheme = if url.tls { Scheme::Https } else { Scheme::Http };
        let bare = url.host.trim_start_matches('[').trim_end_matches(']');
        let tls = url.tls.then(|| ClientTls { config: Arc::clone(&self.tls), name: Arc::from(bare) });
        let authority = match url.port == scheme.default_port() {
            true => url.host.to_owned(),
            false => format!("{}:{}", url.host, url.port),
        };
        let patience = Duration::from_secs(60);
        let service = Service {
            id: String::new(),
            name: None,
            scheme,
            host: url.host.to_owned(),
            port: url.port,
            authority,
            path: "/".to_owned(),
            retries: 1,
            connect_timeout: self.connect_timeout,
            // The call's own timeout is shorter.
            write_timeout: patience,
            read_timeout: patience,
            upstream: None,
            tls,
            http2: false,
        };
        Ok(Endpoint { service, path: url.path.to_owned(), public_only: false })
    }
}

/// An absolute `http` or `https` URL in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Url<'a> {
    pub tls: bool,
    /// IPv6 literals keep their brackets.
    pub host: &'a str,
    pub port: u16,
    /// Path and query, at least `/`.
    pub path: &'a str,
}

impl<'a> Url<'a> {
    /// Takes a URL apart. Strict: what two parsers could read differently is refused.
    pub fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("it must begin with `https://` or `http://`"),
        };
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = if path.is_empty() { "/" } else { path };
        if !path.starts_with('/') || !path.is_ascii() || !crate::http1::scan::is_target(path.as_bytes()) {
            return Err("its path must begin with `/` and have no spaces, `#` or characters beyond ASCII");
        }
        if authority.contains('@') {
            return Err("it must not hold a user or password");
        }
        let (host, port) = match authority.rfind(':') {
            Some(at) if !authority[at..].contains(']') => {
                let digits = &authority[at + 1..];
                let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                let port = digits.parse().ok().filter(|p| all_digits && *p != 0);
                (&authority[..at], port.ok_or("its port must be between 1 and 65535")?)
            }
            _ => (authority, if tls { 443 } else { 80 }),
        };
        if !is_host(host) {
            return Err("its host is malformed (it is a name or an address)");
        }
        Ok(Self { tls, host, port, path })
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(fits) {
        return false;
    }
    // `127.1`, `0x7f.1` and their like are addresses to some resolvers and names to others.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    !numeric || host.parse::<std::net::Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_one_way_only() {
        let check = |text: &str, want: Option<(bool, &str, u16, &str)>| {
            let got = Url::parse(text).ok().map(|u| (u.tls, u.host, u.port, u.path));
            assert_eq!(got, want, "{text}");
        };
        check("http://a.test", Some((false, "a.test", 80, "/")));
        check("https://a.test/p?q=1", Some((true, "a.test", 443, "/p?q=1")));
        check("https://a.test:8443/", Some((true, "a.test", 8443, "/")));
        check("http://[::1]:81/x", Some((false, "[::1]", 81, "/x")));
        check("http://[::1]/x", Some((false, "[::1]", 80, "/x")));
        check("http://127.0.0.1:9/x", Some((false, "127.0.0.1", 9, "/x")));
        for bad in [
            "",
            "a.test",
            "//a.test/",
            "ftp://a.test/",
            "HTTP://a.test/",
            "http://",
            "http:///x",
            "http://u:p@a.test/",
            "http://a.test@b.test/",
            "http://a.test\\@b.test/",
            "http://a.test/#f",
            "http://a.test/a b",
            "http://a.test/\r\nX: 1",
            "http://a.test:/",
            "http://a.test:0/",
            "http://a.test:+80/",
            "http://a.test:65536/",
            "http://a.test?q",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://[::1/",
            "http://[127.0.0.1]/",
            "http://a b/",
            "http://ä.test/",
        ] {
            check(bad, None);
        }
    }
}
