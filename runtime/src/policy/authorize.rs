//! `authorize`: what callers may do, by scopes, groups and an expression.

mod expression;

use std::sync::Arc;

use self::expression::{Expression, Facts};
use super::{Cx, Descriptor, Flow, Policy, Reply, identity, transform};
use crate::diag::{Diagnostic, codes};
use crate::exchange::Exchange;
use crate::message::names;
use crate::model::schema::{Field, Kind, Record, TEXT};
use crate::token::demands::{SCOPES_ALL, SCOPES_ANY, Scopes};

static PLUGIN: Descriptor = Descriptor {
    name: "authorize",
    summary: "let callers do what scopes, groups and an expression allow",
    doc: "\
## What it does
Lets requests pass whose caller has the scopes, is in the consumer groups, and for which the expression holds; everything
that the config names must be satisfied.

## Why
One `jwt` for the whole gateway says who calls; each route says what for.

## Example
```yaml
routes:
  - name: orders-admin
    paths: [/orders/admin]
    plugins:
      - name: authorize
        config:
          scopes_all: [orders]
          expression: 'claims.role == \"admin\" && request.method in [\"GET\", \"HEAD\"]'
```

## Behaviour
Needs an authenticator before it. A caller who is not known gets 401 `Unauthorized`; one without the scopes 403 with
`WWW-Authenticate: Bearer error=\"insufficient_scope\"`; any other refusal is 403 with `message`.

An expression compares fields with `==`, `!=`, `<`, `<=`, `>`, `>=`, `in [..]`, `contains`, `starts_with`, `ends_with` and
`matches` (a regular expression for the whole value), and joins comparisons with `&&` before `||`, `!` and parentheses.
Fields are `claims.NAME` (dots descend), `scopes`, `consumer.username`, `consumer.id`, `consumer.custom_id`,
`consumer.groups` (of its acls), `credential`, `request.method`, `request.path` (in normal form), `request.host`,
`request.headers.NAME`, `request.query.NAME`, `client.ip`, `client.tls`, `client.certificate.names`,
`client.certificate.subject` and `client.certificate.fingerprint`. `has(FIELD)` asks whether there is one.

Types are checked when the config is loaded. Claims have the type that the token gives them: a comparison with another
type, or with what is not there, is false, `!=` too; so is one with a header or argument that comes several times.
",
    fields: &[
        SCOPES_ANY,
        SCOPES_ALL,
        Field::new(
            "consumer_groups",
            Kind::Set(&TEXT),
            "The consumer must be in one of these `consumer_groups`.",
        ),
        Field::new("expression", TEXT, "What must hold besides, such as `claims.role == \"admin\"`."),
        Field::new("message", TEXT, "What callers who may not are told.").default("\"You cannot consume this service\""),
    ],
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

/// See the module.
pub struct Authorize {
    scopes: Scopes,
    /// Positions of consumers that are in one of the groups, in order; `None` where no group is asked for.
    members: Option<Arc<[u32]>>,
    expression: Option<(String, Expression)>,
    message: String,
}

impl Policy for Authorize {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        if !cx.at_least_one_of(config, &["scopes_any", "scopes_all", "consumer_groups", "expression"]) {
            return None;
        }
        let expression = match config.spanned_str("expression") {
            None => None,
            Some(text) => match Expression::parse(&text) {
                Ok(expression) => Some((text.value.clone(), expression)),
                Err(error) => {
                    let span = transform::place(text.span, 0, text.len(), &error.range);
                    let message = format!("`expression`: {}", error.message);
                    let mut diagnostic = Diagnostic::new(&codes::INVALID_VALUE, span, message);
                    if let Some(help) = error.help {
                        diagnostic = diagnostic.help(help);
                    }
                    cx.diags.push(diagnostic);
                    return None;
                }
            },
        };
        let texts = |name| config.strings(name).into_iter().map(|s| s.value).collect();
        Some(Self {
            scopes: Scopes { any: texts("scopes_any"), all: texts("scopes_all") },
            members: members(config, cx)?,
            expression,
            message: config.str("message").unwrap_or_default().to_owned(),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let claims = x.identity.as_ref().and_then(|i| i.claims.clone());
        if !self.scopes.is_empty() && !self.scopes.admit(claims.as_deref()) {
            let refused = self.refuse(x);
            return Flow::Reply(match (refused.status, self.scopes.denial().scope) {
                (403, Some(scope)) => {
                    let scope = scope.replace(['"', '\\'], "'");
                    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
                    refused.field(names::WWW_AUTHENTICATE, challenge)
                }
                _ => refused,
            });
        }
        let consumer = x.identity.as_ref().and_then(|i| i.consumer);
        let is_member = |members: &Arc<[u32]>| consumer.is_some_and(|c| members.binary_search(&c.0).is_ok());
        let holds = |(_, expression): &(String, Expression)| expression.holds(&Facts(x));
        if self.members.as_ref().is_none_or(is_member) && self.expression.as_ref().is_none_or(holds) {
            return Flow::Next;
        }
        Flow::Reply(self.refuse(x))
    }
}

impl Authorize {
    /// The rule in words.
    pub fn described(&self) -> String {
        let mut all = Vec::new();
        if !self.scopes.is_empty() {
            all.push(format!("scopes: {}", self.scopes.described()));
        }
        if self.members.is_some() {
            all.push("a member of one of `consumer_groups`".into());
        }
        if let Some((text, _)) = &self.expression {
            all.push(text.clone());
        }
        all.join("; ")
    }

    fn refuse(&self, x: &Exchange) -> Reply {
        match identity::is_authenticated(x) {
            true => Reply::error(&x.request, x.request_id, 403, &self.message),
            false => Reply::error(&x.request, x.request_id, 401, "Unauthorized"),
        }
    }
}

/// The consumers that are in the groups which a config asks for.
fn members(config: &Record, cx: &mut Cx<'_>) -> Option<Option<Arc<[u32]>>> {
    let asked = config.strings("consumer_groups");
    if asked.is_empty() {
        return Some(None);
    }
    let model = cx.model;
    let mut listed: std::collections::HashSet<&str> = Default::default();
    for name in &asked {
        let group = model.consumer_groups.iter().find(|g| g.name.value == name.value || g.id == name.value);
        let Some(group) = group else {
            let message = format!("there is no consumer group `{}`", name.value);
            cx.report(&codes::DANGLING_REFERENCE, name.span, message);
            return None;
        };
        listed.extend(group.consumers.iter().map(|c| c.value.as_str()));
    }
    let is_asked = |group: &str| {
        let mut known = model.consumer_groups.iter().filter(|g| g.name.value == group || g.id == group);
        known.any(|g| asked.iter().any(|a| a.value == g.name.value || a.value == g.id))
    };
    let is_member = |c: &crate::model::Consumer| {
        listed.contains(c.id.as_str())
            || c.username.as_ref().is_some_and(|u| listed.contains(u.value.as_str()))
            || c.groups.iter().any(|g| is_asked(&g.value))
    };
    let members = model.consumers.iter().enumerate().filter(|(_, c)| is_member(c)).map(|(i, _)| i as u32);
    Some(Some(members.collect()))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;
    use crate::exchange::Identity;
    use crate::policy::testing::{self, policy, refuses};
    use crate::snapshot::ConsumerId;

    fn check(config: Value, claims: Option<Value>, want: u16) {
        let policy = policy::<Authorize>(&config);
        let mut x = testing::exchange("GET /");
        x.identity = claims.clone().map(|claims| Identity {
            consumer: Some(ConsumerId(0)),
            claims: Some(Rc::new(claims)),
            ..Identity::default()
        });
        let (status, challenge) = match policy.request(&mut x) {
            Flow::Next => (200, None),
            Flow::Reply(reply) => (reply.status, reply.fields.first().map(|(_, v)| v.clone())),
            Flow::Await(_) => (0, None),
        };
        assert_eq!(status, want, "{config} {claims:?}");
        let by_scope = config.get("scopes_all").is_some() && status == 403;
        let want = by_scope.then(|| "Bearer error=\"insufficient_scope\", scope=\"a b\"".to_owned());
        assert_eq!(challenge, want, "{config} {claims:?}");
    }

    #[test]
    fn everything_that_is_asked_for_must_be_there() {
        check(json!({"scopes_all": ["a", "b"]}), Some(json!({"scope": "b a"})), 200);
        check(json!({"scopes_all": ["a", "b"]}), Some(json!({"scope": "a"})), 403);
        check(json!({"scopes_any": ["a"]}), None, 401);
        check(json!({"expression": "claims.role == 'admin'"}), Some(json!({"role": "admin"})), 200);
        check(json!({"expression": "claims.role == 'admin'"}), Some(json!({"role": ["admin"]})), 403);
        check(json!({"expression": "claims.role == 'admin'"}), None, 401);
        check(
            json!({"expression": "consumer.username == 'alice' && consumer.groups contains 'admin'"}),
            Some(json!({})),
            200,
        );
        let both = json!({"scopes_any": ["a"], "expression": "has(claims.x)"});
        check(both.clone(), Some(json!({"scope": "a", "x": 0})), 200);
        check(both.clone(), Some(json!({"scope": "a"})), 403);
        let described = policy::<Authorize>(&both).described();
        assert_eq!(described, "scopes: one of \"a\"; has(claims.x)");
    }

    #[test]
    fn mistakes_show_at_load() {
        refuses::<Authorize>(json!({}), "at least one of these fields");
        refuses::<Authorize>(
            json!({"expression": "claims.role = 'x'"}),
            "`expression`: expected a comparison",
        );
        refuses::<Authorize>(json!({"consumer_groups": ["gold"]}), "there is no consumer group `gold`");
    }
}
