//! From the config to limits, grouped by what is decided on in one step.

use std::collections::HashSet;
use std::sync::Arc;

use super::fields::MAX_WEIGHT;
use super::{Group, OnError, Store, Weight};
use crate::diag::suggest::nearest;
use crate::diag::{Diagnostic, Severity, codes};
use crate::limit::calendar::Weekday;
use crate::limit::lease::{self, LeaseStores};
use crate::limit::local::SyncStores;
use crate::limit::{self, Algorithm, Calendar, MAX_RULES, Period, Rule, Rules};
use crate::message::FieldName;
use crate::model::Ref;
use crate::model::schema::Record;
use crate::policy::limit_by::{LimitBy, Part};
use crate::policy::{Cx, config as fields, limiting, redis_settings};
use crate::source::Span;

/// The least `sync_rate`, in seconds.
const LEAST_SYNC: f64 = 0.02;

/// Most limits of one plugin.
const MAX_LIMITS: usize = 16;

/// Milliseconds until what a response cost is known to other gateways.
const SETTLE_MS: u64 = 20;

/// The limits of `config`, those that refuse nothing last. `None` after a finding.
pub(super) fn groups(config: &Record, cx: &mut Cx<'_>) -> Option<Vec<Group>> {
    let mut all = Groups { groups: Vec::new(), names: HashSet::new(), config };
    let scope = limit::scope(cx.route_id, cx.service_id);
    let kongs = Period::KONG.iter().any(|p| fields::says(config, p.name()));
    let mut fine = true;
    if kongs || !fields::says(config, "limits") {
        let by = limit_by(config, cx);
        let weight = weight(config, config, cx);
        for rule in kong_rules(config, cx)? {
            fine &= all.add(rule, by.clone()?, weight.clone()?, false, &scope, cx).is_some();
        }
    } else {
        // They say nothing without Kong's fields.
        for field in ["limit_by", "burst"].into_iter().filter(|f| config.given(f)) {
            let message = format!("`{field}` belongs to `minute` and the like, of which there are none");
            let finding = Diagnostic::new(&codes::CONFLICTING_FIELDS, config.span_of(field), message);
            let own = if field == "burst" { "burst" } else { "by" };
            cx.diags.push(finding.help(format!("give each of `limits` its own `{own}`")));
            fine = false;
        }
    }
    for limit in config.records("limits") {
        fine &= named_limit(limit, config, &scope, &mut all, cx).is_some();
    }
    let mut groups = all.groups;
    fine &= delays(config, &mut groups, cx).is_some();
    groups.sort_by_key(|g| g.dry_run);
    fine.then_some(groups)
}

struct Groups<'a> {
    groups: Vec<Group>,
    names: HashSet<String>,
    config: &'a Record,
}

impl Groups<'_> {
    /// Files a limit with those of the same key and weight.
    fn add(
        &mut self,
        rule: Rule,
        by: LimitBy,
        weight: Weight,
        dry_run: bool,
        scope: &str,
        cx: &mut Cx<'_>,
    ) -> Option<()> {
        let span = self.config.span_of("limits");
        if !self.names.insert(rule.name().to_ascii_lowercase()) {
            let message = format!("two limits are called `{}`", rule.name());
            cx.report(&codes::CONFLICTING_FIELDS, span, message);
            return None;
        }
        if self.names.len() > MAX_LIMITS {
            cx.report(&codes::INVALID_VALUE, span, format!("a plugin has at most {MAX_LIMITS} limits"));
            return None;
        }
        let dry_run = dry_run || self.config.bool("dry_run");
        let same = |g: &&mut Group| {
            (&g.by, &g.weight, g.dry_run) == (&by, &weight, dry_run) && g.rules.rules.len() < MAX_RULES
        };
        if let Some(group) = self.groups.iter_mut().find(same) {
            Arc::make_mut(&mut group.rules).rules.push(rule);
            return Some(());
        }
        let redis = self.config.str("policy") == Some("redis");
        let count_rejected =
            self.config.bool_opt("count_rejected").unwrap_or(redis) || matches!(weight, Weight::Cost(..));
        let scope = format!("{scope}{}", by.tag());
        let rules = Arc::new(Rules { rules: vec![rule], count_rejected });
        self.groups.push(Group { rules, queued: None, by, scope, weight, dry_run });
        Some(())
    }
}

/// One of `limits`.
fn named_limit(
    limit: &Record,
    config: &Record,
    scope: &str,
    all: &mut Groups<'_>,
    cx: &mut Cx<'_>,
) -> Option<()> {
    let name = limit.str("name")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        let message = format!("`{name}` cannot name a limit");
        let finding = Diagnostic::new(&codes::INVALID_VALUE, limit.span_of("name"), message);
        cx.diags.push(
            finding.help("use up to 64 letters, digits, `-`, `_` and `.`: it becomes part of header names"),
        );
        return None;
    }
    let period = Period::named(limit.str("period")?)?;
    let word = limit.str("algorithm").or(config.str("algorithm")).unwrap_or("fixed-window");
    let amount = limit.num("limit")?;
    let burst = burst(limit, word, amount, cx)?;
    let mut rule = Rule::new(algorithm(word), period, amount).with_burst(burst, 0.0).named(name);
    if let Some(calendar) = calendar(limit, &rule, cx)? {
        rule = rule.by_calendar(calendar);
    }
    let ipv6 = config.int("ipv6_prefix").and_then(|n| u8::try_from(n).ok()).unwrap_or(64);
    let by = LimitBy::read(&limit.strings("by"), ipv6, cx)?;
    let weight = weight(limit, config, cx)?;
    if let Weight::Constant(n) = weight
        && f64::from(n) > rule.capacity().ceil()
    {
        let span = if limit.given("weight") { limit.span_of("weight") } else { limit.span_of("limit") };
        let message =
            format!("a request that weighs {n} never fits into `{name}`, which holds {}", rule.capacity());
        cx.report(&codes::INVALID_VALUE, span, message);
        return None;
    }
    all.add(rule, by, weight, limit.bool("dry_run"), scope, cx)
}

fn algorithm(word: &str) -> Algorithm {
    match word {
        "sliding-window" => Algorithm::Sliding,
        "token-bucket" | "smooth" => Algorithm::Bucket,
        _ => Algorithm::Fixed,
    }
}

/// The capacity of a bucket; for windows their limit, which nobody looks at.
fn burst(record: &Record, word: &str, limit: f64, cx: &mut Cx<'_>) -> Option<f64> {
    let default = match word {
        "token-bucket" => Some(limit),
        "smooth" => Some(1.0),
        _ => None,
    };
    match (record.num("burst"), default) {
        (Some(_), None) => {
            let span = record.span_of("burst");
            let message = "`burst` has no meaning for a window: only `token-bucket` and `smooth` know bursts";
            let finding = Diagnostic::new(&codes::CONFLICTING_FIELDS, span, message);
            cx.diags.push(finding.help("set `algorithm: token-bucket`, or remove `burst`"));
            None
        }
        (Some(burst), Some(_)) if burst < 1.0 => {
            let message = format!("`burst` {burst} is less than one request, so none would ever pass");
            cx.report(&codes::INVALID_VALUE, record.span_of("burst"), message);
            None
        }
        // A limit below one request a period still lets one through at a time.
        (given, default) => Some(given.or(default).unwrap_or(limit).max(1.0)),
    }
}

/// Kong's limits.
fn kong_rules(config: &Record, cx: &mut Cx<'_>) -> Option<Vec<Rule>> {
    let word = config.str("algorithm").unwrap_or("fixed-window");
    let rules = limiting::periods(config, "config.", algorithm(word), cx)?;
    let shortest = burst(config, word, rules.first()?.limit, cx)?;
    let each = rules.into_iter().enumerate().map(|(i, rule)| {
        let burst = if i == 0 { shortest } else { rule.limit.max(1.0) };
        rule.with_burst(burst, 0.0)
    });
    Some(each.collect())
}

fn calendar(limit: &Record, rule: &Rule, cx: &mut Cx<'_>) -> Option<Option<Calendar>> {
    let fixed = rule.algorithm == Algorithm::Fixed && rule.period >= Period::Day;
    for field in ["time_zone", "week_start"].into_iter().filter(|f| limit.given(f)) {
        let fits = fixed && (field == "time_zone" || rule.period == Period::Week);
        if !fits {
            let what = if field == "time_zone" {
                "days, weeks, months and years of a `fixed-window`"
            } else {
                "weeks of a `fixed-window`"
            };
            let message = format!("`{field}` has no meaning here: only {what} follow a calendar");
            cx.report(&codes::CONFLICTING_FIELDS, limit.span_of(field), message);
            return None;
        }
    }
    let zone = match limit.str("time_zone") {
        None => None,
        Some(name) => match Calendar::zone(name) {
            Some(zone) => Some(zone),
            None => {
                unknown_zone(name, limit.span_of("time_zone"), cx);
                return None;
            }
        },
    };
    let week_start = match limit.str("week_start") {
        Some("tuesday") => Weekday::Tuesday,
        Some("wednesday") => Weekday::Wednesday,
        Some("thursday") => Weekday::Thursday,
        Some("friday") => Weekday::Friday,
        Some("saturday") => Weekday::Saturday,
        Some("sunday") => Weekday::Sunday,
        _ => Weekday::Monday,
    };
    if !fixed || (zone.is_none() && week_start == Weekday::Monday) {
        return Some(None);
    }
    let zone = zone.or_else(|| Calendar::zone("UTC"))?;
    Some(Some(Calendar::new(rule.period, zone, week_start)))
}

fn unknown_zone(name: &str, span: Span, cx: &mut Cx<'_>) {
    let zones = Calendar::zones();
    let last = |zone: &str| zone.rsplit('/').next().unwrap_or_default().to_owned();
    let near = nearest(name, zones.iter().map(String::as_str)).map(str::to_owned).or_else(|| {
        // `Berlin` for `Europe/Berlin`.
        zones.iter().find(|z| last(z).eq_ignore_ascii_case(&last(name))).cloned()
    });
    let message = format!("there is no time zone `{name}`");
    let finding = Diagnostic::new(&codes::INVALID_VALUE, span, message);
    cx.diags.push(finding.help(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "use an IANA name such as `Europe/Berlin`, `America/New_York` or `UTC`".to_owned(),
    }));
}

/// What a request weighs under `record`, which may be the plugin's config itself.
fn weight(record: &Record, config: &Record, cx: &mut Cx<'_>) -> Option<Weight> {
    if cx.conflict(
        record,
        "weight_header",
        "cost_header",
        "a weight is known before the response or after it, not both",
    ) {
        return None;
    }
    let constant = record.int("weight").or(config.int("weight")).unwrap_or(1).clamp(1, MAX_WEIGHT) as u32;
    let header = |r: &Record, name: &str| r.str(name).map(FieldName::new);
    if let Some(name) = header(record, "cost_header") {
        return Some(Weight::Cost(name, constant));
    }
    Some(match header(record, "weight_header").or_else(|| header(config, "weight_header")) {
        Some(name) => Weight::Header(name, constant),
        None => Weight::Constant(constant),
    })
}

/// Gives buckets the queue that `delay` asks for.
fn delays(config: &Record, groups: &mut [Group], cx: &mut Cx<'_>) -> Option<()> {
    let Some(delay_ms) = config.int("delay") else { return Some(()) };
    let mut any = false;
    for group in groups.iter_mut().filter(|g| !g.dry_run) {
        let mut queued = (*group.rules).clone();
        for rule in queued.rules.iter_mut().filter(|r| r.algorithm == Algorithm::Bucket) {
            any = true;
            rule.queue = rule.limit * delay_ms as f64 / (rule.period.seconds() * 1000) as f64;
        }
        group.queued = Some(Arc::new(queued));
    }
    if any {
        return Some(());
    }
    let message = "`delay` has no meaning for windows: nobody knows when a turn comes";
    let finding = Diagnostic::new(&codes::CONFLICTING_FIELDS, config.span_of("delay"), message);
    cx.diags.push(finding.help("set `algorithm: token-bucket` or `smooth`, or remove `delay`"));
    None
}

fn limit_by(config: &Record, cx: &mut Cx<'_>) -> Option<LimitBy> {
    let by = config.str("limit_by").unwrap_or("consumer");
    let mut needed = |name: &str, example: &str| {
        let value = config.str(name).map(str::to_owned);
        if value.is_none() {
            let message = format!("`{name}`: required field missing, as `limit_by` is `{by}`");
            let finding = Diagnostic::new(&codes::MISSING_ALTERNATIVE, config.span_of("limit_by"), message);
            cx.diags.push(finding.help(format!("add `{name}: {example}`")));
        }
        value
    };
    let part = match by {
        "credential" => Part::Credential,
        "ip" => Part::Ip,
        "service" => Part::Service,
        "header" => Part::Header(FieldName::new(&needed("header_name", "X-Api-Client")?)),
        "path" => Part::OnePath(needed("path", "/search")?),
        _ => Part::Consumer,
    };
    let ipv6 = config.int("ipv6_prefix").and_then(|n| u8::try_from(n).ok());
    Some(LimitBy::one(part).with_ipv6_prefix(ipv6.unwrap_or(128)))
}

/// Where counters live.
pub(super) fn store(config: &Record, groups: Option<&[Group]>, cx: &mut Cx<'_>) -> Option<Store> {
    let rate = config.num("sync_rate").unwrap_or(-1.0);
    let synced = rate != -1.0;
    let policy = config.str("policy").unwrap_or("local");
    let hybrid = policy == "hybrid";
    if policy != "redis" && synced {
        let message = "sync_rate can only be used with the redis policy";
        cx.report(&codes::CONFLICTING_FIELDS, config.span_of("sync_rate"), message);
        return None;
    }
    if policy == "local" {
        return Some(Store::Local);
    }
    if hybrid && config.bool("count_rejected") {
        let message = "`count_rejected` cannot be told by a gateway that does not ask Redis";
        let finding = Diagnostic::new(&codes::CONFLICTING_FIELDS, config.span_of("count_rejected"), message);
        cx.diags.push(finding.help("remove `count_rejected`, or use `policy: redis`"));
        return None;
    }
    if synced && rate < LEAST_SYNC {
        let message = format!("`sync_rate` {rate} is neither -1 nor at least {LEAST_SYNC}");
        let finding = Diagnostic::new(&codes::INVALID_VALUE, config.span_of("sync_rate"), message);
        cx.diags.push(finding.help("use -1 to ask Redis at every request, or a number of seconds such as 1"));
        return None;
    }
    let settings = redis_settings::of_plugin(config, cx)?;
    let stores = cx.shared.get::<SyncStores>();
    let sync = synced.then(|| stores.get(&settings, (rate * 1000.0).round() as u64));
    let costs = stores.get(&settings, SETTLE_MS);
    // Keys that are decided on together, queues and costs need to know the counters as they are.
    let alone = groups
        .is_some_and(|g| matches!(g, [g] if !matches!(g.weight, Weight::Cost(..)) && g.queued.is_none()));
    let share = if hybrid { config.num("lease_share").unwrap_or(5.0) / 100.0 } else { 0.0 };
    if let (true, true, Some([group])) = (alone, hybrid, groups) {
        bound(share, &group.rules, config, cx);
    }
    let lease = (alone && !synced).then(|| cx.shared.get::<LeaseStores>().get(&settings, share));
    Some(Store::Redis { settings, sync, lease, costs })
}

/// Says how far leases may be off.
fn bound(share: f64, rules: &Rules, config: &Record, cx: &mut Cx<'_>) {
    let most = lease::most(share, rules);
    let message = match rules.rules.iter().all(|r| r.algorithm == Algorithm::Fixed) {
        true => format!(
            "each gateway may hold {most} of this limit in advance: N gateways never admit more than the limit in a \
             window, but N × {most} may lie unused for up to a second"
        ),
        false => format!(
            "each gateway may hold {most} of this limit in advance: N gateways may admit N × {most} more than it in any \
             stretch of time"
        ),
    };
    let finding = Diagnostic::new(&codes::LEASE_BOUND, config.span_of("policy"), message);
    cx.diags.push(finding.label(format!("`lease_share` is {} percent", share * 100.0)));
}

/// The name of the consumer group that the plugin belongs to.
pub(super) fn plan(cx: &Cx<'_>) -> Option<String> {
    let groups = &cx.model.consumer_groups;
    let group = match cx.plugin.consumer_group.as_ref()? {
        Ref::Parent(at) => groups.get(*at),
        Ref::Name(text) => groups.iter().find(|g| g.name.value == text.value || g.id == text.value),
    };
    group.map(|g| g.name.value.clone())
}

/// What happens when Redis gives no answer.
pub(super) fn on_error(config: &Record) -> OnError {
    match (config.str("on_store_error"), config.bool("fault_tolerant")) {
        (Some("deny"), _) => OnError::Deny,
        (Some("local"), _) => OnError::Local,
        (Some(_), _) | (None, true) => OnError::Allow,
        (None, false) => OnError::Fail,
    }
}

/// The status of a refusal; None, after a warning, for one that is no error.
pub(super) fn error_code(config: &Record, cx: &mut Cx<'_>) -> Option<u16> {
    let code = config.num("error_code").unwrap_or(429.0);
    if (400.0..600.0).contains(&code) {
        return Some(code as u16);
    }
    let message = format!("`error_code` {code} is no error, so refused requests are answered with 500");
    let mut finding = Diagnostic::new(&codes::INVALID_VALUE, config.span_of("error_code"), message);
    finding.severity = Severity::Warning;
    cx.diags.push(finding.help("choose a status from 400 to 599; 429 is what clients expect"));
    None
}
