//! The index: hosts by hash, then prefixes by hash of each length that occurs, then the few predicates that are left.
//! Regexes are only tried while one of them could still win.

use ahash::AHashMap;
use regex::Regex;
use uuid::Uuid;

use super::predicate::Predicates;
use super::priority::Rank;
use super::{Match, Options, Query, RouteError, RouteSpec, compile_regex};

/// The namespace of virtual routes' ids.
const VIRTUAL: Uuid = Uuid::from_u128(0x7f145bf9_0dce_4f91_98eb_debbce4b9f6b);

/// The compiled index.
#[derive(Default)]
pub struct Router {
    /// In order of rank: the first that matches wins.
    virtuals: Vec<Virtual>,
    predicates: Vec<Predicates>,
    exact: AHashMap<String, Paths>,
    /// `*.x` by `.x`.
    suffixes: AHashMap<String, Paths>,
    /// `x.*` by `x.`.
    prefixes: AHashMap<String, Paths>,
    any: Paths,
}

struct Virtual {
    route: u32,
    predicates: u32,
    regexes: Vec<Regex>,
    /// Ports of `host:port`, with the host they belong to.
    ports: Vec<(String, u16)>,
    /// Hosts without a port; the port matters only where there are some with one.
    hosts: Vec<String>,
}

/// The routes of one host, as ranks.
#[derive(Default)]
struct Paths {
    by_prefix: AHashMap<String, Vec<u32>>,
    /// The lengths of prefixes that occur, longest first.
    lengths: Vec<usize>,
    without: Vec<u32>,
    regexes: Vec<u32>,
}

/// A virtual route before it has its rank.
struct Draft {
    spec: usize,
    rank: Rank,
    prefixes: Vec<String>,
    regexes: Vec<Regex>,
}

impl Router {
    /// Compiles the routes; those that cannot be compiled are left out and reported.
    pub fn new(routes: &[RouteSpec], options: Options) -> (Self, Vec<RouteError>) {
        let mut errors = Vec::new();
        let mut drafts = Vec::with_capacity(routes.len());
        let mut predicates = Vec::with_capacity(routes.len());
        for (i, spec) in routes.iter().enumerate() {
            let fail = |message| RouteError { route: spec.index, message };
            match Predicates::new(spec) {
                Ok(p) => predicates.push(p),
                Err(message) => {
                    predicates.push(Predicates::default());
                    errors.push(fail(message));
                    continue;
                }
            }
            match split(i, spec) {
                Ok(all) => drafts.extend(all),
                Err(message) => errors.push(fail(message)),
            }
        }
        drafts.sort_by(|a, b| a.rank.order(&b.rank, options));
        let mut router = Self { predicates, virtuals: Vec::with_capacity(drafts.len()), ..Self::default() };
        for draft in drafts {
            router.add(&routes[draft.spec], draft);
        }
        router.finish();
        (router, errors)
    }

    fn add(&mut self, spec: &RouteSpec, draft: Draft) {
        let rank = self.virtuals.len() as u32;
        let mut ports = Vec::new();
        let mut hosts = Vec::new();
        if spec.hosts.is_empty() {
            self.any.add(rank, &draft);
        }
        for written in &spec.hosts {
            let (host, port) = crate::message::split_port(written);
            let host = host.to_ascii_lowercase();
            let slot = match (host.strip_prefix('*'), host.strip_suffix('*')) {
                (Some(suffix), _) => self.suffixes.entry(suffix.to_owned()),
                (None, Some(prefix)) => self.prefixes.entry(prefix.to_owned()),
                (None, None) => self.exact.entry(host.clone()),
            };
            slot.or_default().add(rank, &draft);
            match port {
                Some(port) => ports.push((host, port)),
                None => hosts.push(host),
            }
        }
        if ports.is_empty() {
            hosts.clear();
        }
        let Draft { spec: predicates, regexes, .. } = draft;
        self.virtuals.push(Virtual {
            route: spec.index,
            predicates: predicates as u32,
            regexes,
            ports,
            hosts,
        });
    }

    fn finish(&mut self) {
        let maps = [&mut self.exact, &mut self.suffixes, &mut self.prefixes];
        for paths in maps.into_iter().flat_map(|m| m.values_mut()).chain([&mut self.any]) {
            paths.lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    /// The route of a request.
    pub fn find(&self, q: &Query<'_>) -> Option<Match> {
        let mut best: Option<(u32, usize)> = None;
        self.each_host(q.host, |paths| self.best_prefix(paths, q, &mut best));
        let mut regex: Option<(u32, &Regex)> = None;
        self.each_host(q.host, |paths| {
            for &rank in &paths.regexes {
                let limit = best.map_or(u32::MAX, |b| b.0).min(regex.map_or(u32::MAX, |r| r.0));
                if rank >= limit {
                    break;
                }
                let v = &self.virtuals[rank as usize];
                if self.holds(v, q)
                    && let Some(found) = v.regexes.iter().find(|r| r.is_match(q.path))
                {
                    regex = Some((rank, found));
                }
            }
        });
        if let Some((rank, regex)) = regex {
            return Some(self.regex_match(rank, regex, q));
        }
        let (rank, matched_len) = best?;
        Some(Match { route: self.virtuals[rank as usize].route, matched_len, captures: Vec::new() })
    }

    /// The indexes that a host can be in.
    fn each_host<'a>(&'a self, host: &str, mut visit: impl FnMut(&'a Paths)) {
        if let Some(paths) = self.exact.get(host) {
            visit(paths);
        }
        if !self.suffixes.is_empty() || !self.prefixes.is_empty() {
            for (dot, _) in host.match_indices('.') {
                if let Some(paths) = self.suffixes.get(&host[dot..]) {
                    visit(paths);
                }
                if let Some(paths) = self.prefixes.get(&host[..=dot]) {
                    visit(paths);
                }
            }
        }
        visit(&self.any);
    }

    fn best_prefix(&self, paths: &Paths, q: &Query<'_>, best: &mut Option<(u32, usize)>) {
        let mut look = |ranks: &[u32], len: usize| {
            for &rank in ranks {
                if best.is_some_and(|b| b.0 <= rank) {
                    return;
                }
                if self.holds(&self.virtuals[rank as usize], q) {
                    *best = Some((rank, len));
                    return;
                }
            }
        };
        for &len in &paths.lengths {
            if let Some(prefix) = q.path.get(..len)
                && let Some(ranks) = paths.by_prefix.get(prefix)
            {
                look(ranks, len);
            }
        }
        look(&paths.without, 0);
    }

    fn holds(&self, v: &Virtual, q: &Query<'_>) -> bool {
        let fits = |pattern: &str| super::predicate::wildcard(pattern, q.host);
        let host = v.ports.is_empty()
            || v.ports.iter().any(|(host, port)| *port == q.port && fits(host))
            || v.hosts.iter().any(|host| fits(host));
        host && self.predicates[v.predicates as usize].hold(q)
    }

    fn regex_match(&self, rank: u32, regex: &Regex, q: &Query<'_>) -> Match {
        let route = self.virtuals[rank as usize].route;
        let Some(groups) = regex.captures(q.path) else { return Match { route, ..Match::default() } };
        let matched_len = groups.get(0).map_or(0, |m| m.end());
        let mut captures = Vec::new();
        for (i, name) in regex.capture_names().enumerate().skip(1) {
            if let Some(text) = groups.get(i).map(|m| m.as_str().to_owned()) {
                if let Some(name) = name {
                    captures.push((name.to_owned(), text.clone()));
                }
                captures.push((i.to_string(), text));
            }
        }
        Match { route, matched_len, captures }
    }
}

impl Paths {
    fn add(&mut self, rank: u32, draft: &Draft) {
        if !draft.regexes.is_empty() {
            push_once(&mut self.regexes, rank);
        }
        for prefix in &draft.prefixes {
            if !self.lengths.contains(&prefix.len()) {
                self.lengths.push(prefix.len());
            }
            match self.by_prefix.get_mut(prefix) {
                Some(ranks) => push_once(ranks, rank),
                None => {
                    self.by_prefix.insert(prefix.clone(), vec![rank]);
                }
            }
        }
        if draft.regexes.is_empty() && draft.prefixes.is_empty() {
            push_once(&mut self.without, rank);
        }
    }
}

/// Ranks come in ascending order, so a repetition is the last.
fn push_once(ranks: &mut Vec<u32>, rank: u32) {
    if ranks.last() != Some(&rank) {
        ranks.push(rank);
    }
}

/// The virtual routes of a route.
fn split(index: usize, spec: &RouteSpec) -> Result<Vec<Draft>, String> {
    let mut groups: Vec<(usize, Vec<String>)> = Vec::new();
    let mut regexes = Vec::new();
    for path in &spec.paths {
        match path.strip_prefix('~') {
            Some(pattern) => regexes.push(compile_regex(&format!("^{pattern}"))?),
            None => match groups.iter_mut().find(|(len, _)| *len == path.len()) {
                Some((_, paths)) => paths.push(path.clone()),
                None => groups.push((path.len(), vec![path.clone()])),
            },
        }
    }
    let count = groups.len() + usize::from(!regexes.is_empty());
    let mut number = 0;
    let mut id = || {
        number += 1;
        match count > 1 {
            true => Uuid::new_v5(&VIRTUAL, format!("{}#{number}", spec.id).as_bytes()).to_string(),
            false => spec.id.to_ascii_lowercase(),
        }
    };
    let mut all = Vec::with_capacity(count.max(1));
    if !regexes.is_empty() {
        all.push(Draft { spec: index, rank: Rank::new(spec, true, 0, id()), prefixes: Vec::new(), regexes });
    }
    for (len, prefixes) in groups {
        all.push(Draft {
            spec: index,
            rank: Rank::new(spec, false, len, id()),
            prefixes,
            regexes: Vec::new(),
        });
    }
    if all.is_empty() {
        let rank = Rank::new(spec, false, 0, id());
        all.push(Draft { spec: index, rank, prefixes: Vec::new(), regexes: Vec::new() });
    }
    Ok(all)
}
