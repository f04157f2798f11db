//! The rate limits of a config that a run's requests are under.

use std::collections::BTreeMap;

use gw_loadgen::limits::{Limit, Member, Period, Rule};
use gw_loadgen::plan::{Consumer, Draft, Target};
use gw_runtime::check::Checked;
use gw_runtime::compile::plugin_for;
use gw_runtime::model::Model;
use gw_runtime::model::schema::Record;

/// The counter that a request falls on: one for each plugin and identifier.
type Counter = (usize, String);

/// The limits, and what a user should know about those that cannot be proved. `senders` are the consumers' places in the
/// model, `routes` those of the targets.
pub fn of_config(
    model: &Checked<Model>,
    senders: &[Option<usize>],
    routes: &[usize],
    draft: &Draft,
    names: &[Consumer],
) -> (Vec<Limit>, Vec<String>) {
    let mut counters: BTreeMap<Counter, Vec<Member>> = BTreeMap::new();
    let mut notes = Vec::new();
    for (consumer, sender) in senders.iter().enumerate() {
        for (target, &route) in routes.iter().enumerate() {
            match plugin_for(model, "rate-limiting", route, *sender) {
                Some(plugin) => {
                    let id =
                        identifier(model, plugin, *sender, route, &draft.targets[target], &names[consumer]);
                    counters.entry((plugin, id)).or_default().push(Member { consumer, target });
                }
                None => notes.push(format!(
                    "no `rate-limiting` plugin applies to `{}` on {}",
                    names[consumer].name, draft.targets[target].uri
                )),
            }
            if plugin_for(model, "response-ratelimiting", route, *sender).is_some() {
                notes.push(format!(
                    "`response-ratelimiting` applies on {}: its refusals are 429, too, and look like those of `rate-limiting`",
                    draft.targets[target].uri
                ));
            }
        }
    }
    let mut limits = Vec::new();
    for ((plugin, _), members) in counters {
        let config = &model.plugins[plugin].config;
        let status = config.num("error_code").unwrap_or(429.0);
        if status != 429.0 {
            notes.push(format!(
                "refusals have status {status} by `error_code`, so limits cannot be told from failures"
            ));
            continue;
        }
        let place = place(model, plugin);
        limits.extend(rules(config).into_iter().map(|rule| Limit {
            name: format!("`rate-limiting` {place}"),
            rule,
            members: members.clone(),
            counts_rejected: counts_rejected(config),
        }));
    }
    notes.sort();
    notes.dedup();
    (limits, notes)
}

/// What a request is counted by, as the plugin chooses it.
fn identifier(
    model: &Checked<Model>,
    plugin: usize,
    sender: Option<usize>,
    route: usize,
    target: &Target,
    consumer: &Consumer,
) -> String {
    let config = &model.plugins[plugin].config;
    let address = || "address".to_owned();
    match config.str("limit_by").unwrap_or("consumer") {
        "consumer" | "credential" => {
            sender.map_or_else(address, |c| format!("consumer {}", model.consumers[c].id))
        }
        "service" => {
            let service = model.links().route_service.get(route).copied().flatten();
            service.map_or_else(address, |s| format!("service {}", model.services[s].id))
        }
        "header" => {
            let name = config.str("header_name").unwrap_or("");
            let own =
                consumer.headers.iter().find(|(n, _)| n.as_str().eq_ignore_ascii_case(name)).map(|(_, v)| v);
            let value = own.or_else(|| target.headers.get(name));
            value.map_or_else(address, |v| format!("header {}", String::from_utf8_lossy(v.as_bytes())))
        }
        "path" if config.str("path") == Some(target.uri.path()) => format!("path {}", target.uri.path()),
        _ => address(),
    }
}

/// One rule for each period; of token buckets only the shortest has the burst that was given.
fn rules(config: &Record) -> Vec<Rule> {
    let algorithm = config.str("algorithm").unwrap_or("fixed-window");
    let periods = Period::ALL.into_iter().filter_map(|p| Some((p, config.num(p.name())?)));
    let rule = |(place, (period, limit)): (usize, (Period, f64))| {
        // A window admits while anything is left, be it a fraction.
        let whole = limit.ceil() as u64;
        match algorithm {
            "sliding-window" => Rule::SlidingCounter { limit: limit.floor() as u64, period },
            "token-bucket" | "smooth" => {
                let own = if algorithm == "smooth" { 1.0 } else { limit };
                let burst = if place == 0 { config.num("burst").unwrap_or(own) } else { limit };
                Rule::TokenBucket { per_second: limit / seconds(period), burst }
            }
            _ => Rule::FixedWindow { limit: whole, period },
        }
    };
    periods.enumerate().map(rule).collect()
}

/// As limits count them: a month has 30 days and a year 365.
fn seconds(period: Period) -> f64 {
    match period {
        Period::Second => 1.0,
        Period::Minute => 60.0,
        Period::Hour => 3_600.0,
        Period::Day => 86_400.0,
        Period::Month => 30.0 * 86_400.0,
        Period::Year => 365.0 * 86_400.0,
    }
}

fn counts_rejected(config: &Record) -> bool {
    config.bool_opt("count_rejected").unwrap_or_else(|| config.str("policy") == Some("redis"))
}

/// Where a plugin stands, for people.
fn place(model: &Checked<Model>, plugin: usize) -> String {
    let scope = model.links().plugin_scope.get(plugin).copied().unwrap_or_default();
    let route = scope.route.map(|i| format!("route `{}`", name(&model.routes[i].name, &model.routes[i].id)));
    let service =
        scope.service.map(|i| format!("service `{}`", name(&model.services[i].name, &model.services[i].id)));
    let consumer = scope
        .consumer
        .map(|i| format!("consumer `{}`", name(&model.consumers[i].username, &model.consumers[i].id)));
    let group = scope.consumer_group.map(|i| format!("group `{}`", model.consumer_groups[i].name.value));
    let parts: Vec<_> = [consumer, group, route, service].into_iter().flatten().collect();
    if parts.is_empty() { "for everything".to_owned() } else { format!("of {}", parts.join(", ")) }
}

fn name<'a>(name: &'a Option<gw_runtime::source::Spanned<String>>, id: &'a str) -> &'a str {
    name.as_ref().map_or(id, |n| n.value.as_str())
}
