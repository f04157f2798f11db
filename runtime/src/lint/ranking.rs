//! How routes compare: what each asks of a request, which requests two of them share, and which of them wins.
//!
//! This is the order of the `traditional_compatible` flavor, for routes in pairs; serving uses the index in
//! [`crate::route`].

use std::collections::HashMap;

use super::Facts;
use crate::model::Route;
use crate::model::gateway::RouterFlavor;
use crate::source::{Span, Spanned};

/// A route as far as one of its paths goes; a route without paths has one.
pub struct Atom<'a> {
    pub route: usize,
    pub entity: &'a Route,
    pub path: Option<&'a Spanned<String>>,
    /// The text that every matching path begins with.
    literal: String,
    /// Whether the literal is all there is to the path.
    literal_is_all: bool,
}

/// Comparisons of one run at most; a config with more is compared only so far.
const BUDGET: usize = 2_000_000;

impl Atom<'_> {
    pub fn span(&self, facts: &Facts<'_>) -> Span {
        self.path.map_or_else(|| facts.route_span(self.route), |p| p.span)
    }

    pub fn is_regex(&self) -> bool {
        self.path.is_some_and(|p| p.starts_with('~'))
    }

    /// The prefix, unless the path is a regex or absent.
    pub fn prefix(&self) -> Option<&str> {
        self.path.map(|p| p.as_str()).filter(|p| !p.starts_with('~'))
    }

    fn kinds(&self) -> usize {
        let r = self.entity;
        [
            r.methods.is_empty(),
            r.hosts.is_empty(),
            r.paths.is_empty(),
            r.headers.is_empty(),
            r.snis.is_empty(),
            r.sources.is_empty(),
            r.destinations.is_empty(),
        ]
        .iter()
        .filter(|empty| !**empty)
        .count()
    }

    fn plain_hosts(&self) -> bool {
        !self.entity.hosts.is_empty() && self.entity.hosts.iter().all(|h| !h.contains('*'))
    }

    fn prefix_len(&self) -> usize {
        self.prefix().map_or(0, str::len)
    }

    /// The order that Kong really uses; greater wins.
    fn real_rank(&self) -> impl Ord {
        let (kinds, regex) = (self.kinds(), self.is_regex());
        let priority = if regex { self.entity.regex_priority } else { 0 };
        let (plain, headers, id) = (self.plain_hosts(), self.entity.headers.len(), self.entity.id.as_str());
        match kinds {
            0..=3 => (0, 0, plain, 0, regex, kinds, headers, priority, self.prefix_len(), id),
            _ => (1, kinds, plain, headers, regex, 0, 0, priority, self.prefix_len(), id),
        }
    }

    /// The order that Kong's documentation states; greater wins.
    fn documented_rank(&self) -> impl Ord {
        let regex = self.is_regex();
        let priority = if regex { self.entity.regex_priority } else { 0 };
        let headers = self.entity.headers.len();
        (
            self.kinds(),
            self.plain_hosts(),
            headers,
            regex,
            priority,
            self.prefix_len(),
            self.entity.id.clone(),
        )
    }

    /// Whether this one wins where both match.
    pub fn beats(&self, other: &Atom<'_>, documented: bool) -> bool {
        if documented {
            self.documented_rank() > other.documented_rank()
        } else {
            self.real_rank() > other.real_rank()
        }
    }

    /// Whether every request that `other` matches is matched by this one too.
    pub fn covers(&self, other: &Atom<'_>) -> bool {
        let (a, b) = (self.entity, other.entity);
        let subset = |a: &[Spanned<String>], b: &[Spanned<String>]| {
            a.is_empty() || !b.is_empty() && b.iter().all(|x| a.iter().any(|y| x.value == y.value))
        };
        let hosts = a.hosts.is_empty()
            || !b.hosts.is_empty()
                && b.hosts.iter().all(|h| a.hosts.iter().any(|pattern| host_covers(pattern, h)));
        let headers = a.headers.iter().all(|(name, values)| {
            let same = b.headers.iter().find(|(other, _)| name.eq_ignore_ascii_case(other));
            same.is_some_and(|(_, wanted)| {
                wanted.iter().all(|w| values.iter().any(|v| v.eq_ignore_ascii_case(w)))
            })
        });
        let path = self.path.is_none()
            || other.path.is_some()
                && (other.literal.starts_with(&self.literal) && self.literal_is_all
                    || self.path.map(|p| &p.value) == other.path.map(|p| &p.value));
        subset(&a.methods, &b.methods)
            && hosts
            && headers
            && subset(&a.snis, &b.snis)
            && (a.sources.is_empty() || a.sources == b.sources)
            && (a.destinations.is_empty() || a.destinations == b.destinations)
            && path
    }

    /// Whether some request may match both. Regexes are taken by the text that they begin with.
    pub fn overlaps(&self, other: &Atom<'_>) -> bool {
        let (a, b) = (self.entity, other.entity);
        let share = |a: &[Spanned<String>], b: &[Spanned<String>]| {
            a.is_empty() || b.is_empty() || a.iter().any(|x| b.iter().any(|y| x.value == y.value))
        };
        let headers = a.headers.iter().all(|(name, values)| {
            let same = b.headers.iter().find(|(other, _)| name.eq_ignore_ascii_case(other));
            same.is_none_or(|(_, other)| {
                let pattern = |v: &Spanned<String>| v.starts_with("~*");
                values.iter().chain(other).any(pattern)
                    || values.iter().any(|v| other.iter().any(|o| v.eq_ignore_ascii_case(o)))
            })
        });
        let (x, y) = (&self.literal, &other.literal);
        share(&a.methods, &b.methods)
            && hosts_overlap(a, b)
            && headers
            && share(&a.snis, &b.snis)
            && (x.starts_with(y.as_str()) || y.starts_with(x.as_str()))
    }
}

/// Whether some host may match both routes.
pub fn hosts_overlap(a: &Route, b: &Route) -> bool {
    let either = |x: &str, y: &str| host_covers(x, y) || host_covers(y, x);
    a.hosts.is_empty() || b.hosts.is_empty() || a.hosts.iter().any(|x| b.hosts.iter().any(|y| either(x, y)))
}

/// The atoms of all routes that requests can reach; none under a router flavor with another order.
pub fn atoms<'a>(facts: &Facts<'a>) -> Vec<Atom<'a>> {
    if facts.model.gateway.router_flavor != RouterFlavor::TraditionalCompatible {
        return Vec::new();
    }
    let mut out = Vec::new();
    for route in facts.live_routes() {
        let entity = &facts.model.routes[route];
        if entity.expression.is_some() {
            continue;
        }
        let mut add = |path: Option<&'a Spanned<String>>| {
            let (literal, literal_is_all) = path.map_or((String::new(), true), |p| literal(p));
            out.push(Atom { route, entity, path, literal, literal_is_all });
        };
        if entity.paths.is_empty() {
            add(None);
        }
        entity.paths.iter().for_each(|p| add(Some(p)));
    }
    out
}

/// Calls `visit` with every two atoms of different routes whose paths can meet, the one with the shorter text first.
pub fn pairs<'a, 'b>(atoms: &'b [Atom<'a>], mut visit: impl FnMut(&'b Atom<'a>, &'b Atom<'a>)) {
    let mut by_literal: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, atom) in atoms.iter().enumerate() {
        by_literal.entry(&atom.literal).or_default().push(i);
    }
    let mut left = BUDGET;
    for (i, atom) in atoms.iter().enumerate() {
        let ends = (0..=atom.literal.len()).filter(|&n| atom.literal.is_char_boundary(n));
        for shorter in ends.filter_map(|n| by_literal.get(&atom.literal[..n])).flatten() {
            let other = &atoms[*shorter];
            // Atoms with the same text meet once, in the order of the file.
            if other.route == atom.route || other.literal.len() == atom.literal.len() && *shorter >= i {
                continue;
            }
            let Some(rest) = left.checked_sub(1) else { return };
            left = rest;
            visit(other, atom);
        }
    }
}

/// The text that a path begins with for certain, and whether that is all it asks.
fn literal(path: &str) -> (String, bool) {
    let Some(regex) = path.strip_prefix('~') else { return (path.to_owned(), true) };
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    let mut out = String::new();
    let mut chars = regex.chars().peekable();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' if chars.peek().is_some_and(|c| c.is_ascii_punctuation()) => chars.next().unwrap_or('\\'),
            '.' if chars.clone().eq("*".chars()) => return (out, true),
            '\\' | '.' | '(' | '[' | '{' | '|' | '$' => {
                return (if regex.contains('|') { String::new() } else { out }, false);
            }
            '*' | '?' | '+' => {
                out.pop();
                return (out, false);
            }
            c => c,
        };
        out.push(c);
    }
    (out, true)
}

/// Whether every host that `host` (perhaps a wildcard itself) stands for is matched by `pattern`.
fn host_covers(pattern: &str, host: &str) -> bool {
    let same = |a: &[u8], b: Option<&[u8]>| b.is_some_and(|b| a.eq_ignore_ascii_case(b));
    let host = host.as_bytes();
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => {
            same(suffix.as_bytes(), host.len().checked_sub(suffix.len()).map(|at| &host[at..]))
        }
        (_, Some(prefix)) => same(prefix.as_bytes(), host.get(..prefix.len())),
        _ => pattern.as_bytes().eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_start_of_a_path() {
        for (path, want, all) in [
            ("/a", "/a", true),
            ("~/a", "/a", true),
            ("~/a/.*", "/a/", true),
            ("~/a/(?<id>x)$", "/a/", false),
            ("~/a\\.json$", "/a.json", false),
            ("~/ab?c", "/a", false),
            ("~/a|/b", "", false),
        ] {
            assert_eq!(literal(path), (want.to_owned(), all), "{path}");
        }
    }

    #[test]
    fn wildcards_cover_hosts() {
        for (pattern, host, want) in [
            ("*.a.test", "x.a.test", true),
            ("*.a.test", "a.test", false),
            ("a.*", "A.test", true),
            ("a.test", "*.test", false),
        ] {
            assert_eq!(host_covers(pattern, host), want, "{pattern} {host}");
        }
    }
}
