//! Which of two virtual routes is tried first.
//!
//! A route's rank is a list of numbers, compared in turn, greater first. `traditional_compatible` has two orders: the
//! one that Kong documents, and the one that its arithmetic really gives (its 64-bit shifts wrap at 32). The real one
//! is the default, because it is what a migrated file gets today. Routes with more than three kinds of criteria rank
//! above all others in the documented order: Kong's own order overflows there.

use super::{Options, RouteSpec};
use crate::model::gateway::RouterFlavor;

/// Compared lexicographically; the greater key is tried first.
pub(super) type Key = [i64; 7];

/// Kong's field for the length of a prefix has 19 bits.
const LENGTH_MASK: usize = 0x7_FFFF;
/// Kong counts headers up to here.
const MAX_HEADERS: usize = 255;

/// The key of a virtual route: `spec` with only `paths` of its paths.
pub(super) fn key(spec: &RouteSpec, paths: &[&str], options: Options) -> Key {
    match options.flavor {
        RouterFlavor::Traditional => traditional(spec, paths),
        RouterFlavor::Expressions if spec.expression.is_some() => {
            [2, i64::try_from(spec.priority).unwrap_or(i64::MAX), 0, 0, 0, 0, 0]
        }
        _ => compatible(spec, paths, options.documented_order),
    }
}

fn compatible(spec: &RouteSpec, paths: &[&str], documented: bool) -> Key {
    let kinds = kinds(spec, paths);
    let plain_hosts = i64::from(!spec.hosts.is_empty() && !spec.hosts.iter().any(|h| h.contains('*')));
    let headers = spec.headers.len().min(MAX_HEADERS) as i64;
    let is_regex = paths.iter().any(|p| p.starts_with('~'));
    let regex = i64::from(is_regex);
    let regex_priority = if is_regex { spec.regex_priority } else { 0 };
    let length = paths.iter().filter(|p| !p.starts_with('~')).map(|p| p.len() & LENGTH_MASK).max();
    let length = length.unwrap_or(0) as i64;
    if documented || kinds > 3 {
        let class = i64::from(kinds > 3);
        return [class, kinds, plain_hosts, headers, regex, regex_priority, length];
    }
    // The two fields overlap by all bits but one: Kong's header count lands one bit above the regex priority.
    let headers_and_priority =
        if regex_priority >= 0 { headers << 1 | regex_priority } else { (headers << 1) + regex_priority };
    [0, plain_hosts, regex, kinds, headers_and_priority, length, 0]
}

/// How many kinds of criteria a route has; all its headers are one kind.
fn kinds(spec: &RouteSpec, paths: &[&str]) -> i64 {
    let kinds = [
        !spec.methods.is_empty(),
        !spec.hosts.is_empty(),
        !spec.headers.is_empty(),
        !spec.snis.is_empty(),
        !paths.is_empty(),
        !spec.sources.is_empty(),
        !spec.destinations.is_empty(),
    ];
    kinds.into_iter().map(i64::from).sum()
}

/// Categories of criteria, then details within a category, then age.
fn traditional(spec: &RouteSpec, paths: &[&str]) -> Key {
    let bits = [
        (!spec.hosts.is_empty(), 0x40),
        (!spec.headers.is_empty(), 0x20),
        (!paths.is_empty(), 0x10),
        (!spec.methods.is_empty(), 0x08),
        (!spec.snis.is_empty(), 0x04),
        (!spec.sources.is_empty(), 0x02),
        (!spec.destinations.is_empty(), 0x01),
    ];
    let category: i64 = bits.iter().map(|&(set, bit)| if set { bit } else { 0 }).sum();
    let wildcards = || spec.hosts.iter().filter(|h| h.contains('*'));
    let has_regex = paths.iter().any(|p| p.starts_with('~'));
    let details = [
        (wildcards().any(|h| h.contains(':')), 4),
        (!spec.hosts.is_empty() && wildcards().next().is_none(), 2),
        (has_regex, 1),
    ];
    let details: i64 = details.iter().map(|&(set, bit)| if set { bit } else { 0 }).sum();
    let regex_priority = if has_regex { spec.regex_priority } else { 0 };
    let length = paths.iter().filter(|p| !p.starts_with('~')).map(|p| p.len()).max().unwrap_or(0);
    let headers = spec.headers.len() as i64;
    let age = spec.created_at.saturating_neg();
    [kinds(spec, paths), category, details, headers, regex_priority, length as i64, age]
}
