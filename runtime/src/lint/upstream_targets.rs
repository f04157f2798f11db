//! Upstreams that cannot balance.

use std::collections::HashMap;

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::Ref;
use crate::model::schema::Record;
use crate::source::Span;

pub const NO_TARGETS_DOC: &str = "\
## What it does
Finds upstreams of services that have no target with a weight above 0.

## Why
The upstream's name stands for its targets, not for a host of that name. Without targets there is nobody to send a
request to, and each gets 503 `failure to get a peer from the ring-balancer`.

## Example
```yaml
services: [{ name: s, host: orders, routes: [{ paths: [/] }] }]
upstreams: [{ name: orders }]
```

## Use instead
```yaml
upstreams: [{ name: orders, targets: [{ target: \"10.0.0.1:8080\" }] }]
```
";

pub const NEVER_RECOVERS_DOC: &str = "\
## What it does
Finds upstreams whose targets passive health checks can take out, and nothing puts back, because
`healthchecks.passive.recover_after` is 0.

## Why
A target that is out gets no requests, so passive checks never see it recover. Without active checks it comes back only
if a request tries it from time to time, and 0 forbids that: every hiccup lasts until the next restart, as it does in
Kong.

## Example
```yaml
healthchecks: { passive: { unhealthy: { http_failures: 3 }, recover_after: 0 } }
```

## Use instead
```yaml
healthchecks:
  passive: { unhealthy: { http_failures: 3 } }
  active: { http_path: /health, healthy: { interval: 5, successes: 1 }, unhealthy: { interval: 5, successes: 1 } }
```
";

/// Reports upstreams without anybody behind them.
pub fn no_targets(facts: &Facts<'_>, diags: &mut Diags) {
    let hosts: HashMap<&str, Span> =
        facts.model.services.iter().filter(|s| s.enabled).map(|s| (s.host.as_str(), s.host.span)).collect();
    // By the upstream's name, id or index: whether any target has weight.
    let (mut named, mut nested) = (HashMap::<&str, bool>::new(), HashMap::<usize, bool>::new());
    for t in &facts.model.targets {
        match &t.upstream {
            Some(Ref::Name(name)) => *named.entry(name).or_default() |= t.weight > 0,
            Some(Ref::Parent(i)) => *nested.entry(*i).or_default() |= t.weight > 0,
            None => {}
        }
    }
    for (i, u) in facts.model.upstreams.iter().enumerate() {
        let all = [nested.get(&i), named.get(u.name.as_str()), named.get(u.id.as_str())];
        let targets: Vec<bool> = all.into_iter().flatten().copied().collect();
        let (Some(host), false) = (hosts.get(u.name.as_str()), targets.contains(&true)) else { continue };
        let weighs = !targets.is_empty();
        diags.push(
            Diagnostic::new(
                &codes::UPSTREAM_WITHOUT_TARGETS,
                u.name.span,
                format!("every request to upstream `{}` gets 503: it has no targets", u.name.value),
            )
            .label(if weighs { "all its targets have weight 0" } else { "has no targets" })
            .also(facts.first_line(*host), "this service's requests go there")
            .help("add `targets: [{ target: \"HOST:PORT\" }]`"),
        );
    }
}

/// Reports health checks that only take out.
pub fn never_recovers(facts: &Facts<'_>, diags: &mut Diags) {
    for u in &facts.model.upstreams {
        let Some(checks) = u.record.record("healthchecks") else { continue };
        let unhealthy = |kind: &str| checks.record(kind).and_then(|r| r.record("unhealthy"));
        let Some(passive) = unhealthy("passive") else { continue };
        let limit =
            ["http_failures", "tcp_failures", "timeouts"].into_iter().find(|f| above_zero(passive, f));
        let probes = unhealthy("active").is_some_and(|a| above_zero(a, "interval"));
        let tries = checks.record("passive").is_some_and(|p| above_zero(p, "recover_after"));
        if let (Some(limit), false) = (limit, probes || tries) {
            diags.push(
                Diagnostic::new(
                    &codes::TARGET_NEVER_RECOVERS,
                    passive.span_of(limit),
                    format!("a target of upstream `{}` that fails is out for good", u.name.value),
                )
                .label("takes a target out")
                .note("passive checks never see a target recover: it gets no requests")
                .help("set `healthchecks.active.unhealthy.interval` and `healthchecks.active.healthy.successes`, or leave `recover_after` out"),
            );
        }
    }
}

fn above_zero(record: &Record, field: &str) -> bool {
    record.num(field).is_some_and(|n| n > 0.0)
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    fn upstream(rest: &str) -> String {
        format!(
            "_format_version: '3.0'\nservices: [{{host: orders}}]\nupstreams:\n- {{name: orders{rest}}}\n"
        )
    }

    #[test]
    fn an_upstream_needs_targets_with_weight() {
        let found = ["4: every request to upstream `orders` gets 503"];
        check(&codes::UPSTREAM_WITHOUT_TARGETS, &upstream(""), &found);
        check(
            &codes::UPSTREAM_WITHOUT_TARGETS,
            &upstream(", targets: [{target: 'a.test:1', weight: 0}]"),
            &found,
        );
        check(&codes::UPSTREAM_WITHOUT_TARGETS, &upstream(", targets: [{target: 'a.test:1'}]"), &[]);
    }

    #[test]
    fn a_target_that_is_out_must_come_back() {
        let passive = "passive: {unhealthy: {http_failures: 3}, recover_after: 0}";
        let found = ["4: a target of upstream `orders` that fails is out for good"];
        check(&codes::TARGET_NEVER_RECOVERS, &upstream(&format!(", healthchecks: {{{passive}}}")), &found);
        let both = format!(", healthchecks: {{{passive}, active: {{unhealthy: {{interval: 5}}}}}}");
        check(&codes::TARGET_NEVER_RECOVERS, &upstream(&both), &[]);
        let tried = ", healthchecks: {passive: {unhealthy: {http_failures: 3}}}";
        check(&codes::TARGET_NEVER_RECOVERS, &upstream(tried), &[]);
    }
}
