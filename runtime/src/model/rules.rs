//! What a text must be, where any text will not do: one function a [`Rule`].

use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;
use regex::Regex;

use super::paths;
use super::schema::Rule;

/// What is wrong with a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Broken {
    pub message: String,
    pub help: Option<String>,
    /// What to write instead.
    pub better: Option<String>,
}

/// Whether `text` obeys `rule`. `shown` stands for the text in messages: it may be secret.
pub fn check(rule: Rule, text: &str, shown: &str) -> Result<(), Broken> {
    match rule {
        Rule::Any => Ok(()),
        Rule::NonEmpty => require(!text.is_empty(), || "length must be at least 1".to_owned()),
        Rule::Name => name(text, shown),
        Rule::Uuid => {
            require(uuid::Uuid::try_parse(text).is_ok(), || format!("expected a valid UUID, not `{shown}`"))
        }
        Rule::Host => host(text, shown),
        Rule::Target if is_socket(text) => Ok(()),
        Rule::HostPort | Rule::Target => {
            require(split_host_port(text).is_some_and(|(h, _)| is_host(h)), || {
                format!("invalid target (`{shown}`); not a valid hostname or ip address")
            })
        }
        Rule::Path => paths::prefix(text, shown),
        Rule::RoutePath => paths::route_path(text, shown),
        Rule::RouteHost => route_host(text, shown),
        Rule::Method => method(text, shown),
        Rule::IpOrCidr => require(is_ip_or_cidr(text), || format!("invalid ip or cidr range: '{shown}'")),
        Rule::HeaderName => require(is_token(text), || {
            format!("bad header name '{shown}', allowed characters are letters, digits and !#$%&'*+-.^_`|~")
        }),
        Rule::Url => url(text, shown),
        Rule::Regex => paths::regex(text, shown),
        Rule::NameValue => match text.split_once(':') {
            Some((name, _)) if !name.is_empty() => Ok(()),
            Some(_) => Err(broken(format!("value '{shown}' has no name before its colon"))),
            // `Authorization Bearer ...` without its colon: the value is nobody's to see.
            None => Err(Broken {
                message: format!("key '{}' has no value", shown.split([' ', '=']).next().unwrap_or_default()),
                help: Some("write `name:value`".to_owned()),
                better: None,
            }),
        },
        Rule::Tag => require(
            !text.is_empty() && !text.contains([',', '/']) && !text.contains(|c: char| c.is_control()),
            || format!("invalid tag '{shown}': expected printable text without ',' and '/'"),
        ),
        Rule::Sni => sni(text, shown),
        Rule::VaultPrefix => vault_prefix(text, shown),
    }
}

fn broken(message: String) -> Broken {
    Broken { message, ..Broken::default() }
}

fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken(message())) }
}

fn name(text: &str, shown: &str) -> Result<(), Broken> {
    let allowed = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~') || (!c.is_ascii() && !c.is_control())
    };
    if text.is_empty() {
        return Err(broken("length must be at least 1".to_owned()));
    }
    if text.chars().all(allowed) {
        return Ok(());
    }
    let better: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    Err(Broken {
        message: format!(
            "invalid value '{shown}': the only accepted ascii characters are alphanumerics or ., -, _, and ~"
        ),
        help: None,
        better: (text == shown).then_some(better),
    })
}

fn host(text: &str, shown: &str) -> Result<(), Broken> {
    if is_host(text) || is_socket(text) {
        return Ok(());
    }
    let message = format!("invalid value: {shown}");
    let help = if text.contains("://") {
        Some("`host` is a host name alone; a whole URL goes into `url`")
    } else if split_host_port(text).is_some_and(|(h, p)| p.is_some() && is_host(h)) {
        Some("a host must not have a port; the port has a field of its own")
    } else {
        None
    };
    Err(Broken { message, help: help.map(str::to_owned), better: None })
}

/// `unix:` and the path of a socket, whose length the kernel bounds.
pub fn is_socket(text: &str) -> bool {
    text.starts_with("unix:/") && text.len() < 5 + 108 && !text.contains(char::is_whitespace)
}

/// A host name or an IP address; an IPv6 address may stand in brackets.
pub fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    bare.unwrap_or(text).parse::<IpAddr>().is_ok() || (bare.is_none() && is_hostname(text))
}

/// Labels of letters, digits, `-` and `_`.
pub fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty() && name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `host`, `host:port`, `1.2.3.4:port`, `[::1]:port` or a bare IPv6 address; no port is `None`.
pub fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    let (host, port) = match text.rfind(':') {
        Some(i) if !text.ends_with(']') => (&text[..i], Some(text[i + 1..].parse().ok()?)),
        _ => (text, None),
    };
    (!host.is_empty() && (!host.contains(':') || host.starts_with('['))).then_some((host, port))
}

fn route_host(text: &str, shown: &str) -> Result<(), Broken> {
    let wildcards = text.matches('*').count();
    if wildcards > 1 {
        return Err(broken(format!("invalid wildcard: `{shown}` must have at most one wildcard")));
    }
    let host = split_host_port(text).map_or(text, |(h, _)| h);
    if wildcards == 1 && !(host.starts_with("*.") || host.ends_with(".*")) {
        return Err(broken(format!(
            "invalid wildcard: in `{shown}` it must be the leftmost or the rightmost label"
        )));
    }
    let plain = host.strip_prefix("*.").or_else(|| host.strip_suffix(".*")).unwrap_or(host);
    if is_host(plain) {
        return Ok(());
    }
    let help = if text.contains("://") || text.contains('/') {
        Some("a host is a name alone, without scheme and path; paths have a field of their own".to_owned())
    } else {
        None
    };
    Err(Broken { message: format!("invalid hostname: {shown}"), help, better: None })
}

fn sni(text: &str, shown: &str) -> Result<(), Broken> {
    let wildcards = text.matches('*').count();
    if wildcards > 1 || (wildcards == 1 && !(text.starts_with("*.") || text.ends_with(".*"))) {
        return Err(broken(format!(
            "invalid wildcard: in `{shown}` one `*` may be the leftmost or the rightmost label"
        )));
    }
    let plain = text.strip_prefix("*.").or_else(|| text.strip_suffix(".*")).unwrap_or(text);
    require(is_hostname(plain), || format!("invalid server name: `{shown}` is no host name"))
}

/// The kinds of vaults that Kong knows, whose names references already mean.
const VAULT_KINDS: &[&str] = &["env", "aws", "azure", "conjur", "gcp", "hcv"];

fn vault_prefix(text: &str, shown: &str) -> Result<(), Broken> {
    if VAULT_KINDS.contains(&text) {
        return Err(broken(format!("must not be one of: {} (`{shown}`)", VAULT_KINDS.join(", "))));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good =
        text.bytes().all(inner) && text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.ends_with('-');
    require(good, || {
        format!(
            "invalid value '{shown}': a prefix has lower-case letters, digits and `-`, begins with a letter and does not end with `-`"
        )
    })
}

fn method(text: &str, shown: &str) -> Result<(), Broken> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase()) {
        return Ok(());
    }
    let upper = text.to_ascii_uppercase();
    let is_case = !text.is_empty() && upper.bytes().all(|b| b.is_ascii_uppercase());
    Err(Broken {
        message: format!("invalid value: {shown}"),
        help: Some("a method is written in capital letters".to_owned()),
        better: (is_case && text == shown).then_some(upper),
    })
}

/// An IP address or a CIDR range.
pub fn is_ip_or_cidr(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok()
}

/// A token of RFC 9110.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

static URL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@\s]*@)?(\[[0-9A-Fa-f:.]+\]|[^/?#@:\s\[\]]+)(?::([0-9]{1,5}))?(?:[/?#]\S*)?$")
        .expect("the pattern is a constant that tests compile")
});

fn url(text: &str, shown: &str) -> Result<(), Broken> {
    let parts = URL.captures(text);
    let good =
        parts.is_some_and(|p| is_host(&p[1]) && p.get(2).is_none_or(|n| n.as_str().parse::<u16>().is_ok()));
    if good {
        return Ok(());
    }
    let missing_scheme = !text.contains("://");
    Err(Broken {
        message: if missing_scheme {
            format!("missing scheme in url: {shown}")
        } else {
            format!("invalid url: {shown}")
        },
        help: Some("a URL is `scheme://host[:port][/path]`".to_owned()),
        better: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is part of the message; empty for a text that obeys.
    #[track_caller]
    fn check_rule(rule: Rule, text: &str, expected: &str) {
        match check(rule, text, text) {
            Ok(()) => assert_eq!(expected, "", "{rule:?} let {text:?} pass"),
            Err(b) => {
                assert!(!expected.is_empty() && b.message.contains(expected), "{rule:?} {text:?}: {b:?}")
            }
        }
    }

    #[test]
    fn texts_are_judged() {
        use Rule::*;
        for (rule, text, expected) in [
            (NonEmpty, "", "length must be at least 1"),
            (NonEmpty, "x", ""),
            (Name, "my-service_1.~é", ""),
            (Name, "my service", "the only accepted ascii characters"),
            (Name, "", "length"),
            (Uuid, "00000000-0000-4000-8000-00000000000a", ""),
            (Uuid, "x", "expected a valid UUID"),
            (Host, "a.b-c_d", ""),
            (Host, "10.0.0.1", ""),
            (Host, "::1", ""),
            (Host, "[::1]", ""),
            (Host, "a:80", "invalid value: a:80"),
            (Host, "http://a", "invalid value"),
            (Host, "a b", "invalid value"),
            (HostPort, "a:80", ""),
            (HostPort, "a", ""),
            (HostPort, "[::1]:80", ""),
            (HostPort, "::1", ""),
            (HostPort, "a:99999", "not a valid hostname"),
            (HostPort, "a:", "not a valid hostname"),
            (HostPort, ":80", "not a valid hostname"),
            (HostPort, "unix:/run/a.sock", "not a valid hostname"),
            (Target, "a:80", ""),
            (Target, "unix:/run/a.sock", ""),
            (Target, "unix:run/a.sock", "not a valid hostname"),
            (Target, "unix:/run/a b", "not a valid hostname"),
            (RouteHost, "*.example.com", ""),
            (RouteHost, "example.*", ""),
            (RouteHost, "example.com:8080", ""),
            (RouteHost, "*.a.*", "wildcard"),
            (RouteHost, "a.*.b", "wildcard"),
            (RouteHost, "*", "wildcard"),
            (RouteHost, "*a.b", "wildcard"),
            (RouteHost, "http://a", "invalid hostname"),
            (RouteHost, "a/b", "invalid hostname"),
            (Method, "GET", ""),
            (Method, "get", "invalid value"),
            (Method, "", "invalid value"),
            (IpOrCidr, "10.0.0.0/8", ""),
            (IpOrCidr, "::1", ""),
            (IpOrCidr, "300.0.0.1", "invalid ip or cidr range: '300.0.0.1'"),
            (IpOrCidr, "10.0.0.0/33", "invalid ip or cidr range"),
            (HeaderName, "X-A_b", ""),
            (HeaderName, "bad name", "bad header name 'bad name'"),
            (HeaderName, "", "bad header name"),
            (Url, "http://a", ""),
            (Url, "https://u:p@a.b:443/x?y#z", ""),
            (Url, "redis://[::1]:6379/0", ""),
            (Url, "a/b", "missing scheme"),
            (Url, "http://", "invalid url"),
            (Url, "http://a:99999", "invalid url"),
            (NameValue, "a:b", ""),
            (NameValue, "a:", ""),
            (NameValue, "just_a_key", "key 'just_a_key' has no value"),
            (NameValue, ":x", "no name"),
            (Regex, "a+", ""),
            (Regex, "a(", "invalid regex"),
            (Tag, "team a_é", ""),
            (Tag, "a,b", "invalid tag 'a,b'"),
            (Tag, "a/b", "invalid tag 'a/b'"),
            (Tag, "a\u{1}", "invalid tag"),
            (Sni, "*.a.test", ""),
            (Sni, "a.*", ""),
            (Sni, "*", "wildcard"),
            (Sni, "*.a.*", "wildcard"),
            (Sni, "a.*.b", "wildcard"),
            (Sni, "a.test:443", "invalid server name"),
            (VaultPrefix, "my-env2", ""),
            (VaultPrefix, "env", "must not be one of"),
            (VaultPrefix, "My", "invalid value 'My'"),
            (VaultPrefix, "2a", "invalid value"),
            (VaultPrefix, "a-", "invalid value"),
            (VaultPrefix, "", "invalid value"),
            (Path, "/a", ""),
            (RoutePath, "/a", ""),
        ] {
            check_rule(rule, text, expected);
        }
    }
}
