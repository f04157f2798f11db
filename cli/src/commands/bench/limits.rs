//! The rate limits of a config that a run's requests are under.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gw_loadgen::limits::{Calendar, Limit, Member, Period, Rule, Weekday};
use gw_loadgen::plan::{Consumer, Draft, Target};
use gw_runtime::check::Checked;
use gw_runtime::compile::plugin_for;
use gw_runtime::limit::Calendar as Zones;
use gw_runtime::model::Model;
use gw_runtime::model::schema::Record;
use serde_json::Value;

use super::identity::Known;

/// The counter that a request falls on: one for each plugin, limit of its `limits` (none for Kong's fields) and identifier.
type Counter = (usize, Option<usize>, String);

/// Finds the limits, and what a user should know about those that cannot be proved. `senders` are the consumers' places in
/// the model, `routes` those of the targets.
pub fn of_config(
    model: &Checked<Model>,
    senders: &[Option<usize>],
    routes: &[usize],
    draft: &Draft,
    known: &mut Known,
) {
    let mut counters: BTreeMap<Counter, Vec<Member>> = BTreeMap::new();
    let mut notes = Vec::new();
    let names = &known.consumers;
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
    let mut refusals = Vec::new();
    for ((plugin, limit, _), members) in counters {
        let config = &model.plugins[plugin].config;
        let status = config.num("error_code").unwrap_or(429.0) as u16;
        // Kong's answer where the config names no error.
        let status = if (400..600).contains(&status) { status } else { 500 };
        if status >= 500 {
            notes.push(format!(
                "refusals have status {status}, so failures with that status are taken for refusals"
            ));
        }
        refusals.push(status);
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
    refusals.sort_unstable();
    refusals.dedup();
    (known.limits, known.refusals, known.notes) = (limits, refusals, notes);
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
            match unprovable(limit, config) {
                Some(why) => {
                    let name = limit.str("name").unwrap_or_default();
                    notes.push(format!("limit `{name}` cannot be proved: {why}"));
                }
                None => {
                    // Who has nothing of what is counted by is counted by address.
                    let nothing = parts.iter().all(Option::is_none);
                    let parts = if nothing { vec![Some(Self::address())] } else { parts };
                    let parts: Vec<String> = parts.into_iter().map(Option::unwrap_or_default).collect();
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

    /// A header that the requests carry; None without it.
    fn header(&self, name: &str) -> Option<String> {
        let own =
            self.own.headers.iter().find(|(n, _)| n.as_str().eq_ignore_ascii_case(name)).map(|(_, v)| v);
        let value = own.or_else(|| self.target.headers.get(name))?;
        Some(format!("header {}", String::from_utf8_lossy(value.as_bytes())))
    }

    /// A claim of the token that the requests carry: of this very name, else along the dots.
    fn claim(&self, name: &str) -> Option<String> {
        let tokens = self.own.headers.iter().filter_map(|(_, v)| v.to_str().ok());
        let payload = tokens.filter_map(|v| v.strip_prefix("Bearer ")).find_map(|t| t.split('.').nth(1))?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let along = || name.split('.').try_fold(&claims, |at, step| at.get(step));
        let found = claims.get(name).or_else(along).filter(|v| !v.is_null())?;
        Some(format!("claim {found}"))
    }

    /// By Kong's `limit_by`.
    fn kongs(&self, config: &Record) -> String {
        match config.str("limit_by").unwrap_or("consumer") {
            "consumer" | "credential" => self.consumer(),
            "service" => self.service(),
            "header" => self.header(config.str("header_name").unwrap_or("")).unwrap_or_else(Self::address),
            "path" if config.str("path") == Some(self.target.uri.path()) => {
                format!("path {}", self.target.uri.path())
            }
            _ => Self::address(),
        }
    }

    /// By one word of a `by` list; None where the requests have no such thing.
    fn part(&self, word: &str) -> Option<String> {
        match word.split_once(':') {
            Some(("header", name)) => self.header(name),
            Some((_, name)) => self.claim(name),
            None => match word {
                "consumer" | "credential" => self.consumer.map(|_| self.consumer()),
                "service" => Some(self.service()),
                "upstream" => Some(self.upstream()),
                "route" => Some(format!("route {}", self.model.routes[self.route].id)),
                "path" => Some(format!("path {}", self.target.uri.path())),
                _ => Some(Self::address()),
            },
        }
    }

    /// The upstream that the service names, else the service.
    fn upstream(&self) -> String {
        let links = self.model.links();
        let service = links.route_service.get(self.route).copied().flatten();
        let upstream = service.and_then(|s| links.service_upstream.get(s).copied().flatten());
        upstream.map_or_else(|| self.service(), |u| format!("upstream {}", self.model.upstreams[u].id))
    }
}

/// Why a limit's promise cannot be held against what is seen from outside.
fn unprovable(limit: &Record, config: &Record) -> Option<&'static str> {
    let says = |name: &str| limit.get(name).or_else(|| config.get(name)).is_some();
    (limit.get("cost_header").is_some() || says("weight_header"))
        .then_some("requests do not all weigh the same")
}

fn period(name: &str) -> Option<Period> {
    Period::ALL.into_iter().find(|p| p.name() == name)
}

/// What a limit is, in the numbers of the config.
struct Written<'a> {
    algorithm: &'a str,
    period: Period,
    limit: f64,
    burst: f64,
    /// How many requests each request counts as.
    weight: f64,
    /// Milliseconds that a request may wait for its turn.
    delay_ms: f64,
    /// None for days, weeks, months and years of UTC.
    calendar: Option<Calendar>,
}

/// The rule of one of `limits`.
fn named_rule(limit: &Record, config: &Record) -> Option<Rule> {
    let algorithm = limit.str("algorithm").or(config.str("algorithm")).unwrap_or("fixed-window");
    let period = period(limit.str("period")?)?;
    let own = if algorithm == "smooth" { 1.0 } else { limit.num("limit")? };
    Some(rule(Written {
        algorithm,
        period,
        limit: limit.num("limit")?,
        burst: limit.num("burst").unwrap_or(own).max(1.0),
        weight: limit.int("weight").or(config.int("weight")).unwrap_or(1) as f64,
        delay_ms: config.num("delay").unwrap_or(0.0),
        calendar: calendar(limit, period),
    }))
}

fn calendar(limit: &Record, period: Period) -> Option<Calendar> {
    let zone = limit.str("time_zone").unwrap_or("UTC");
    let week_start = match limit.str("week_start") {
        Some("tuesday") => Weekday::Tuesday,
        Some("wednesday") => Weekday::Wednesday,
        Some("thursday") => Weekday::Thursday,
        Some("friday") => Weekday::Friday,
        Some("saturday") => Weekday::Saturday,
        Some("sunday") => Weekday::Sunday,
        _ => Weekday::Monday,
    };
    let other = limit.get("time_zone").is_some() || week_start != Weekday::Monday;
    other.then(|| Some(Calendar { period, zone: Zones::zone(zone)?, week_start }))?
}

/// One rule for each period; of token buckets only the shortest has the burst that was given.
fn rules(config: &Record) -> Vec<Rule> {
    let algorithm = config.str("algorithm").unwrap_or("fixed-window");
    let periods = Period::ALL.into_iter().filter_map(|p| Some((p, config.num(p.name())?)));
    let each = |(place, (period, limit)): (usize, (Period, f64))| {
        let own = if algorithm == "smooth" { 1.0 } else { limit };
        let burst = if place == 0 { config.num("burst").unwrap_or(own) } else { limit };
        rule(Written {
            algorithm,
            period,
            limit,
            burst,
            weight: config.int("weight").unwrap_or(1) as f64,
            delay_ms: config.num("delay").unwrap_or(0.0),
            calendar: None,
        })
    };
    periods.enumerate().map(each).collect()
}

/// The same in requests, each of which counts as `weight`.
fn rule(w: Written<'_>) -> Rule {
    let per_second = w.limit / seconds(w.period);
    match w.algorithm {
        "sliding-window" => {
            Rule::SlidingCounter { limit: (w.limit / w.weight).floor() as u64, period: w.period }
        }
        "token-bucket" | "smooth" => {
            let (burst, waiting) = (w.burst / w.weight, per_second * w.delay_ms / 1000.0 / w.weight);
            let per_second = per_second / w.weight;
            match waiting > 0.0 {
                true => Rule::WaitingBucket { per_second, burst, waiting },
                false => Rule::TokenBucket { per_second, burst },
            }
        }
        _ => {
            // A window admits while more than the weight less one is left, be it a fraction more.
            let limit = ((w.limit - w.weight + 1.0) / w.weight).ceil() as u64;
            match w.calendar {
                Some(calendar) => Rule::CalendarWindow { limit, calendar },
                None => Rule::FixedWindow { limit, period: w.period },
            }
        }
    }
}

/// As limits count them: a month has 30 days and a year 365.
fn seconds(period: Period) -> f64 {
    match period {
        Period::Second => 1.0,
        Period::Minute => 60.0,
        Period::Hour => 3_600.0,
        Period::Day => 86_400.0,
        Period::Week => 7.0 * 86_400.0,
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
