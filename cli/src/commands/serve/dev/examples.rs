//! A request to try for every route, made from what the route itself asks for.

use std::path::PathBuf;

use gw_runtime::check::Checked;
use gw_runtime::limit::Period;
use gw_runtime::model::{Model, Plugin, Route};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::credentials::{self, Caller};
use super::curl::{Curl, quote};

/// More routes than these are not shown.
const SHOWN: usize = 8;
/// A limit beyond this is not worth reaching by hand.
const REACHABLE: f64 = 5000.0;

/// Requests to try.
#[derive(Default)]
pub struct Examples {
    pub routes: Vec<Example>,
    /// Routes that are not among them.
    pub more: usize,
}

/// A route's.
pub struct Example {
    /// `orders-route -> order-service`.
    pub title: String,
    pub curl: Curl,
    pub caller: Caller,
    /// The route's name or id, where `gw token explain` has something to say about it.
    pub explained: Option<String>,
    /// The least limit on the route.
    pub limit: Option<Limit>,
}

/// So many requests a period.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub count: u64,
    pub period: &'static str,
}

/// Makes them.
pub fn of(model: &Checked<Model>, file: Option<&PathBuf>) -> Examples {
    let file = file.map(PathBuf::as_path);
    let mut examples = Examples::default();
    for (index, route) in model.routes.iter().enumerate() {
        let Some(mut curl) = sample(route).filter(|_| examples.routes.len() < SHOWN) else {
            examples.more += 1;
            continue;
        };
        let plugins = credentials::plugins_of_route(model, index);
        let caller = credentials::add(&mut curl, model, index, &plugins, file);
        let title = title(model, index);
        let takes_tokens = plugins.iter().any(|p| p.name.value == "jwt");
        let name = route.name.as_ref().map_or(&route.id, |n| &n.value);
        let explained = takes_tokens.then(|| name.clone());
        examples.routes.push(Example { title, curl, caller, explained, limit: limit(&plugins) });
    }
    examples
}

fn title(model: &Checked<Model>, index: usize) -> String {
    let route = &model.routes[index];
    let place = || route.paths.first().or(route.hosts.first()).map(|p| p.value.clone());
    let name = route.name.as_ref().map(|n| n.value.clone()).or_else(place);
    let name = name.unwrap_or_else(|| route.id.clone());
    let service = model.links().route_service.get(index).copied().flatten().map(|s| &model.services[s]);
    match service {
        Some(s) => format!("{name} -> {}", s.name.as_ref().map_or(&s.host.value, |n| &n.value)),
        None => name,
    }
}

/// A request that the route matches; none where that cannot be told from outside.
fn sample(route: &Route) -> Option<Curl> {
    let speaks = |protocol: &str| route.protocols.iter().any(|p| p.value == protocol);
    if route.expression.is_some() || !(speaks("http") || speaks("https")) {
        return None;
    }
    let methods: Vec<&str> = route.methods.iter().map(|m| m.value.as_str()).collect();
    let method = if methods.is_empty() || methods.contains(&"GET") { "GET" } else { methods[0] };
    let mut words = Vec::new();
    if let Some(host) = route.hosts.first() {
        let host = host.value.replacen("*.", "www.", 1).replacen(".*", ".com", 1);
        words.push(format!("-H {}", quote(&format!("Host: {host}"))));
    }
    for (name, values) in &route.headers {
        let value = &values.first()?.value;
        let value = match value.strip_prefix("~*") {
            Some(pattern) => matching(pattern)?,
            None => value.clone(),
        };
        words.push(format!("-H {}", quote(&format!("{}: {value}", name.value))));
    }
    let path = match route.paths.first().map(|p| p.value.as_str()) {
        None => "/".to_owned(),
        Some(path) => match path.strip_prefix('~') {
            Some(pattern) => matching(pattern).filter(|p| p.starts_with('/'))?,
            None => path.to_owned(),
        },
    };
    Some(Curl {
        method: method.to_owned(),
        path: encode(&path),
        only_tls: !speaks("http") || !route.snis.is_empty(),
        sni: route.snis.first().map(|s| s.value.replacen("*.", "www.", 1)),
        words,
        ..Curl::default()
    })
}

/// Only what may stand in a path, and nothing that curl would take for a pattern of its own.
fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(byte as char),
            _ if b"-._~!$&'()*+,;=:@/%".contains(&byte) => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A short text that the pattern matches.
fn matching(pattern: &str) -> Option<String> {
    let mut out = String::new();
    write(&regex_syntax::parse(pattern).ok()?, &mut out);
    Some(out)
}

fn write(hir: &Hir, out: &mut String) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(class) => out.push(member(class)),
        HirKind::Repetition(repetition) => {
            // Once where that is allowed: an empty segment would look odd.
            let most = repetition.max.unwrap_or(u32::MAX);
            for _ in 0..repetition.min.max(1).min(most).min(64) {
                write(&repetition.sub, out);
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, out)),
        HirKind::Alternation(parts) => parts.iter().take(1).for_each(|part| write(part, out)),
    }
}

/// A letter or digit if the class has one.
fn member(class: &Class) -> char {
    let has = |c: char| match class {
        Class::Unicode(class) => class.ranges().iter().any(|r| r.start() <= c && c <= r.end()),
        Class::Bytes(class) => class.ranges().iter().any(|r| r.start() as char <= c && c <= r.end() as char),
    };
    let first = || match class {
        Class::Unicode(class) => class.ranges().first().map(|r| r.start()),
        Class::Bytes(class) => class.ranges().first().map(|r| r.start() as char),
    };
    "1ax"
        .chars()
        .chain('a'..='z')
        .chain('A'..='Z')
        .chain('0'..='9')
        .find(|c| has(*c))
        .or_else(first)
        .unwrap_or('x')
}

/// The least limit of the route's `rate-limiting`, if it can be reached by hand.
fn limit(plugins: &[&Plugin]) -> Option<Limit> {
    let plugin = plugins.iter().find(|p| p.name.value == "rate-limiting")?;
    // Within a second a person does not get far.
    let periods = Period::ALL.into_iter().filter(|p| *p != Period::Second);
    let limits = periods.filter_map(|p| Some((plugin.config.num(p.name())?, p.name())));
    let (count, period) = limits.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|l| l.0 <= REACHABLE)?;
    Some(Limit { count: count.ceil() as u64, period })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_examples() {
        for (pattern, want) in [
            (r"/orders/(?<id>\d+)$", "/orders/1"),
            (r"^/v[12]/users?(/|$)", "/v1/users/"),
            (r"/a/[^/]+/b.*", "/a/1/b1"),
            (r"/x{3}", "/xxx"),
            (r"/(?i)abc", "/ABC"),
        ] {
            assert_eq!(matching(pattern).map(|m| m.to_ascii_uppercase()), Some(want.to_ascii_uppercase()));
        }
        assert_eq!(matching("("), None);
    }

    #[test]
    fn paths_are_written_as_urls_are() {
        for (path, want) in
            [("/a b", "/a%20b"), ("/é", "/%C3%A9"), ("/{x}[y]?", "/%7Bx%7D%5By%5D%3F"), ("/%2F", "/%2F")]
        {
            assert_eq!(encode(path), want);
        }
    }
}
