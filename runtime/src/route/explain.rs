//! Why a request gets the route it gets.

use super::Query;
use super::condition::quoted;
use super::index::{Entry, Index, NO_CONDITIONS, PathRule};
use super::lookup::match_regex;
use super::pattern::HostPattern;

/// A virtual route, seen from one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// [`super::RouteSpec::index`]. A route with several paths can be here several times.
    pub route: u32,
    pub matched: bool,
    /// By what it matched, or the first criterion that failed.
    pub reason: String,
}

/// An entry and what its list stands for.
struct Alternative<'a> {
    entry: &'a Entry,
    bucket: u32,
    /// None: any host.
    host: Option<&'a HostPattern>,
    beginning: &'a str,
}

/// See [`super::Router::rank`].
pub(super) fn rank(index: &Index, query: &Query<'_>) -> Vec<Candidate> {
    let hosts = index.host_patterns();
    let mut all: Vec<Alternative<'_>> = index
        .all_lists()
        .flat_map(|(bucket, beginning, list)| {
            let entries = &index.entries[list.first as usize..list.end as usize];
            let host = hosts[bucket as usize].as_ref();
            entries.iter().map(move |entry| Alternative { entry, bucket, host, beginning })
        })
        .collect();
    all.sort_by_key(|a| (a.entry.rank, a.bucket));
    all.chunk_by(|a, b| a.entry.virtual_route == b.entry.virtual_route)
        .map(|alternatives| judge(index, query, alternatives))
        .collect()
}

/// Judges one virtual route: criterion by criterion, in the order in which people think of them.
fn judge(index: &Index, query: &Query<'_>, alternatives: &[Alternative<'_>]) -> Candidate {
    let first = alternatives[0].entry;
    let candidate = |verdict: Result<String, String>| Candidate {
        route: first.route,
        matched: verdict.is_ok(),
        reason: verdict.unwrap_or_else(|reason| reason),
    };
    if let PathRule::Expression(id) = first.rule {
        let expression = &index.parts.expressions[id as usize];
        if expression.eval(query).is_none() {
            return candidate(Err(expression.failure(query)));
        }
    }
    if first.conditions != NO_CONDITIONS {
        let conditions = &index.parts.conditions[first.conditions as usize];
        if let Some(condition) = conditions.iter().find(|c| !c.holds(query)) {
            return candidate(Err(condition.failure(query)));
        }
    }
    if let PathRule::Expression(_) = first.rule {
        return candidate(Ok("the expression is true".to_owned()));
    }
    let host_fits = |a: &&Alternative<'_>| {
        let fits = a.host.is_none_or(|pattern| pattern.fits(query.host));
        fits && a.entry.port.is_none_or(|port| port == query.port)
    };
    let path_fits = |a: &&Alternative<'_>| match a.entry.rule {
        PathRule::Regex(id) => match_regex(&index.parts.regexes[id as usize], query.path).is_some(),
        _ => query.path.starts_with(a.beginning),
    };
    let host_text = |a: &Alternative<'_>| {
        let pattern = a.host?;
        Some(a.entry.port.map_or(pattern.to_string(), |port| format!("{pattern}:{port}")))
    };
    let path_text = |a: &Alternative<'_>| match a.entry.rule {
        PathRule::Any => None,
        PathRule::Regex(id) => Some(format!("~{}", &index.parts.regexes[id as usize].as_str()[1..])),
        _ => Some(a.beginning.to_owned()),
    };
    let distinct = |texts: Vec<String>| {
        let mut seen: Vec<String> = Vec::new();
        texts.into_iter().for_each(|text| {
            if !seen.contains(&text) {
                seen.push(text)
            }
        });
        quoted(seen)
    };
    let Some(host) = alternatives.iter().find(host_fits) else {
        let wanted = distinct(alternatives.iter().filter_map(host_text).collect());
        return candidate(Err(format!("host `{}` (port {}) is not among {wanted}", query.host, query.port)));
    };
    let Some(path) = alternatives.iter().find(path_fits) else {
        let wanted = distinct(alternatives.iter().filter_map(path_text).collect());
        return candidate(Err(format!("path `{}` does not match {wanted}", query.path)));
    };
    let met: Vec<String> = [("host", host_text(host)), ("path", path_text(path))]
        .into_iter()
        .filter_map(|(kind, text)| Some(format!("{kind} `{}`", text?)))
        .collect();
    candidate(Ok(if met.is_empty() { "every criterion holds".to_owned() } else { met.join(", ") }))
}
