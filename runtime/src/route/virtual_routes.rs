//! From routes as written to virtual routes in order of rank.
//!
//! A route with several paths is ranked once for each length of its prefixes and once for all its regular expressions,
//! as Kong splits it; each part has an id of its own, derived from the route's, which decides ties.

use std::collections::hash_map::Entry;

use ahash::AHashMap;
use uuid::Uuid;

use super::condition::{Condition, Endpoint, HeaderValue, SniPattern};
use super::index::{NO_CONDITIONS, Parts, PathRule};
use super::order::{self, Key};
use super::pattern::{self, HostPattern, RegexProblem};
use super::{Options, RouteError, RouteSpec, expression};
use crate::message::FieldName;
use crate::model::gateway::RouterFlavor;

/// The namespace in which Kong derives the ids of split routes.
const SPLIT_NAMESPACE: Uuid = Uuid::from_u128(0x7f145bf9_0dce_4f91_98eb_debbce4b9f6b);

/// A route, or the part of one that has one rank. It matches if a host, a path and all conditions do.
pub(super) struct VirtualRoute {
    key: Key,
    id: Uuid,
    /// Position among the routes as given.
    position: usize,
    /// [`RouteSpec::index`].
    pub route: u32,
    /// Empty: any host. With the port that the request must have been sent to.
    pub hosts: Vec<(HostPattern, Option<u16>)>,
    /// Never empty.
    pub paths: Vec<PathAlternative>,
    /// Into [`Parts::conditions`].
    pub conditions: u32,
}

/// One of a virtual route's paths.
pub(super) struct PathAlternative {
    /// What every path that it matches begins with.
    pub prefix: Box<str>,
    pub rule: PathRule,
}

/// Compiles routes; the result is in order of rank.
pub(super) fn compile(
    routes: impl Iterator<Item = RouteSpec>,
    options: Options,
    parts: &mut Parts,
    errors: &mut Vec<RouteError>,
) -> Vec<VirtualRoute> {
    let mut compiler = Compiler { options, parts, regexes: AHashMap::new(), conditions: AHashMap::new() };
    let mut virtuals = Vec::with_capacity(routes.size_hint().0);
    for (position, mut spec) in routes.enumerate() {
        let start = virtuals.len();
        if let Err(fault) = compiler.route(&mut spec, position, &mut virtuals) {
            virtuals.truncate(start);
            errors.push(fault.of(spec.index));
        }
    }
    let by_id = options.flavor != RouterFlavor::Traditional;
    virtuals.sort_by(|a: &VirtualRoute, b| {
        let ids = || if by_id { b.id.cmp(&a.id) } else { std::cmp::Ordering::Equal };
        b.key.cmp(&a.key).then_with(ids).then_with(|| a.position.cmp(&b.position))
    });
    virtuals
}

/// What is wrong with which element of a route.
struct Fault {
    field: &'static str,
    item: usize,
    range: Option<std::ops::Range<usize>>,
    message: String,
    help: Option<String>,
}

impl Fault {
    fn new(field: &'static str, item: usize, message: String) -> Self {
        Self { field, item, range: None, message, help: None }
    }

    fn regex(field: &'static str, item: usize, problem: RegexProblem) -> Self {
        Self { help: problem.help, ..Self::new(field, item, problem.message) }
    }

    fn of(self, route: u32) -> RouteError {
        let Self { field, item, range, message, help } = self;
        RouteError { route, field, item, range, message, help }
    }
}

/// The criteria of a route that become conditions; routes with equal ones share them.
type Criteria = (
    Vec<String>,
    Vec<(String, Vec<String>)>,
    Vec<String>,
    Vec<(Option<String>, Option<u16>)>,
    Vec<(Option<String>, Option<u16>)>,
);

struct Compiler<'p> {
    options: Options,
    parts: &'p mut Parts,
    regexes: AHashMap<String, u32>,
    conditions: AHashMap<Criteria, u32>,
}

impl Compiler<'_> {
    /// Takes from the spec what it keeps.
    fn route(
        &mut self,
        spec: &mut RouteSpec,
        position: usize,
        out: &mut Vec<VirtualRoute>,
    ) -> Result<(), Fault> {
        if let Some(text) = &spec.expression {
            if self.options.flavor != RouterFlavor::Expressions {
                // Without its expression the route would match every request.
                let message =
                    "`expression` means something only to the router flavor `expressions`".to_owned();
                let help = Some("set `router_flavor: expressions` under `gateway`".to_owned());
                return Err(Fault { help, ..Fault::new("expression", 0, message) });
            }
            out.push(self.expression(spec, position, text)?);
            return Ok(());
        }
        let (hosts, start) = (hosts(spec)?, out.len());
        let mut push = |paths: &[&str], id, alternatives| {
            let key = order::key(spec, paths, self.options);
            let (route, hosts, conditions) = (spec.index, hosts.clone(), NO_CONDITIONS);
            out.push(VirtualRoute { key, id, position, route, hosts, paths: alternatives, conditions });
        };
        let id = id_of(spec);
        match spec.paths.as_slice() {
            [] => push(&[], id, vec![PathAlternative { prefix: "".into(), rule: PathRule::Any }]),
            [path] => {
                let alternative = path_alternative(self.parts, &mut self.regexes, self.options, path, 0)?;
                push(&[path.as_str()], id, vec![alternative]);
            }
            _ => {
                for (suffix, items) in groups(spec, self.options.flavor) {
                    let mut alternatives = Vec::with_capacity(items.len());
                    for &item in &items {
                        let path = &spec.paths[item];
                        alternatives.push(path_alternative(
                            self.parts,
                            &mut self.regexes,
                            self.options,
                            path,
                            item,
                        )?);
                    }
                    let id = suffix.map_or(id, |suffix| split_id(&spec.id, &suffix));
                    let paths: Vec<_> = items.iter().map(|&i| spec.paths[i].as_str()).collect();
                    push(&paths, id, alternatives);
                }
            }
        }
        let conditions = self.conditions(spec)?;
        out[start..].iter_mut().for_each(|v| v.conditions = conditions);
        Ok(())
    }

    fn expression(&mut self, spec: &RouteSpec, position: usize, text: &str) -> Result<VirtualRoute, Fault> {
        let compiled = expression::compile(text).map_err(|error| Fault {
            range: Some(error.range),
            help: error.help,
            ..Fault::new("expression", 0, error.message)
        })?;
        let keys = compiled.keys();
        let rule = PathRule::Expression(self.parts.expressions.len() as u32);
        let prefixes = keys.prefixes.unwrap_or_else(|| vec![String::new()]);
        let paths = prefixes.into_iter().map(|p| PathAlternative { prefix: p.into(), rule }).collect();
        let hosts = keys.hosts.unwrap_or_default().into_iter().map(|host| (host, None)).collect();
        self.parts.expressions.push(compiled);
        let conditions = match protocol_condition(&spec.protocols) {
            Some(condition) => {
                self.parts.conditions.push(Box::new([condition]));
                self.parts.conditions.len() as u32 - 1
            }
            None => NO_CONDITIONS,
        };
        let (key, id) = (order::key(spec, &[], self.options), id_of(spec));
        Ok(VirtualRoute { key, id, position, route: spec.index, hosts, paths, conditions })
    }

    /// The conditions of a route's criteria, which it takes.
    fn conditions(&mut self, spec: &mut RouteSpec) -> Result<u32, Fault> {
        let criteria = (
            std::mem::take(&mut spec.methods),
            std::mem::take(&mut spec.headers),
            std::mem::take(&mut spec.snis),
            std::mem::take(&mut spec.sources),
            std::mem::take(&mut spec.destinations),
        );
        if criteria == Criteria::default() {
            return Ok(NO_CONDITIONS);
        }
        match self.conditions.entry(criteria) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                let id = self.parts.conditions.len() as u32;
                self.parts.conditions.push(conditions(new.key())?.into_boxed_slice());
                Ok(*new.insert(id))
            }
        }
    }
}

fn hosts(spec: &RouteSpec) -> Result<Vec<(HostPattern, Option<u16>)>, Fault> {
    let read = |(item, text): (usize, &String)| {
        HostPattern::parse(text).map_err(|message| Fault::new("hosts", item, message))
    };
    spec.hosts.iter().enumerate().map(read).collect()
}

fn conditions((methods, headers, snis, sources, destinations): &Criteria) -> Result<Vec<Condition>, Fault> {
    let mut conditions = Vec::new();
    if !methods.is_empty() {
        conditions.push(Condition::Methods(methods.clone()));
    }
    if !snis.is_empty() {
        conditions.push(Condition::Sni(snis.iter().map(|s| SniPattern::parse(s)).collect()));
    }
    let ends = |field, list: &[(Option<String>, Option<u16>)]| {
        let read = |(item, (ip, port)): (usize, &(Option<String>, Option<u16>))| {
            Endpoint::parse(ip.as_deref(), *port).map_err(|message| Fault::new(field, item, message))
        };
        list.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()
    };
    if !sources.is_empty() {
        conditions.push(Condition::Source(ends("sources", sources)?));
    }
    if !destinations.is_empty() {
        conditions.push(Condition::Destination(ends("destinations", destinations)?));
    }
    for (item, (name, values)) in headers.iter().enumerate() {
        let read = |text: &String| HeaderValue::parse(text).map_err(|p| Fault::regex("headers", item, p));
        let values = values.iter().map(read).collect::<Result<_, _>>()?;
        conditions.push(Condition::Header { name: FieldName::new(name), values });
    }
    Ok(conditions)
}

/// What the protocols of an expression route say of the connection. `https` alone says nothing, so that such a route
/// can answer plain requests with a redirect.
fn protocol_condition(protocols: &[String]) -> Option<Condition> {
    let has = |names: [&str; 2]| protocols.iter().any(|p| names.contains(&p.as_str()));
    match (has(["http", "grpc"]), has(["https", "grpcs"])) {
        (true, false) => Some(Condition::Tls(false)),
        (false, true) if protocols != ["https"] => Some(Condition::Tls(true)),
        _ => None,
    }
}

/// The paths that are ranked together, by position, with what the id of the part is derived from.
fn groups(spec: &RouteSpec, flavor: RouterFlavor) -> Vec<(Option<String>, Vec<usize>)> {
    let is_regex = |i: usize| spec.paths[i].starts_with('~');
    if flavor == RouterFlavor::Traditional {
        // One rank for all; inside it regexes come first, then longer prefixes.
        let mut items: Vec<usize> = (0..spec.paths.len()).collect();
        items.sort_by_key(|&i| if is_regex(i) { (0, 0) } else { (1, usize::MAX - spec.paths[i].len()) });
        return vec![(None, items)];
    }
    let mut groups: Vec<(Option<String>, Vec<usize>)> = Vec::new();
    for item in 0..spec.paths.len() {
        let name = if is_regex(item) { "true".to_owned() } else { spec.paths[item].len().to_string() };
        match groups.iter_mut().find(|(known, _)| known.as_ref() == Some(&name)) {
            Some((_, items)) => items.push(item),
            None => groups.push((Some(name), vec![item])),
        }
    }
    groups
}

/// The id of a part of a route, derived as Kong does.
fn split_id(id: &str, suffix: &str) -> Uuid {
    Uuid::new_v5(&SPLIT_NAMESPACE, format!("{}#{suffix}", id.to_ascii_lowercase()).as_bytes())
}

/// Ids compare as their texts in lower case do. Only a config with errors has one that is none.
fn id_of(spec: &RouteSpec) -> Uuid {
    Uuid::parse_str(&spec.id).unwrap_or_default()
}

fn path_alternative(
    parts: &mut Parts,
    known: &mut AHashMap<String, u32>,
    options: Options,
    path: &str,
    item: usize,
) -> Result<PathAlternative, Fault> {
    let Some(regex) = path.strip_prefix('~') else {
        return Ok(PathAlternative { prefix: path.into(), rule: PathRule::Prefix });
    };
    let id = match known.get(regex) {
        Some(id) => *id,
        None => {
            // The compatible flavor puts `^` before the text, so that it binds to the first branch of `a|b` only.
            let anchored = match options.flavor {
                RouterFlavor::Traditional => format!("^(?:{regex})"),
                _ => format!("^{regex}"),
            };
            let compiled = pattern::compile(regex, &anchored).map_err(|p| Fault::regex("paths", item, p))?;
            parts.regexes.push(compiled);
            let id = parts.regexes.len() as u32 - 1;
            known.insert(regex.to_owned(), id);
            id
        }
    };
    Ok(PathAlternative { prefix: pattern::literal_prefix(regex).into(), rule: PathRule::Regex(id) })
}
