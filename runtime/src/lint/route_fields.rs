//! Fields of routes that do not do what they seem to.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::gateway::RouterFlavor;

pub const PATH_HANDLING_DOC: &str = "\
## What it does
Finds `path_handling: v1` where it has no effect.

## Why
Only the router flavor `traditional` knows v1. Under the default flavor Kong accepts the field and joins paths the v0
way, and so does gw: `/service` and `/route` give `/service/route`, not `/serviceroute`.

## Example
```yaml
routes: [{ name: r, paths: [/r], path_handling: v1 }]
```

## Use instead
Delete the field, and check the path that the service gets.
";

pub const REGEX_PRIORITY_DOC: &str = "\
## What it does
Finds `regex_priority` outside 0 to 1000.

## Why
Kong packs the number into a few bits, where it mixes with other conditions; beyond about a thousand, or below zero, its
order is not dependable. gw compares the whole number, so the same file may pick other routes there.

## Example
```yaml
routes: [{ name: r, paths: [\"~/r\"], regex_priority: 100000 }]
```

## Use instead
Numbers from 0 to 1000.
";

pub const NO_SERVICE_DOC: &str = "\
## What it does
Finds routes without a service and without a plugin that answers by itself.

## Why
There is nowhere to send a request that matches: it gets 503 `no Service found with those values`.

## Example
```yaml
routes: [{ name: r, paths: [/r] }]
```

## Use instead
Nest the route in a service, name one (`service: orders`), or answer with `request-termination` or `redirect`.
";

/// Plugins that answer in the service's place.
const ANSWERING: &[&str] =
    &["request-termination", "redirect", "aggregate", "gateway-keys", "aws-lambda", "azure-functions"];

/// Reports `path_handling: v1` without effect.
pub fn path_handling(facts: &Facts<'_>, diags: &mut Diags) {
    if facts.model.gateway.router_flavor == RouterFlavor::Traditional {
        return;
    }
    for i in facts.live_routes().filter(|&i| facts.model.routes[i].path_handling_v1) {
        diags.push(
            Diagnostic::new(
                &codes::PATH_HANDLING_IGNORED,
                facts.route_span(i),
                format!(
                    "`path_handling: v1` of route {} has no effect: paths are joined as v0 does",
                    facts.route_name(i)
                ),
            )
            .label("this route")
            .help("delete `path_handling`, and check the path that the service gets"),
        );
    }
}

/// Reports priorities that Kong does not order dependably.
pub fn regex_priority(facts: &Facts<'_>, diags: &mut Diags) {
    for i in facts.live_routes() {
        let route = &facts.model.routes[i];
        if !(0..=1000).contains(&route.regex_priority) && route.paths.iter().any(|p| p.starts_with('~')) {
            diags.push(
                Diagnostic::new(
                    &codes::REGEX_PRIORITY_RANGE,
                    facts.route_span(i),
                    format!(
                        "`regex_priority` {} of route {} is outside 0 to 1000, where Kong's order is dependable",
                        route.regex_priority,
                        facts.route_name(i)
                    ),
                )
                .label("this route")
                .help("use numbers from 0 to 1000"),
            );
        }
    }
}

/// Reports routes that lead nowhere.
pub fn no_service(facts: &Facts<'_>, diags: &mut Diags) {
    for (i, route) in facts.model.routes.iter().enumerate() {
        let answers = || facts.plugins_on(i).any(|p| ANSWERING.contains(&p.name.as_str()));
        if route.service.is_none() && !answers() {
            diags.push(
                Diagnostic::new(
                    &codes::ROUTE_WITHOUT_SERVICE,
                    facts.route_span(i),
                    format!("every request to route {} gets 503: it has no service", facts.route_name(i)),
                )
                .label("leads nowhere")
                .help("nest it in a service, name one with `service:`, or answer with `request-termination`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    fn route(rest: &str) -> String {
        format!("_format_version: '3.0'\nroutes:\n- {{name: r, paths: ['~/r']{rest}}}\n")
    }

    #[test]
    fn fields_without_effect_are_reported() {
        check(
            &codes::PATH_HANDLING_IGNORED,
            &route(", path_handling: v1"),
            &["3: `path_handling: v1` of route `r`"],
        );
        check(&codes::PATH_HANDLING_IGNORED, &route(", path_handling: v0"), &[]);
        check(
            &codes::REGEX_PRIORITY_RANGE,
            &route(", regex_priority: 5000"),
            &["3: `regex_priority` 5000 of route `r`"],
        );
        check(&codes::REGEX_PRIORITY_RANGE, &route(", regex_priority: 1000"), &[]);
    }

    #[test]
    fn a_route_needs_somebody_who_answers() {
        check(&codes::ROUTE_WITHOUT_SERVICE, &route(""), &["3: every request to route `r` gets 503"]);
        check(&codes::ROUTE_WITHOUT_SERVICE, &route(", plugins: [{name: request-termination}]"), &[]);
    }
}
