//! Certificates that are ordered in vain, or cannot be.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::acme::Challenge;
use crate::model::gateway::Address;

pub const UNUSED_DOC: &str = "\
## What it does
Finds names in `gateway.acme.domains` that no route asks for, neither as a host nor as a server name.

## Why
A certificate is ordered and renewed for the name, and whoever asks for it is told that there is no such route. Often it
is a typing error, and the name that was meant has no certificate.

## Example
```yaml
gateway: { acme: { domains: [api.exmaple.com], terms_of_service_agreed: true, storage: /var/lib/gw } }
services: [{ url: \"http://orders.internal\", routes: [{ hosts: [api.example.com] }] }]
```

## Use instead
The name that the routes have; or remove it from `domains`.
";

pub const UNPROVABLE_DOC: &str = "\
## What it does
Finds `gateway.acme` beside `gateway.listeners` that leave no way to prove a name, or to serve its certificate.

## Why
With `http-01` the ACME server comes to a plain listener, over port 80; with `tls-alpn-01` to one for TLS, over port 443.
Without such a listener every order fails. Without one for TLS no certificate is served.

## Example
```yaml
gateway:
  listeners: [\"0.0.0.0:8443 ssl\"]
  acme: { challenge: http-01, domains: [api.example.com], terms_of_service_agreed: true, storage: /var/lib/gw }
```

## Use instead
```yaml
gateway:
  listeners: [\"0.0.0.0:8000\", \"0.0.0.0:8443 ssl\"]
  acme: { challenge: http-01, domains: [api.example.com], terms_of_service_agreed: true, storage: /var/lib/gw }
```
or `challenge: tls-alpn-01`. Ports 80 and 443 may be forwarded to others. Where a flag names the listeners, silence the
lint.
";

/// Reports names without a route.
pub fn unused(facts: &Facts<'_>, diags: &mut Diags) {
    let Some(acme) = &facts.model.gateway.acme else { return };
    let routes: Vec<_> = facts.live_routes().map(|i| &facts.model.routes[i]).collect();
    let any = |r: &&crate::model::Route| (r.hosts.is_empty() && r.snis.is_empty()) || r.expression.is_some();
    if routes.is_empty() || routes.iter().any(any) {
        return;
    }
    for domain in &acme.domains {
        let is_asked = routes.iter().any(|r| {
            let mut names = r.hosts.iter().chain(&r.snis);
            names.any(|pattern| covers(&pattern.value, &domain.value))
        });
        if !is_asked {
            let message =
                format!("a certificate is ordered for `{}`, and no route is for that name", domain.value);
            diags.push(
                Diagnostic::new(&codes::ACME_NAME_UNUSED, domain.span, message)
                    .label("no route has it among `hosts` or `snis`")
                    .help("correct the name, or remove it"),
            );
        }
    }
}

/// Whether a route's host, which may have a `*` at either end and a port, is for a name.
fn covers(pattern: &str, name: &str) -> bool {
    let pattern = pattern.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => name.ends_with(suffix),
        (_, Some(prefix)) => name.starts_with(prefix),
        _ => pattern == name,
    }
}

/// Reports challenges that nobody can come for.
pub fn unprovable(facts: &Facts<'_>, diags: &mut Diags) {
    let gateway = &facts.model.gateway;
    let Some(acme) = gateway.acme.as_ref().filter(|_| !gateway.listeners.is_empty()) else { return };
    let has = |tls: bool| gateway.listeners.iter().any(|l| l.tls == tls && matches!(l.addr, Address::Ip(_)));
    let (message, help) = match acme.challenge.value {
        _ if !has(true) => {
            ("no listener serves TLS, so that certificates are ordered in vain", "`0.0.0.0:8443 ssl`")
        }
        Challenge::Http01 if !has(false) => {
            ("`http-01` is answered on plain listeners, and there is none", "`0.0.0.0:8000`")
        }
        _ => return,
    };
    let at = match acme.challenge.span {
        span if span.start < span.end => span,
        _ => facts.find_key("acme").unwrap_or_default(),
    };
    let diagnostic = Diagnostic::new(&codes::ACME_UNPROVABLE, at, message.to_owned());
    diags.push(diagnostic.help(format!("add {help} to `gateway.listeners`")));
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    fn with(listeners: &str, challenge: &str, route: &str) -> String {
        format!(
            "_format_version: '3.0'\ngateway:\n  {listeners}\n  acme:\n    terms_of_service_agreed: true\n    \
             storage: s\n    domains: [a.test]\n    {challenge}\nservices:\n- url: http://u.test\n  \
             routes: [{{ {route} }}]\n"
        )
    }

    #[test]
    fn names_without_a_route_are_reported() {
        let found = ["7: a certificate is ordered for `a.test`, and no route is for that name"];
        for other in ["hosts: [b.test]", "hosts: ['*.a.test']", "snis: [b.test], protocols: [https]"] {
            check(&codes::ACME_NAME_UNUSED, &with("", "", other), &found);
        }
        for good in
            ["paths: [/]", "hosts: [A.test]", "hosts: ['*.test']", "hosts: ['a.*']", "hosts: ['a.test:443']"]
        {
            check(&codes::ACME_NAME_UNUSED, &with("", "", good), &[]);
        }
    }

    #[test]
    fn challenges_need_their_listener() {
        let both = "listeners: ['0.0.0.0:8000', '0.0.0.0:8443 ssl']";
        for (listeners, challenge, found) in [
            ("listeners: ['0.0.0.0:8000']", "challenge: http-01", Some("8: no listener serves TLS")),
            ("listeners: ['0.0.0.0:8000']", "", Some("no listener serves TLS")),
            ("listeners: ['0.0.0.0:8443 ssl']", "challenge: http-01", Some("8: `http-01` is answered")),
            ("listeners: ['0.0.0.0:8443 ssl']", "challenge: tls-alpn-01", None),
            (both, "challenge: http-01", None),
            ("", "challenge: http-01", None),
        ] {
            let found = found.map(|f| match f.starts_with('8') {
                true => f.to_owned(),
                false => format!("5: {f}"),
            });
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            check(&codes::ACME_UNPROVABLE, &with(listeners, challenge, "paths: [/]"), &found);
        }
    }
}
