//! `acl`: which groups of consumers may use a service.

use super::identity;
use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::FieldName;
use crate::model::schema::{Field, Kind, Record, TEXT};

static PLUGIN: Descriptor = Descriptor {
    name: "acl",
    summary: "allow or deny groups of consumers",
    doc: "\
## What it does
Lets requests pass by the groups of their consumer (`consumers[].acls`).

## Why
Authentication says who asks; this says whether they may.

## Example
```yaml
consumers:
  - username: alice
    keyauth_credentials: [{ key: a-key }]
    acls: [{ group: admin }]
plugins:
  - name: key-auth
  - name: acl
    config: { allow: [admin] }
```

## Behaviour
Needs an authenticator before it. Without a consumer the answer is 401 `Unauthorized`; a consumer whose groups are not
allowed, or are denied, gets 403 `You cannot consume this service`; an anonymous consumer without groups 401. A consumer
without groups passes where only `deny` is given. The upstream is told the groups in `X-Consumer-Groups`, or in
`X-Authenticated-Groups` where the authenticator itself vouches for them (claims of a token); clients can send neither.
",
    fields: &[
        Field::new("allow", Kind::List(&TEXT), "Groups that may ask; exactly one of `allow` and `deny`."),
        Field::new("deny", Kind::List(&TEXT), "Groups that may not ask."),
        Field::new("hide_groups_header", Kind::Bool, "Whether the upstream is not told the groups.").default("false"),
        Field::new(
            "always_use_authenticated_groups",
            Kind::Bool,
            "Whether groups that the authenticator vouches for count before the consumer's own.",
        )
        .default("false"),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: &["X-Consumer-Groups", "X-Authenticated-Groups"],
};

/// See the module.
pub struct Acl {
    groups: Vec<String>,
    /// Whether the groups are the allowed ones, not the denied.
    allow: bool,
    hide: bool,
    prefer_authenticated: bool,
    consumer_groups: FieldName,
    authenticated_groups: FieldName,
}

impl Policy for Acl {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        if !cx.exactly_one_of(config, &["allow", "deny"]) {
            return None;
        }
        let allow = super::config::says(config, "allow");
        let groups = config.strings(if allow { "allow" } else { "deny" });
        Some(Self {
            groups: groups.into_iter().map(|g| g.value).collect(),
            allow,
            hide: config.bool("hide_groups_header"),
            prefer_authenticated: config.bool("always_use_authenticated_groups"),
            consumer_groups: FieldName::new("X-Consumer-Groups"),
            authenticated_groups: FieldName::new("X-Authenticated-Groups"),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let authenticated = identity::is_authenticated(x);
        let vouched = x.identity.as_ref().map(|i| i.groups.as_slice()).filter(|g| !g.is_empty());
        let (header, groups) = match x.consumer() {
            Some(consumer) => match vouched {
                Some(groups) if !authenticated || self.prefer_authenticated => {
                    (&self.authenticated_groups, groups)
                }
                _ => (&self.consumer_groups, consumer.acl_groups.as_slice()),
            },
            None => match vouched {
                Some(groups) => (&self.authenticated_groups, groups),
                None if authenticated => return self.forbidden(x),
                None => return unauthorized(x),
            },
        };
        let listed = groups.iter().any(|g| self.groups.contains(g));
        if groups.is_empty() && self.allow && !authenticated {
            return unauthorized(x);
        }
        if listed != self.allow {
            return self.forbidden(x);
        }
        if !self.hide && !groups.is_empty() {
            let joined = groups.join(", ");
            x.request.fields.set(header, joined);
        }
        Flow::Next
    }
}

impl Acl {
    /// The rule in words.
    pub fn described(&self) -> String {
        let groups = crate::token::trace::listed(self.groups.iter().map(String::as_str));
        if self.allow {
            format!("one of the groups {groups}")
        } else {
            format!("none of the groups {groups}")
        }
    }

    fn forbidden(&self, x: &Exchange) -> Flow {
        Flow::Reply(Reply::error(&x.request, x.request_id, 403, "You cannot consume this service"))
    }
}

fn unauthorized(x: &Exchange) -> Flow {
    Flow::Reply(Reply::error(&x.request, x.request_id, 401, "Unauthorized"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::exchange::Identity;
    use crate::policy::testing::{self, refuses};
    use crate::snapshot::ConsumerId;

    /// Who asks: alice has the groups admin and users, bob and anon have none.
    fn check(config: &Value, who: &str, vouched: &[&str], want: (u16, &str)) {
        let policy = testing::policy::<Acl>(config);
        let mut x = testing::exchange("GET /");
        let consumer = match who {
            "alice" => Some(ConsumerId(0)),
            "bob" => Some(ConsumerId(1)),
            "anon" => Some(ConsumerId(2)),
            _ => None,
        };
        if who != "nobody" {
            let groups = vouched.iter().map(|&g| g.to_owned()).collect();
            x.identity = Some(Identity { consumer, anonymous: who == "anon", groups, ..Identity::default() });
        }
        let (status, told) = match policy.request(&mut x) {
            Flow::Next => {
                let told = [&policy.consumer_groups, &policy.authenticated_groups]
                    .into_iter()
                    .find_map(|h| Some(format!("{}={}", h.as_str(), x.request.fields.text(h)?)));
                (200, told.unwrap_or_default())
            }
            Flow::Reply(reply) => (reply.status, String::new()),
            Flow::Await(_) => panic!("waits for nothing"),
        };
        assert_eq!((status, told.as_str()), want, "{config} {who} {vouched:?}");
    }

    #[test]
    fn groups_decide() {
        let told = "X-Consumer-Groups=admin, users";
        let (allow, deny) = (json!({"allow": ["x", "admin"]}), json!({"deny": ["admin"]}));
        check(&allow, "nobody", &[], (401, ""));
        check(&allow, "alice", &[], (200, told));
        check(&allow, "bob", &[], (403, ""));
        check(&allow, "anon", &[], (401, ""));
        check(&json!({"allow": ["other"]}), "alice", &[], (403, ""));
        check(&deny, "nobody", &[], (401, ""));
        check(&deny, "alice", &[], (403, ""));
        check(&deny, "bob", &[], (200, ""));
        check(&deny, "anon", &[], (200, ""));
        check(&json!({"deny": ["other"]}), "alice", &[], (200, told));
        check(&json!({"allow": ["admin"], "hide_groups_header": true}), "alice", &[], (200, ""));
    }

    #[test]
    fn an_authenticator_may_vouch_for_groups() {
        let allow = json!({"allow": ["gold"]});
        check(&allow, "issuer", &["gold", "eu"], (200, "X-Authenticated-Groups=gold, eu"));
        check(&allow, "issuer", &["lead"], (403, ""));
        check(&allow, "issuer", &[], (403, ""));
        check(&allow, "alice", &["gold"], (403, ""));
        let always = json!({"allow": ["gold"], "always_use_authenticated_groups": true});
        check(&always, "alice", &["gold"], (200, "X-Authenticated-Groups=gold"));
    }

    #[test]
    fn exactly_one_list_is_given() {
        let message = "exactly one of these fields must be non-empty";
        refuses::<Acl>(json!({}), message);
        refuses::<Acl>(json!({"allow": [], "deny": []}), message);
        refuses::<Acl>(json!({"allow": ["a"], "deny": ["b"]}), message);
    }
}
