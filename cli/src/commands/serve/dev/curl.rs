//! `curl` lines that can be pasted into a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where requests can be sent.
pub struct Places {
    pub clear: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    /// The certificate to trust; without one curl must not verify.
    pub ca: Option<PathBuf>,
}

/// One request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curl {
    pub method: String,
    /// With the query.
    pub path: String,
    /// The route takes no clear text.
    pub only_tls: bool,
    /// The name to ask for over TLS.
    pub sni: Option<String>,
    /// Further words, quoted where they need it.
    pub words: Vec<String>,
    /// Words that say who asks.
    pub credentials: Vec<String>,
    /// Such a word within the query.
    pub query: Option<String>,
}

impl Places {
    /// The first of each kind.
    pub fn new(listening: &[(SocketAddr, bool)], ca: Option<&Path>) -> Self {
        let first = |tls| listening.iter().find(|l| l.1 == tls).map(|l| reachable(l.0));
        Self { clear: first(false), tls: first(true), ca: ca.map(Path::to_owned) }
    }
}

/// What a client connects to where a server listens on every address.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

impl Curl {
    /// The URL, if the request can be sent anywhere.
    pub fn url(&self, places: &Places, tls: bool, with_credentials: bool) -> Option<String> {
        let base = if tls || self.only_tls {
            let addr = places.tls?;
            match &self.sni {
                Some(name) => format!("https://{name}:{}", addr.port()),
                None if addr.ip().is_loopback() => format!("https://localhost:{}", addr.port()),
                None => format!("https://{addr}"),
            }
        } else {
            format!("http://{}", places.clear?)
        };
        let query = self.query.as_ref().filter(|_| with_credentials).map(|q| format!("?{q}"));
        Some(format!("{base}{}{}", self.path, query.unwrap_or_default()))
    }

    /// The line, if the request can be sent anywhere.
    pub fn line(&self, places: &Places, tls: bool, with_credentials: bool) -> Option<String> {
        let url = self.url(places, tls, with_credentials)?;
        let mut words = vec!["curl -i".to_owned()];
        if tls || self.only_tls {
            words.push(match &places.ca {
                Some(ca) => format!("--cacert {}", quote(&ca.display().to_string())),
                None => "--insecure".to_owned(),
            });
            if let (Some(name), Some(addr)) = (&self.sni, places.tls) {
                words.push(format!("--resolve {name}:{}:{}", addr.port(), addr.ip()));
            }
        }
        match self.method.as_str() {
            "GET" => {}
            "HEAD" => words.push("--head".to_owned()),
            method => words.push(format!("-X {method}")),
        }
        words.push(quote(&url));
        words.extend(self.words.iter().cloned());
        if with_credentials {
            words.extend(self.credentials.iter().cloned());
        }
        Some(words.join(" "))
    }
}

/// One word for a POSIX shell. Text that could steer a terminal is written as escapes of `printf`'s kind.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    if text.chars().any(char::is_control) {
        let escaped = text.escape_default().to_string();
        return format!("$'{escaped}'");
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for (text, want) in [
            ("/orders", "/orders"),
            ("Host: a.test", "'Host: a.test'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$(id)", "'$(id)'"),
            ("/a?b=1", "'/a?b=1'"),
            ("a\tb", "$'a\\tb'"),
        ] {
            assert_eq!(quote(text), want);
        }
    }

    #[test]
    fn lines_fit_the_listeners() {
        let addr = |t: &str| t.parse::<SocketAddr>().expect("an address");
        let places = Places::new(
            &[(addr("0.0.0.0:8000"), false), (addr("127.0.0.1:8443"), true)],
            Some(Path::new("/home/a b/ca.pem")),
        );
        let get = Curl {
            method: "GET".into(),
            path: "/a".into(),
            credentials: vec!["-H 'apikey: k'".into()],
            ..Curl::default()
        };
        let post = Curl { method: "POST".into(), sni: Some("a.test".into()), only_tls: true, ..get.clone() };
        for (curl, tls, credentials, want) in [
            (&get, false, true, "curl -i http://127.0.0.1:8000/a -H 'apikey: k'"),
            (&get, false, false, "curl -i http://127.0.0.1:8000/a"),
            (&get, true, false, "curl -i --cacert '/home/a b/ca.pem' https://localhost:8443/a"),
            (
                &post,
                false,
                false,
                "curl -i --cacert '/home/a b/ca.pem' --resolve a.test:8443:127.0.0.1 -X POST https://a.test:8443/a",
            ),
        ] {
            assert_eq!(curl.line(&places, tls, credentials).as_deref(), Some(want));
        }
        assert_eq!(get.line(&Places::new(&[], None), false, false), None);
    }
}
