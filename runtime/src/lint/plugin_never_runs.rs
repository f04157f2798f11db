//! Plugins that are always passed over.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};

pub const DOC: &str = "\
## What it does
Finds plugins that no request ever runs.

## Why
Of several entries of one plugin exactly one runs: the most specific. A global one that every route overrides has no
effect, however strict it is; plugins do not add up. And a consumer's plugin runs only where an authenticator finds
the consumer.

## Example
```yaml
plugins: [{ name: rate-limiting, config: { minute: 10 } }]
services:
  - url: http://a.internal
    routes: [{ name: r, paths: [/r], plugins: [{ name: rate-limiting, config: { minute: 1000 } }] }]
```

## Use instead
Delete one of the two, or scope them to different routes.
";

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    let any_route = facts.live_routes().next().is_some();
    let identified = facts.live_routes().any(|r| facts.has_authenticator(r));
    for (i, plugin) in facts.model.plugins.iter().enumerate().filter(|(_, p)| p.enabled) {
        if plugin.consumer.is_some() || plugin.consumer_group.is_some() {
            if any_route && !identified {
                diags.push(
                    Diagnostic::new(
                        &codes::PLUGIN_NEVER_RUNS,
                        plugin.name.span,
                        format!(
                            "this `{}` never runs: no authenticator ever finds its consumer",
                            plugin.name.value
                        ),
                    )
                    .label("belongs to a consumer")
                    .help("add an authenticator such as `key-auth` to the routes"),
                );
            }
            continue;
        }
        if !facts.routes_of(i).is_empty() {
            continue;
        }
        let scope = facts.routes_in_scope(plugin);
        if scope.is_empty() {
            continue;
        }
        let other = facts.plugin_on(scope[0], &plugin.name);
        let n = scope.len();
        let mut d = Diagnostic::new(
            &codes::PLUGIN_NEVER_RUNS,
            plugin.name.span,
            format!(
                "this `{}` never runs: {} has a more specific one",
                plugin.name.value,
                if n == 1 {
                    format!("route {}", facts.route_name(scope[0]))
                } else {
                    format!("each of its {n} routes")
                }
            ),
        )
        .label("always passed over");
        if let Some(other) = other {
            d = d.also(other.name.span, "runs instead");
        }
        diags
            .push(d.note("of several entries of one plugin only the most specific runs; they do not add up"));
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn a_plugin_that_every_route_overrides_is_reported() {
        let route = |name: &str, own: &str| format!("- {{name: {name}, paths: [/{name}]{own}}}");
        let with = |a: &str, b: &str| {
            format!(
                "_format_version: '3.0'\nplugins:\n- {{name: request-termination}}\nroutes:\n{}\n{}\n",
                route("a", a),
                route("b", b)
            )
        };
        let own = ", plugins: [{name: request-termination}]";
        let found =
            ["3: this `request-termination` never runs: each of its 2 routes has a more specific one"];
        check(&codes::PLUGIN_NEVER_RUNS, &with(own, own), &found);
        check(&codes::PLUGIN_NEVER_RUNS, &with(own, ""), &[]);
        let disabled = ", plugins: [{name: request-termination, enabled: false}]";
        check(&codes::PLUGIN_NEVER_RUNS, &with(own, disabled), &[]);
    }
}
