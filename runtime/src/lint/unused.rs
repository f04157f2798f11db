//! Entities that take no part in anything.

use std::collections::HashSet;

use super::Facts;
use super::facts::AUTHENTICATORS;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::Ref;

pub const CONSUMER_DOC: &str = "\
## What it does
Finds consumers that nobody can ever be identified as.

## Why
A consumer is found by a credential. One without any, and that no plugin names as `anonymous`, has no effect; usually its
credentials were forgotten.

## Example
```yaml
consumers: [{ username: alice }]
```

## Use instead
Give it a credential, or delete it.
";

pub const CREDENTIAL_DOC: &str = "\
## What it does
Finds kinds of credentials that no plugin looks up.

## Why
`jwt_secrets` without a `jwt` plugin protect nothing: the routes are open, or ask for something else.

## Example
```yaml
consumers: [{ username: alice, keyauth_credentials: [{ key: \"${ALICE_KEY}\" }] }]   # and no key-auth anywhere
```

## Use instead
Add the plugin, or delete the credentials.
";

pub const UPSTREAM_DOC: &str = "\
## What it does
Finds upstreams that no service's `host` names.

## Why
An upstream comes into play by being a service's host. One that none names balances nothing; mostly a name is misspelt.

## Example
```yaml
services: [{ name: s, host: order-backend }]
upstreams: [{ name: orders-backend }]
```

## Use instead
Let the two names agree.
";

pub const SERVICE_DOC: &str = "\
## What it does
Finds services that no route leads to.

## Why
Requests reach a service only through a route, as a part of an `aggregate`, by a `traffic-split`, or because a
`forward-auth` asks it.

## Example
```yaml
services: [{ name: s, url: http://s.internal }]
```

## Use instead
Add a route, or set `enabled: false` to keep the service for later.
";

/// Reports consumers without any way in.
pub fn consumers(facts: &Facts<'_>, diags: &mut Diags) {
    if facts.has_external_identities() {
        return;
    }
    let mut used: HashSet<usize> =
        facts.model.credentials.iter().filter_map(|c| facts.consumer(c.consumer.as_ref()?)).collect();
    let anonymous = facts.model.plugins.iter().filter_map(|p| p.config.str("anonymous"));
    used.extend(anonymous.filter_map(|name| facts.consumer_named(name)));
    for (i, c) in facts.model.consumers.iter().enumerate().filter(|(i, _)| !used.contains(i)) {
        let name = c.username.as_ref().or(c.custom_id.as_ref());
        let (span, name) = match name {
            Some(name) => (name.span, format!("`{}`", facts.model.shown(name))),
            None => (facts.first_line(c.span), format!("number {}", i + 1)),
        };
        diags.push(
            Diagnostic::new(
                &codes::UNUSED_CONSUMER,
                span,
                format!("nobody can be identified as consumer {name}"),
            )
            .label("has no credential")
            .help("give it a credential such as `keyauth_credentials`, or delete it"),
        );
    }
}

/// Reports kinds of credentials without their plugin.
pub fn credentials(facts: &Facts<'_>, diags: &mut Diags) {
    for &(plugin, kind, entity) in AUTHENTICATORS {
        let mut of_kind = facts.model.credentials.iter().filter(|c| c.kind == kind);
        let used = facts.model.plugins.iter().any(|p| p.enabled && p.name.value == plugin);
        if let Some(first) = of_kind.next().filter(|_| !used) {
            let n = 1 + of_kind.count();
            diags.push(
                Diagnostic::new(
                    &codes::CREDENTIAL_WITHOUT_PLUGIN,
                    facts.first_line(first.span),
                    format!("`{entity}` have no effect: there is no `{plugin}` plugin"),
                )
                .label(if n == 1 {
                    "never looked up".to_owned()
                } else {
                    format!("this and {} more are never looked up", n - 1)
                })
                .help(format!("add the plugin `{plugin}` to the routes that they are for")),
            );
        }
    }
}

/// Reports upstreams that no service names.
pub fn upstreams(facts: &Facts<'_>, diags: &mut Diags) {
    let hosts: HashSet<&str> = facts.model.services.iter().map(|s| s.host.as_str()).collect();
    for u in facts.model.upstreams.iter().filter(|u| !hosts.contains(u.name.as_str())) {
        let mut d = Diagnostic::new(
            &codes::UNUSED_UPSTREAM,
            u.name.span,
            format!("no service has upstream `{}` as its host", u.name.value),
        )
        .label("balances nothing");
        if let Some(near) = crate::diag::suggest::nearest(&u.name, hosts.iter().copied()) {
            d = d.help(format!("did you mean the service's host `{near}`?"));
        }
        diags.push(d);
    }
}

/// Reports services without routes.
pub fn services(facts: &Facts<'_>, diags: &mut Diags) {
    let mut used: HashSet<usize> =
        facts.model.routes.iter().filter_map(|r| facts.service(r.service.as_ref()?)).collect();
    let of =
        |plugin: &str, list: &'static str| facts.plugins(plugin).flat_map(move |p| p.config.records(list));
    let named =
        of("aggregate", "parts").chain(of("traffic-split", "rules")).chain(of("traffic-split", "split"));
    let named = named.chain(facts.plugins("forward-auth").map(|p| &p.config));
    used.extend(named.filter_map(|part| facts.service(&Ref::Name(part.spanned_str("service")?))));
    for (i, s) in facts.model.services.iter().enumerate() {
        if s.enabled && !used.contains(&i) {
            let (span, name) = match &s.name {
                Some(name) => (name.span, name.value.clone()),
                None => (facts.first_line(s.span), s.host.value.clone()),
            };
            diags.push(
                Diagnostic::new(
                    &codes::SERVICE_WITHOUT_ROUTE,
                    span,
                    format!("no route leads to service `{name}`"),
                )
                .label("gets no request")
                .help("add a route, or set `enabled: false`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn idle_entities_are_reported() {
        let yaml = "_format_version: '3.0'\nservices:\n- {name: s, host: order}\nupstreams:\n- {name: orders}\n\
                    consumers:\n- {username: a}\n- {username: b, keyauth_credentials: [{key: k}]}\n";
        check(&codes::SERVICE_WITHOUT_ROUTE, yaml, &["3: no route leads to service `s`"]);
        check(&codes::UNUSED_UPSTREAM, yaml, &["5: no service has upstream `orders` as its host"]);
        check(&codes::UNUSED_CONSUMER, yaml, &["7: nobody can be identified as consumer `a`"]);
        check(&codes::CREDENTIAL_WITHOUT_PLUGIN, yaml, &["8: `keyauth_credentials` have no effect"]);
    }
}
