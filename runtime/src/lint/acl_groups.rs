//! Access lists that name nobody, and anonymous access that nothing bounds.

use std::collections::HashSet;

use super::Facts;
use super::facts::{AUTHENTICATORS, has_issuers};
use crate::diag::{Diagnostic, Diags, codes, suggest};
use crate::model::CredentialKind;

pub const GROUP_DOC: &str = "\
## What it does
Finds groups in the lists of `acl` that no consumer belongs to.

## Why
An `allow` list of such groups refuses everybody; a `deny` list refuses nobody. Mostly a name is misspelt.

## Example
```yaml
plugins: [{ name: acl, config: { allow: [admin] } }]
consumers: [{ username: alice, acls: [{ group: admins }] }]
```

## Use instead
Let the names agree.
";

pub const ANONYMOUS_DOC: &str = "\
## What it does
Finds routes with several authenticators, all with `anonymous`, that nothing stops anonymous requests on.

## Why
With `anonymous` a request without valid credentials goes on as that consumer. It is the way to accept one of several
kinds of credentials; but unless something refuses the anonymous consumer, the route is open to everybody.

## Example
```yaml
plugins:
  - { name: key-auth, config: { anonymous: guest } }
  - { name: jwt, config: { anonymous: guest } }
```

## Use instead
Refuse the anonymous consumer:
```yaml
consumers:
  - username: guest
    plugins: [{ name: request-termination, config: { status_code: 401 } }]
```
";

/// Reports groups without members.
pub fn groups(facts: &Facts<'_>, diags: &mut Diags) {
    // Groups may then come from a token or an answer.
    if facts.has_external_identities() {
        return;
    }
    let groups: HashSet<&str> = facts
        .model
        .credentials
        .iter()
        .filter(|c| c.kind == CredentialKind::Acl)
        .filter_map(|c| c.record.str("group"))
        .collect();
    for plugin in facts.plugins("acl").filter(|p| !p.config.bool("always_use_authenticated_groups")) {
        for (list, effect) in [("allow", "admits nobody"), ("deny", "refuses nobody")] {
            for group in plugin.config.strings(list).iter().filter(|g| !groups.contains(g.as_str())) {
                let mut d = Diagnostic::new(
                    &codes::ACL_GROUP_WITHOUT_MEMBERS,
                    group.span,
                    format!("no consumer belongs to group `{}`", facts.model.shown(group)),
                )
                .label(effect);
                d = match suggest::nearest(group, groups.iter().copied()) {
                    Some(near) => d.help(format!("did you mean `{near}`?")),
                    None => d.help(format!(
                        "add `acls: [{{ group: {} }}]` to a consumer",
                        facts.model.shown(group)
                    )),
                };
                diags.push(d);
            }
        }
    }
}

/// Reports routes that admit everybody as the anonymous consumer.
pub fn anonymous(facts: &Facts<'_>, diags: &mut Diags) {
    let mut seen = HashSet::new();
    for route in facts.live_routes() {
        let auth =
            || facts.plugins_on(route).filter(|p| AUTHENTICATORS.iter().any(|(n, ..)| p.name.value == *n));
        let all = auth().all(|p| p.config.get("anonymous").is_some() && !has_issuers(p));
        let bounded = ["acl", "request-termination", "ip-restriction", "authorize"];
        let stopped = facts.plugins_on(route).any(|p| bounded.contains(&p.name.as_str()));
        let Some(first) = auth().next().filter(|_| auth().count() > 1 && all && !stopped) else { continue };
        let name = first.config.str("anonymous").unwrap_or("");
        let consumer = facts.consumer_named(name);
        let refused = facts.model.plugins.iter().any(|p| {
            let of_consumer = p.consumer.as_ref().and_then(|c| facts.consumer(c));
            p.enabled
                && p.name.value == "request-termination"
                && of_consumer.is_some()
                && of_consumer == consumer
        });
        if !refused && seen.insert(std::ptr::from_ref(first)) {
            diags.push(
                Diagnostic::new(
                    &codes::ANONYMOUS_ADMITS_EVERYONE,
                    first.config.span_of("anonymous"),
                    format!(
                        "route {} is open to everybody: nothing refuses the anonymous consumer",
                        facts.route_name(route)
                    ),
                )
                .label("requests without valid credentials go on as this consumer")
                .also(facts.route_span(route), "this route")
                .help("give that consumer the plugin `request-termination` with `status_code: 401`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn groups_need_members() {
        let with = |group: &str| {
            format!(
                "_format_version: '3.0'\nplugins:\n- {{name: acl, config: {{allow: [{group}]}}}}\n\
                 consumers: [{{username: a, acls: [{{group: admins}}]}}]\n"
            )
        };
        check(
            &codes::ACL_GROUP_WITHOUT_MEMBERS,
            &with("admin"),
            &["3: no consumer belongs to group `admin`"],
        );
        check(&codes::ACL_GROUP_WITHOUT_MEMBERS, &with("admins"), &[]);
    }

    #[test]
    fn an_anonymous_consumer_must_be_refused_somewhere() {
        let with = |plugins: &str| {
            format!(
                "_format_version: '3.0'\nroutes: [{{name: r, paths: [/r]}}]\nplugins:\n\
                 - {{name: key-auth, config: {{anonymous: guest}}}}\n\
                 - {{name: basic-auth, config: {{anonymous: guest}}}}\n\
                 consumers: [{{username: guest{plugins}}}]\n"
            )
        };
        check(&codes::ANONYMOUS_ADMITS_EVERYONE, &with(""), &["4: route `r` is open to everybody"]);
        check(&codes::ANONYMOUS_ADMITS_EVERYONE, &with(", plugins: [{name: request-termination}]"), &[]);
    }
}
