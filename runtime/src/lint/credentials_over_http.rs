//! Passwords and keys over plain text.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};

pub const DOC: &str = "\
## What it does
Finds routes that name `http` among their `protocols` and take passwords or keys.

## Why
`basic-auth` and `key-auth` send the credential itself with every request. Over plain http everybody on the way reads
it, also on the first request of a client that is then redirected.

## Example
```yaml
routes: [{ name: r, paths: [/r], protocols: [http, https], plugins: [{ name: basic-auth }] }]
```

## Use instead
```yaml
routes: [{ name: r, paths: [/r], protocols: [https], plugins: [{ name: basic-auth }] }]
```
Behind a proxy that ends TLS, list the proxy in `gateway.trusted_ips`, so that its `X-Forwarded-Proto` counts.
";

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    for i in facts.live_routes() {
        let route = &facts.model.routes[i];
        // Only what the file itself says: http and https are also the default.
        let http =
            route.protocols.iter().find(|p| p.value == "http" && facts.sources.text(p.span).contains("http"));
        let Some(http) = http.filter(|p| facts.sources.text(p.span).len() <= "'http'".len()) else {
            continue;
        };
        let plugin = ["basic-auth", "key-auth"].into_iter().find_map(|name| facts.plugin_on(i, name));
        if let Some(plugin) = plugin {
            diags.push(
                Diagnostic::new(
                    &codes::CREDENTIALS_OVER_HTTP,
                    http.span,
                    format!(
                        "route {} takes `{}` credentials over plain http",
                        facts.route_name(i),
                        plugin.name.value
                    ),
                )
                .label("everybody on the way can read them")
                .also(plugin.name.span, "sends the credential with every request")
                .help("write `protocols: [https]`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn a_route_that_names_http_must_not_take_passwords() {
        let with = |rest: &str| {
            format!(
                "_format_version: '3.0'\nroutes:\n- {{name: r, paths: [/r], plugins: [{{name: basic-auth}}]{rest}}}\n"
            )
        };
        let found = ["3: route `r` takes `basic-auth` credentials over plain http"];
        check(&codes::CREDENTIALS_OVER_HTTP, &with(", protocols: [http, https]"), &found);
        check(&codes::CREDENTIALS_OVER_HTTP, &with(", protocols: [https]"), &[]);
        check(&codes::CREDENTIALS_OVER_HTTP, &with(""), &[]);
    }
}
