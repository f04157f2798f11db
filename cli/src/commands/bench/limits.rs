//! The rate limits of a config that a run's requests are under.

use std::collections::BTreeMap;

use gw_loadgen::limits::{Limit, Member, Period, Rule};
use gw_loadgen::plan::{Consumer, Draft, Target};
use gw_runtime::check::Checked;
use gw_runtime::compile::plugin_for;
use gw_runtime::model::Model;
use gw_runtime::model::schema::Record;

/// The counter that a request falls on: one for each plugin, limit of its `limits` (none for Kong's fields) and identifier.
type Counter = (usize, Option<usize>, String);

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
            let sender = Sender {
                model,
                consumer: *sender,
                route,
                target: &draft.targets[target],
                own: &names[consumer],
            };
            match plugin_for(model, "rate-limiting", route, sender.consumer) {
                Some(plugin) => {
                    for (limit, id) in sender.identifiers(&model.plugins[plugin].config, &mut notes) {
                        counters.entry((plugin, limit, id)).or_default().push(Member { consumer, target });
                    }
                }
                None => notes.push(format!(
                    "no `rate-limiting` plugin applies to `{}` on {}",
                    names[consumer].name, draft.targets[target].uri
                )),
            }
            if plugin_for(model, "response-ratelimiting", route, sender.consumer).is_some() {
                notes.push(format!(
                    "`response-ratelimiting` applies on {}: its refusals are 429, too, and look like those of `rate-limiting`",
                    draft.targets[target].uri
                ));
            }
        }
    }
    let mut limits = Vec::new();
    for ((plugin, limit, _), members) in counters {
        let config = &model.plugins[plugin].config;
        let status = config.num("error_code").unwrap_or(429.0);
        if status != 429.0 {
            notes.push(format!(
                "refusals have status {status} by `error_code`, so limits cannot be told from failures"
            ));
            continue;
        }
        let place = place(model, plugin);
        let named = limit.and_then(|i| config.records("limits").nth(i));
        let (name, rules) = match named {
            Some(limit) => {
                let name = limit.str("name").unwrap_or_default();
                (format!("`{name}` {place}"), named_rule(limit, config).into_iter().collect())
            }
            None => (format!("`rate-limiting` {place}"), rules(config)),
        };
        limits.extend(rules.into_iter().map(|rule| Limit {
            name: name.clone(),
            rule,
            members: members.clone(),
            counts_rejected: counts_rejected(config),
        }));
    }
    notes.sort();
    notes.dedup();
    (limits, notes)
}

/// Who sends what where.
struct Sender<'a> {
    model: &'a Checked<Model>,
    consumer: Option<usize>,
    route: usize,
    target: &'a Target,
    own: &'a Consumer,
}

impl Sender<'_> {
    /// What a request is counted by under each limit of a plugin.
    fn identifiers(&self, config: &Record, notes: &mut Vec<String>) -> Vec<(Option<usize>, String)> {
        let mut all = Vec::new();
        if config.bool("dry_run") {
            return all;
        }
        if Period::ALL.iter().any(|p| config.num(p.name()).is_some()) {
            if let Some(why) = unprovable(config, config) {
                notes.push(format!("limits cannot be proved: {why}"));
            } else {
                all.push((None, self.kongs(config)));
            }
        }
        for (i, limit) in config.records("limits").enumerate().filter(|(_, l)| !l.bool("dry_run")) {
            let parts: Vec<_> = limit.strings("by").iter().map(|p| self.part(&p.value)).collect();
            let why = unprovable(limit, config)
                .or(parts.iter().any(Option::is_none).then_some("its key is made from a token's claims"));
            match why {
                Some(why) => {
                    let name = limit.str("name").unwrap_or_default();
                    notes.push(format!("limit `{name}` cannot be proved: {why}"));
                }
                None => {
                    let parts: Vec<String> = parts.into_iter().flatten().collect();
                    all.push((Some(i), parts.join(", ")));
                }
            }
        }
        all
    }

    fn address() -> String {
        "address".to_owned()
    }

    fn consumer(&self) -> String {
        self.consumer.map_or_else(Self::address, |c| format!("consumer {}", self.model.consumers[c].id))
    }

    fn service(&self) -> String {
        let service = self.model.links().route_service.get(self.route).copied().flatten();
        service.map_or_else(Self::address, |s| format!("service {}", self.model.services[s].id))
    }

    fn header(&self, name: &str) -> String {
        let own =
            self.own.headers.iter().find(|(n, _)| n.as_str().eq_ignore_ascii_case(name)).map(|(_, v)| v);
        let value = own.or_else(|| self.target.headers.get(name));
        value.map_or_else(Self::address, |v| format!("header {}", String::from_utf8_lossy(v.as_bytes())))
    }

    /// By Kong's `limit_by`.
    fn kongs(&self, config: &Record) -> String {
        match config.str("limit_by").unwrap_or("consumer") {
            "consumer" | "credential" => self.consumer(),
            "service" => self.service(),
            "header" => self.header(config.str("header_name").unwrap_or("")),
            "path" if config.str("path") == Some(self.target.uri.path()) => {
                format!("path {}", self.target.uri.path())
            }
            _ => Self::address(),
        }
    }

    /// By one word of a `by` list; None where only the gateway knows.
    fn part(&self, word: &str) -> Option<String> {
        Some(match word.split_once(':') {
            Some(("header", name)) => self.header(name),
            Some(_) => return None,
            None => match word {
                "consumer" | "credential" => self.consumer(),
                "service" => self.service(),
                "route" => format!("route {}", self.model.routes[self.route].id),
                "path" => format!("path {}", self.target.uri.path()),
                _ => Self::address(),
            },
        })
    }
}

/// Why a limit's promise cannot be held against what is seen from outside.
fn unprovable(limit: &Record, config: &Record) -> Option<&'static str> {
    let says = |name: &str| limit.get(name).or_else(|| config.get(name)).is_some();
    if limit.get("cost_header").is_some() || says("weight_header") || says("weight") {
        Some("requests do not all weigh 1")
    } else if config.get("delay").is_some() {
        Some("requests may wait for their turn")
    } else if limit.get("time_zone").is_some() || limit.str("period") == Some("week") {
        Some("its windows are not those of UTC days, months or years")
    } else {
        None
    }
}

fn period(name: &str) -> Option<Period> {
    Period::ALL.into_iter().find(|p| p.name() == name)
}

/// The rule of one of `limits`.
fn named_rule(limit: &Record, config: &Record) -> Option<Rule> {
    let algorithm = limit.str("algorithm").or(config.str("algorithm")).unwrap_or("fixed-window");
    let own = if algorithm == "smooth" { 1.0 } else { limit.num("limit")? };
    let burst = limit.num("burst").unwrap_or(own).max(1.0);
    Some(rule(algorithm, period(limit.str("period")?)?, limit.num("limit")?, burst))
}

/// One rule for each period; of token buckets only the shortest has the burst that was given.
fn rules(config: &Record) -> Vec<Rule> {
    let algorithm = config.str("algorithm").unwrap_or("fixed-window");
    let periods = Period::ALL.into_iter().filter_map(|p| Some((p, config.num(p.name())?)));
    let each = |(place, (period, limit)): (usize, (Period, f64))| {
        let own = if algorithm == "smooth" { 1.0 } else { limit };
        let burst = if place == 0 { config.num("burst").unwrap_or(own) } else { limit };
        rule(algorithm, period, limit, burst)
    };
    periods.enumerate().map(each).collect()
}

fn rule(algorithm: &str, period: Period, limit: f64, burst: f64) -> Rule {
    match algorithm {
        "sliding-window" => Rule::SlidingCounter { limit: limit.floor() as u64, period },
        "token-bucket" | "smooth" => Rule::TokenBucket { per_second: limit / seconds(period), burst },
        // A window admits while anything is left, be it a fraction.
        _ => Rule::FixedWindow { limit: limit.ceil() as u64, period },
    }
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
