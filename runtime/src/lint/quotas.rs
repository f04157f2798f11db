//! Limits that do not do what they look like: those that never bind, those that a restart forgives, plans that nobody has,
//! and consumers that have none.

use std::collections::HashSet;

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::limit::Period;
use crate::model::schema::Record;
use crate::model::{Model, Plugin, Ref};
use crate::source::Span;

pub const NEVER_BINDS_DOC: &str = "\
## What it does
Finds limits that can never refuse anything, as another limit of the same plugin always does first.

## Why
Either one of the numbers is wrong, or the limit is of no use and costs a counter. 10 a minute are never more than 600 an
hour, so a limit of 1000 an hour beside it does nothing; and where 50 an hour are allowed, 100 a minute never come.

## Example
```yaml
config: { minute: 10, hour: 1000 }
```

## Use instead
Numbers of which each can be the first to be reached: `minute: 10`, `hour: 200`.
";

pub const LOST_DOC: &str = "\
## What it does
Finds limits of a day or longer that are counted in memory alone.

## Why
Every restart, and every deployment, begins them anew. Of a limit a minute nobody notices; a monthly quota is worth little
if it is forgotten twice a week.

## Example
```yaml
plugins: [{ name: rate-limiting, config: { month: 10000 } }]
```

## Use instead
For a single gateway a file, for several a Redis:
```yaml
gateway: { counter_file: /var/lib/gw/counters }
```
```yaml
plugins: [{ name: rate-limiting, config: { month: 10000, policy: redis, redis: { host: redis.internal } } }]
```
";

pub const NO_PLAN_DOC: &str = "\
## What it does
Finds consumers that are in no plan where others are, and that nothing else limits.

## Why
A plan is a consumer group with `rate-limiting`. Who is in none of them is not refused but unlimited, which is seldom meant.

## Example
```yaml
consumer_groups: [{ name: free, plugins: [{ name: rate-limiting, config: { minute: 60 } }] }]
consumers: [{ username: alice }]
```

## Use instead
Put the consumer into a group (`groups: [free]`), or add a `rate-limiting` plugin for everybody, which applies to those
without a plan.
";

pub const NO_MEMBERS_DOC: &str = "\
## What it does
Finds plans, that is consumer groups with limits, that no consumer is in.

## Why
Mostly the members were forgotten, and are unlimited or in another plan.

## Example
```yaml
consumer_groups: [{ name: free, plugins: [{ name: rate-limiting, config: { minute: 60 } }] }]
```

## Use instead
Name the members in the group (`consumers: [alice]`) or the group at the consumer (`groups: [free]`), or delete the group.
";

/// One limit of a plugin, as far as it can be compared with others.
struct Limit {
    name: String,
    span: Span,
    period: Period,
    limit: f64,
    /// What may come at once beyond the rate, of a bucket; of a window None.
    burst: Option<f64>,
    /// Limits are comparable that count the same by the same.
    counted: String,
    /// One of Kong's fields.
    kongs: bool,
}

/// Reports limits that others of their plugin always come before.
pub fn never_bind(facts: &Facts<'_>, diags: &mut Diags) {
    for plugin in facts.plugins("rate-limiting") {
        let limits = limits(plugin);
        for (i, limit) in limits.iter().enumerate() {
            // Of two that make each other useless one must stay.
            let first = limits.iter().enumerate().find(|(j, other)| {
                *j != i && comes_before(other, limit) && (*j < i || !comes_before(limit, other))
            });
            let Some((_, first)) = first else { continue };
            diags.push(
                Diagnostic::new(
                    &codes::LIMIT_NEVER_BINDS,
                    limit.span,
                    format!("`{}` never refuses anything: `{}` always does before", limit.name, first.name),
                )
                .label(format!("{} a {}", limit.limit, limit.period.name()))
                .also(first.span, format!("{} a {} are reached first", first.limit, first.period.name()))
                .help("correct one of the numbers, or leave this limit out"),
            );
        }
    }
}

/// Whether `a` refuses whatever `b` would refuse.
fn comes_before(a: &Limit, b: &Limit) -> bool {
    // What cannot be served anyway (less in a longer period) is an error of its own among Kong's limits.
    let refused = a.kongs && b.kongs && a.period > b.period && a.limit < b.limit;
    if a.counted != b.counted || b.burst.is_some() || refused {
        return false;
    }
    match a.burst {
        // A window within which the other lies, with no more.
        None if a.period >= b.period => a.limit <= b.limit,
        None => {
            // As many whole windows as the longest one has, and one more where they do not lie within it.
            let nested = !matches!((a.period, b.period), (Period::Week, _));
            let times = (longest_s(b.period) / a.period.seconds()).max(1);
            a.limit * (times + u64::from(!nested)) as f64 <= b.limit
        }
        Some(burst) => burst + a.limit / a.period.seconds() as f64 * longest_s(b.period) as f64 <= b.limit,
    }
}

/// Seconds of the longest period of this kind in UTC.
fn longest_s(period: Period) -> u64 {
    match period {
        Period::Month => 31 * 86_400,
        Period::Year => 366 * 86_400,
        other => other.seconds(),
    }
}

fn limits(plugin: &Plugin) -> Vec<Limit> {
    let config = &plugin.config;
    let kongs = Period::KONG.into_iter().filter_map(|period| {
        let limit = config.num(period.name())?;
        let by = config.str("limit_by").unwrap_or("consumer");
        let other = config.str("header_name").or(config.str("path")).unwrap_or_default();
        let counted = format!("{by} {other}").trim().to_owned();
        of(config, config, period, limit, period.name(), config.span_of(period.name()), counted)
    });
    let named = config.records("limits").filter(|l| !l.bool("dry_run")).filter_map(|limit| {
        let period = Period::named(limit.str("period")?)?;
        let by: Vec<String> = limit.strings("by").into_iter().map(|b| b.value).collect();
        let (amount, name) = (limit.num("limit")?, limit.str("name")?);
        of(limit, config, period, amount, name, limit.span_of("limit"), by.join("+"))
    });
    kongs.chain(named).collect()
}

fn of(
    own: &Record,
    config: &Record,
    period: Period,
    limit: f64,
    name: &str,
    span: Span,
    counted: String,
) -> Option<Limit> {
    let says = |field: &str| own.get(field).or_else(|| config.get(field)).is_some();
    if says("weight_header") || own.get("cost_header").is_some() || own.get("time_zone").is_some() {
        return None;
    }
    let algorithm = own.str("algorithm").or(config.str("algorithm")).unwrap_or("fixed-window");
    let burst = match algorithm {
        "token-bucket" => Some(own.num("burst").unwrap_or(limit)),
        "smooth" => Some(own.num("burst").unwrap_or(1.0)),
        _ => None,
    };
    // What is left of the last window makes another limit of it.
    if algorithm == "sliding-window" {
        return None;
    }
    let weight = own.int("weight").or(config.int("weight")).unwrap_or(1);
    let counted = format!("{counted} {weight}");
    Some(Limit {
        name: name.to_owned(),
        span,
        period,
        limit,
        burst,
        counted,
        kongs: std::ptr::eq(own, config),
    })
}

/// Reports quotas that live in memory alone.
pub fn lost(facts: &Facts<'_>, diags: &mut Diags) {
    if facts.model.gateway.counter_file.is_some() {
        return;
    }
    for plugin in facts.plugins("rate-limiting").filter(|p| p.config.str("policy") != Some("redis")) {
        let config = &plugin.config;
        let kongs = Period::KONG.into_iter().filter(|p| config.num(p.name()).is_some());
        let kongs = kongs.map(|p| (p, config.span_of(p.name())));
        let named = config
            .records("limits")
            .filter_map(|l| Some((Period::named(l.str("period")?)?, l.span_of("period"))));
        let Some((period, span)) = kongs.chain(named).filter(|(p, _)| *p >= Period::Day).last() else {
            continue;
        };
        diags.push(
            Diagnostic::new(
                &codes::QUOTA_LOST_ON_RESTART,
                span,
                format!("this limit a {} begins anew whenever the gateway restarts", period.name()),
            )
            .label("counted in memory alone")
            .help("name a file in `gateway.counter_file`, or count in Redis with `policy: redis`"),
        );
    }
}

/// The groups that are plans: by index, those with an enabled `rate-limiting`.
fn plans(facts: &Facts<'_>) -> HashSet<usize> {
    let group = |p: &Plugin| match p.consumer_group.as_ref()? {
        Ref::Parent(at) => Some(*at),
        Ref::Name(name) => named_group(facts.model, &name.value),
    };
    facts.plugins("rate-limiting").filter_map(group).collect()
}

fn named_group(model: &Model, name: &str) -> Option<usize> {
    model.consumer_groups.iter().position(|g| g.name.value == name || g.id == name)
}

/// The consumers of a plan, by index.
fn members(facts: &Facts<'_>, plan: usize) -> HashSet<usize> {
    let model = facts.model;
    let own = model.consumer_groups.get(plan).into_iter().flat_map(|g| &g.consumers);
    let named = own.filter_map(|name| facts.consumer_named(&name.value));
    let joined = model
        .consumers
        .iter()
        .enumerate()
        .filter(|(_, c)| c.groups.iter().any(|g| named_group(model, &g.value) == Some(plan)));
    named.chain(joined.map(|(i, _)| i)).collect()
}

/// Reports consumers that nothing limits where others have plans.
pub fn no_plan(facts: &Facts<'_>, diags: &mut Diags) {
    let plans = plans(facts);
    if plans.is_empty() {
        return;
    }
    let open = facts
        .live_routes()
        .find(|&r| facts.has_authenticator(r) && facts.plugin_on(r, "rate-limiting").is_none());
    let Some(route) = open else { return };
    let mut limited: HashSet<usize> = plans.iter().flat_map(|&p| members(facts, p)).collect();
    limited.extend(facts.plugins("rate-limiting").filter_map(|p| facts.consumer(p.consumer.as_ref()?)));
    let anonymous = facts.model.plugins.iter().filter_map(|p| p.config.str("anonymous"));
    limited.extend(anonymous.filter_map(|name| facts.consumer_named(name)));
    for (i, consumer) in facts.model.consumers.iter().enumerate().filter(|(i, _)| !limited.contains(i)) {
        let name = consumer.username.as_ref().or(consumer.custom_id.as_ref());
        let (span, name) = match name {
            Some(name) => (name.span, format!("`{}`", facts.model.shown(name))),
            None => (facts.first_line(consumer.span), format!("consumer number {}", i + 1)),
        };
        diags.push(
            Diagnostic::new(
                &codes::CONSUMER_WITHOUT_PLAN,
                span,
                format!("{name} is in no plan, and nothing else limits it on route {}", facts.route_name(route)),
            )
            .label("unlimited")
            .help("put it into a group (`groups: [...]`), or add a `rate-limiting` plugin for those without a plan"),
        );
    }
}

/// Reports plans without members.
pub fn no_members(facts: &Facts<'_>, diags: &mut Diags) {
    let mut plans: Vec<usize> = plans(facts).into_iter().filter(|&p| members(facts, p).is_empty()).collect();
    plans.sort_unstable();
    for group in plans.into_iter().filter_map(|p| facts.model.consumer_groups.get(p)) {
        diags.push(
            Diagnostic::new(
                &codes::PLAN_WITHOUT_MEMBERS,
                group.name.span,
                format!("no consumer is in the plan `{}`", group.name.value),
            )
            .label("nobody has these limits")
            .help("name its members in `consumers`, or the group in a consumer's `groups`"),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    const BASE: &str =
        "_format_version: '3.0'\nservices: [{url: 'http://a.test', routes: [{name: r, paths: [/r]}]}]\n";

    #[track_caller]
    fn binds(config: &str, want: &[&str]) {
        let yaml = format!("{BASE}plugins:\n- {{name: rate-limiting, config: {{{config}}}}}\n");
        check(&codes::LIMIT_NEVER_BINDS, &yaml, want);
    }

    #[test]
    fn of_two_limits_each_must_be_able_to_be_first() {
        binds("minute: 10, hour: 1000", &["4: `hour` never refuses anything: `minute` always does before"]);
        binds("minute: 10, hour: 600", &["4: `hour` never refuses"]);
        binds("minute: 10, hour: 599", &[]);
        binds("minute: 100, hour: 100", &["4: `minute` never refuses anything: `hour` always"]);
        binds("minute: 100, hour: 1000", &[]);
        binds("day: 100, month: 3100", &["4: `month` never"]);
        binds("day: 100, month: 3000", &[]);
        binds("minute: 60, algorithm: token-bucket, hour: 9000", &[]);
        let named = |a: &str, b: &str| format!("limits: [{{name: a, {a}}}, {{name: b, {b}}}]");
        binds(
            &named("limit: 100, period: minute", "limit: 50, period: hour"),
            &["4: `a` never refuses anything: `b`"],
        );
        binds(&named("limit: 100, period: minute", "limit: 50, period: hour, by: [ip]"), &[]);
        binds(&named("limit: 100, period: minute", "limit: 50, period: hour, weight: 2"), &[]);
        binds(&named("limit: 5, period: minute", "limit: 5, period: minute"), &["4: `b` never"]);
        binds(
            &named("limit: 1, period: second, algorithm: smooth", "limit: 3700, period: hour"),
            &["4: `b` never refuses anything: `a`"],
        );
        binds(&named("limit: 1, period: second, algorithm: smooth", "limit: 3600, period: hour"), &[]);
    }

    #[test]
    fn quotas_need_more_than_memory() {
        let yaml = |gateway: &str, config: &str| {
            format!(
                "{BASE}gateway: {{{gateway}}}\nplugins:\n- {{name: rate-limiting, config: {{{config}}}}}\n"
            )
        };
        let lost = |gateway, config, want: &[&str]| {
            check(&codes::QUOTA_LOST_ON_RESTART, &yaml(gateway, config), want);
        };
        lost("", "minute: 5, month: 100", &["5: this limit a month begins anew"]);
        lost("", "limits: [{name: d, limit: 1, period: week}]", &["5: this limit a week begins anew"]);
        lost("", "hour: 5", &[]);
        lost("", "month: 100, policy: redis, redis: {host: r.test}", &[]);
        lost("counter_file: c", "month: 100", &[]);
    }

    #[test]
    fn plans_have_members_and_consumers_plans() {
        let yaml = |more: &str| {
            format!(
                "{BASE}{more}consumer_groups:\n- {{name: free, plugins: [{{name: rate-limiting, config: {{minute: 1}}}}]}}\n\
                 consumers:\n- {{username: a, groups: [free]}}\n- {{username: b}}\n"
            )
        };
        let auth = "plugins:\n- {name: key-auth}\n";
        check(
            &codes::CONSUMER_WITHOUT_PLAN,
            &yaml(auth),
            &["9: `b` is in no plan, and nothing else limits it on route `r`"],
        );
        check(&codes::CONSUMER_WITHOUT_PLAN, &yaml(""), &[]);
        let fallback = format!("{auth}- {{name: rate-limiting, config: {{minute: 1}}}}\n");
        check(&codes::CONSUMER_WITHOUT_PLAN, &yaml(&fallback), &[]);
        check(&codes::PLAN_WITHOUT_MEMBERS, &yaml(auth), &[]);
        let nobody = yaml(auth).replace(", groups: [free]", "");
        check(&codes::PLAN_WITHOUT_MEMBERS, &nobody, &["6: no consumer is in the plan `free`"]);
    }
}
