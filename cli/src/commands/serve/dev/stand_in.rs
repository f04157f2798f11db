//! Putting stand-ins into the model for what cannot be reached.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;

use gw_runtime::model::Model;
use gw_runtime::model::schema::{Record, Val};
use gw_runtime::policy::redis_settings;
use gw_runtime::upstream::dns::Override;

use super::reach::{self, Fault};
use crate::render::count;

/// One thing that something else stands in for.
#[derive(Clone, Debug, PartialEq)]
pub struct StandIn {
    /// What the config names.
    pub what: String,
    /// What is the matter with it.
    pub why: &'static str,
    /// What stands in.
    pub with: String,
    /// Where its connections go instead, if it is a host.
    pub route: Option<Override>,
}

/// Plugins that count in Redis where their `policy` says so.
const COUNTING: &[&str] = &["rate-limiting", "response-ratelimiting"];

/// Puts them in.
pub fn put(model: &mut Model, resolve: &[Override], echo: SocketAddr) -> Vec<StandIn> {
    let mut all = upstreams(model, resolve, echo);
    all.extend(redis(model));
    all.extend(files(model));
    all
}

/// The echo server for upstream hosts without an address.
fn upstreams(model: &mut Model, resolve: &[Override], echo: SocketAddr) -> Vec<StandIn> {
    let named: HashSet<String> = model.upstreams.iter().map(|u| u.name.value.clone()).collect();
    let is_host = |host: &str| !host.is_empty() && !named.contains(host);
    let services = model.services.iter().filter(|s| s.enabled && is_host(&s.host.value));
    let places = services.map(|s| (s.host.value.clone(), s.port));
    let mut places: Vec<_> =
        places.chain(model.targets.iter().map(|t| (t.host.value.clone(), t.port))).collect();
    places.retain(|(host, port)| !resolve.iter().any(|o| fits(o, host, *port)));
    places.sort();
    places.dedup();
    let resolvable = reach::resolvable(places.iter().map(|(host, _)| host.clone()));
    places.retain(|(host, _)| !resolvable.get(host).copied().unwrap_or(true));
    let away: HashSet<_> = places.iter().cloned().collect();
    speak_clear_text(model, &named, &away);
    let stand_in = |(host, port): (String, u16)| StandIn {
        what: format!("{host}:{port}"),
        why: Fault::NoAddress.text(),
        with: format!("gw echo on {echo}"),
        route: Some(Override { host: Some(host), port: Some(port), addr: echo }),
    };
    places.into_iter().map(stand_in).collect()
}

fn fits(o: &Override, host: &str, port: u16) -> bool {
    o.host.as_deref().is_none_or(|h| h.eq_ignore_ascii_case(host)) && o.port.is_none_or(|p| p == port)
}

/// The echo server has no certificate that a service could verify.
fn speak_clear_text(model: &mut Model, named: &HashSet<String>, away: &HashSet<(String, u16)>) {
    // A target's upstream is known by name or by position, as the file nests it or not.
    let mut present: HashMap<&str, bool> = HashMap::new();
    for target in &model.targets {
        let upstream = match &target.upstream {
            Some(gw_runtime::model::Ref::Parent(i)) => model.upstreams.get(*i),
            Some(gw_runtime::model::Ref::Name(name)) => {
                model.upstreams.iter().find(|u| u.name.value == name.value || u.id == name.value)
            }
            None => None,
        };
        if let Some(upstream) = upstream {
            let here = !away.contains(&(target.host.value.clone(), target.port));
            *present.entry(upstream.name.value.as_str()).or_default() |= here;
        }
    }
    let all_away: HashSet<String> =
        present.iter().filter(|(_, here)| !**here).map(|(name, _)| (*name).to_owned()).collect();
    for service in &mut model.services {
        let host = &service.host.value;
        let echoed = match named.contains(host) {
            true => all_away.contains(host),
            false => away.contains(&(host.clone(), service.port)),
        };
        let clear = match service.protocol.value.as_str() {
            "https" => "http",
            "grpcs" => "grpc",
            _ => continue,
        };
        if echoed {
            clear.clone_into(&mut service.protocol.value);
            service.client_certificate = None;
            service.tls_verify = None;
            service.tls_verify_depth = None;
            service.ca_certificates.clear();
        }
    }
}

/// This process's memory for a Redis that does not answer.
fn redis(model: &mut Model) -> Vec<StandIn> {
    let default = redis_settings::of_gateway(model, &mut Vec::new());
    let default = default.map(|s| (s.host, s.port));
    let counts = |name: &str, config: &Record| {
        COUNTING.contains(&name) && matches!(config.str("policy"), Some("redis" | "hybrid"))
    };
    let place = |config: &Record| place_of_redis(config).or_else(|| default.clone());
    let users = model.plugins.iter().filter(|p| p.enabled && counts(&p.name.value, &p.config));
    let found = reach::connectable(users.filter_map(|p| place(&p.config)));
    let mut replaced: BTreeMap<(String, u16), (Fault, usize)> = BTreeMap::new();
    for plugin in model.plugins.iter_mut().filter(|p| p.enabled && counts(&p.name.value, &p.config)) {
        let Some(place) = place(&plugin.config) else { continue };
        let Some(fault) = found.get(&place).copied().flatten() else { continue };
        count_locally(&mut plugin.config);
        replaced.entry(place).or_insert((fault, 0)).1 += 1;
    }
    let stand_in = |((host, port), (fault, plugins)): ((String, u16), (Fault, usize))| StandIn {
        what: format!("{host}:{port}"),
        why: fault.text(),
        with: match plugins {
            1 => "counters in this process".to_owned(),
            n => format!("counters in this process, for {}", count(n, "plugin")),
        },
        route: None,
    };
    replaced.into_iter().map(stand_in).collect()
}

fn place_of_redis(config: &Record) -> Option<(String, u16)> {
    let nested = config.record("redis");
    for (list, host, port) in [("cluster_nodes", "ip", 6379), ("sentinel_nodes", "host", 26_379)] {
        if let Some(node) = nested.and_then(|r| r.records(list).next()) {
            let port = node.int("port").and_then(|n| u16::try_from(n).ok()).unwrap_or(port);
            return Some((node.str(host)?.trim_matches(['[', ']']).to_owned(), port));
        }
    }
    let host = nested.and_then(|r| r.str("host")).or_else(|| config.str("redis_host"))?;
    let given = nested.filter(|r| r.given("port")).and_then(|r| r.int("port"));
    let port = given.or_else(|| config.int("redis_port")).unwrap_or(6379);
    Some((host.trim_matches(['[', ']']).to_owned(), u16::try_from(port).unwrap_or(6379)))
}

fn count_locally(config: &mut Record) {
    // Settling with Redis needs one.
    config.fields.retain(|f| f.name != "sync_rate");
    for field in &mut config.fields {
        if field.name == "policy" {
            field.value.value = Val::Str("local".to_owned());
        }
    }
}

/// The development certificate for one that production has in a file of its own.
fn files(model: &mut Model) -> Vec<StandIn> {
    let tls = &mut model.gateway.tls;
    let missing = |path: &Option<std::path::PathBuf>| path.as_deref().is_some_and(|p| !Path::exists(p));
    if !missing(&tls.cert) && !missing(&tls.key) {
        return Vec::new();
    }
    let what = tls.cert.take().map(|p| p.display().to_string()).unwrap_or_default();
    tls.key = None;
    let with = "a development certificate".to_owned();
    vec![StandIn { what, why: "is not here, or its key is not", with, route: None }]
}
