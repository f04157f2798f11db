//! An authenticator that can let nobody in.

use super::Facts;
use super::facts::{AUTHENTICATORS, has_issuers};
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::CredentialKind;

pub const DOC: &str = "\
## What it does
Finds routes whose authenticator looks up credentials of a kind that no consumer has.

## Why
Such a plugin knows nobody, so it answers every request 401, whatever token or key the client shows. The config loads
and the gateway starts; only the clients notice.

## Example
```yaml
services:
  - name: orders
    url: http://orders.internal
    routes: [{ name: orders, paths: [/orders] }]
    plugins: [{ name: jwt }]        # and no consumer has jwt_secrets
```

## Use instead
Give a consumer a credential:
```yaml
consumers:
  - username: alice
    jwt_secrets: [{ key: alice, secret: \"${ALICE_SECRET}\" }]
```
or name an `anonymous` consumer, or (for `jwt`) list `issuers`, whose subjects need no consumer.
";

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    for &(name, kind, entity) in AUTHENTICATORS {
        // An application is known only by its tokens.
        let (has, entity) = match kind {
            CredentialKind::OAuth2 => (!facts.model.oauth2_tokens.is_empty(), "oauth2_tokens"),
            _ => (facts.model.credentials.iter().any(|c| c.kind == kind), entity),
        };
        for (i, plugin) in
            facts.model.plugins.iter().enumerate().filter(|(_, p)| p.enabled && p.name.value == name)
        {
            let passes = plugin.config.get("anonymous").is_some() || has_issuers(plugin);
            let routes = facts.routes_of(i);
            let Some(&first) = routes.first() else { continue };
            if has || passes {
                continue;
            }
            let whose = match routes.len() {
                1 => format!("route {}", facts.route_name(first)),
                n => format!("{n} routes (route {} and {} more)", facts.route_name(first), n - 1),
            };
            let mut d = Diagnostic::new(
                &codes::EVERY_REQUEST_401,
                plugin.name.span,
                format!(
                    "every request to {whose} gets 401: plugin `{name}` admits only consumers with `{entity}`, and no \
                     consumer has any"
                ),
            )
            .label(format!("looks for `{entity}`, of which there are none"))
            .also(facts.route_span(first), "nobody can use this route")
            .help(example(name));
            if facts.model.consumers.is_empty() {
                d = d.note("this config has no consumers at all");
            }
            if name == "jwt" {
                let claim = plugin.config.str("key_claim_name").unwrap_or("iss");
                d = d.note(format!(
                    "a token belongs to the credential whose `key` equals its claim `{claim}`"
                ));
            }
            diags.push(d);
        }
    }
}

/// A consumer that the authenticator would admit.
fn example(name: &str) -> String {
    let credential = match name {
        "jwt" => "jwt_secrets: [{ key: alice, secret: \"${ALICE_SECRET}\" }]",
        "key-auth" => "keyauth_credentials: [{ key: \"${ALICE_KEY}\" }]",
        "basic-auth" => "basicauth_credentials: [{ username: alice, password: \"${ALICE_PASSWORD}\" }]",
        "hmac-auth" => "hmacauth_credentials: [{ username: alice, secret: \"${ALICE_SECRET}\" }]",
        _ => {
            "oauth2_credentials: [{ name: app, client_id: app, oauth2_tokens: [{ access_token: \"${APP_TOKEN}\", \
             expires_in: 0 }] }]"
        }
    };
    format!(
        "add a consumer: `consumers: [{{ username: alice, {credential} }}]`; or let requests without credentials pass \
         as a consumer that the plugin's `anonymous` names"
    )
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn an_authenticator_without_credentials_is_reported_with_its_route() {
        let base =
            "_format_version: '3.0'\nservices:\n- url: http://a.test\n  routes: [{name: r, paths: [/r]}]\n";
        check(
            &codes::EVERY_REQUEST_401,
            &format!("{base}plugins: [{{name: key-auth}}]"),
            &["5: every request to route `r` gets 401"],
        );
        let rest = "plugins: [{name: key-auth}]\nconsumers: [{username: a, keyauth_credentials: [{key: k}]}]";
        check(&codes::EVERY_REQUEST_401, &format!("{base}{rest}"), &[]);
        let rest = "plugins: [{name: key-auth, config: {anonymous: a}}]\nconsumers: [{username: a}]";
        check(&codes::EVERY_REQUEST_401, &format!("{base}{rest}"), &[]);
    }
}
