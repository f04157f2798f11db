//! Why a request gets the route it gets.

use super::Query;
use super::condition::quoted;
use super::index::{Index, List, NO_CONDITIONS, PathRule};
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

/// See [`super::Router::rank`].
pub(super) fn rank(index: &Index, query: &Query<'_>) -> Vec<Candidate> {
    let hosts = index.host_patterns();
    // Entry and list, in order of rank.
    let mut all: Vec<(usize, &List)> = index
        .lists
        .iter()
        .flat_map(|list| (list.first as usize..list.end as usize).map(move |entry| (entry, list)))
        .collect();
    all.sort_by_key(|&(entry, _)| (index.entries[entry].rank, index.entries[entry].alternative));
    all.chunk_by(|a, b| index.entries[a.0].rank == index.entries[b.0].rank)
        .map(|alternatives| judge(index, query, &hosts, alternatives))
        .collect()
}

/// Judges one virtual route: criterion by criterion, in the order in which people think of them.
fn judge(
    index: &Index,
    query: &Query<'_>,
    hosts: &[Option<HostPattern>],
    alternatives: &[(usize, &List)],
) -> Candidate {
    let first = &index.entries[alternatives[0].0];
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
    let host_fits = |&&(entry, list): &&(usize, &List)| {
        let fits = hosts[list.bucket as usize].as_ref().is_none_or(|pattern| pattern.fits(query.host));
        fits && index.entries[entry].port.is_none_or(|port| port == query.port)
    };
    let path_fits = |&&(entry, list): &&(usize, &List)| match index.entries[entry].rule {
        PathRule::Regex(id) => match_regex(&index.parts.regexes[id as usize], query.path).is_some(),
        _ => query.path.starts_with(index.text(list)),
    };
    let host_text = |&(entry, list): &(usize, &List)| {
        let pattern = hosts[list.bucket as usize].as_ref()?;
        Some(index.entries[entry].port.map_or(pattern.to_string(), |port| format!("{pattern}:{port}")))
    };
    let path_text = |&(entry, list): &(usize, &List)| match index.entries[entry].rule {
        PathRule::Any => None,
        PathRule::Regex(id) => Some(format!("~{}", &index.parts.regexes[id as usize].as_str()[1..])),
        _ => Some(index.text(list).to_owned()),
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
