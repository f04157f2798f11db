//! `ip-restriction`: who may ask, by address.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::diag::{Diagnostic, codes};
use crate::exchange::Exchange;
use crate::model::schema::{Field, Kind, Record, Rule, STR};

const ADDRESSES: Kind = Kind::List(&Kind::Str(Rule::IpOrCidr));

static PLUGIN: Descriptor = Descriptor {
    name: "ip-restriction",
    summary: "allow or deny clients by IP address",
    doc: "\
## What it does
Refuses requests from denied addresses, and from all but the allowed ones where `allow` is given.

## Why
Internal services and partners are often known by their networks.

## Example
```yaml
plugins:
  - name: ip-restriction
    config: { allow: [10.0.0.0/8, \"2001:db8::/32\"], deny: [10.6.6.6] }
```

## Behaviour
`deny` is looked at first, then `allow`. The address is the client's as trusted proxies report it
(`gateway.trusted_ips`), else the peer's; what untrusted clients claim counts for nothing. An IPv4 address that comes
as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address. Refusals are 403 `IP address not allowed: ADDRESS`, or `status` and
`message`.
",
    fields: &[
        Field::new("allow", ADDRESSES, "Addresses and networks that may ask; all others may not."),
        Field::new("deny", ADDRESSES, "Addresses and networks that may not ask."),
        Field::new("status", Kind::Int { min: 100, max: 599 }, "The status of refusals instead of 403."),
        Field::new("message", STR, "The message of refusals instead of `IP address not allowed: ADDRESS`."),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

/// See the module.
pub struct IpRestriction {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    status: u16,
    message: Option<String>,
}

impl Policy for IpRestriction {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        if !cx.at_least_one_of(config, &["allow", "deny"]) {
            return None;
        }
        let allow = networks(config, "allow", cx);
        let deny = networks(config, "deny", cx);
        Some(Self {
            allow: allow?,
            deny: deny?,
            status: config.int("status").and_then(|n| u16::try_from(n).ok()).unwrap_or(403),
            message: config.str("message").filter(|m| !m.is_empty()).map(str::to_owned),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let ip = x.client.ip.to_canonical();
        let within = |list: &[IpNet]| list.iter().any(|net| net.contains(&ip));
        if !within(&self.deny) && (self.allow.is_empty() || within(&self.allow)) {
            return Flow::Next;
        }
        let own = || format!("IP address not allowed: {ip}");
        let message = self.message.clone().unwrap_or_else(own);
        Flow::Reply(Reply::error(&x.request, x.request_id, self.status, &message))
    }
}

/// The networks of a list; host bits beyond the prefix are ignored, as Kong does.
fn networks(config: &Record, field: &str, cx: &mut Cx<'_>) -> Option<Vec<IpNet>> {
    let texts = config.strings(field);
    let mut networks = Vec::new();
    for text in &texts {
        match network(text) {
            Some(net) => networks.push(net),
            None => {
                let message = format!("invalid ip or cidr range: `{}`", text.value);
                cx.diags.push(
                    Diagnostic::new(&codes::INVALID_VALUE, text.span, message)
                        .help("write an address such as `10.0.0.1` or a network such as `10.0.0.0/8`"),
                );
            }
        }
    }
    (networks.len() == texts.len()).then_some(networks)
}

fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(net) => Some(net),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{check, refuses};

    #[test]
    fn addresses_are_denied_first_then_allowed() {
        let refused = |ip: &str| format!("403\nbody \"message\":\"IP address not allowed: {ip}\"");
        for (config, ip, passes) in [
            (json!({"deny": ["127.0.0.1", "127.0.0.2"]}), "127.0.0.1", false),
            (json!({"deny": ["127.0.0.2"]}), "127.0.0.1", true),
            (json!({"allow": ["127.0.0.2"]}), "127.0.0.1", false),
            (json!({"deny": ["127.0.0.2"], "allow": ["127.0.0.0/24"]}), "127.0.0.1", true),
            (json!({"deny": ["127.0.0.1"], "allow": ["127.0.0.0/24"]}), "127.0.0.1", false),
            (json!({"deny": ["0.0.0.0/0"]}), "127.0.0.1", false),
            (json!({"deny": ["0.0.0.0/0"]}), "::1", true),
            (json!({"allow": ["2001:db8::/32"]}), "2001:db8::42", true),
            (json!({"deny": ["::/0"]}), "::1", false),
            (json!({"allow": ["10.1.2.3/8"]}), "10.200.0.1", true),
        ] {
            let request = format!("GET /\nclient-ip: {ip}");
            let want = if passes { "next".to_owned() } else { refused(ip) };
            check::<IpRestriction>(config, &request, &want);
        }
        let mapped = "GET /\nclient-ip: ::ffff:10.0.0.1";
        check::<IpRestriction>(json!({"deny": ["10.0.0.0/8"]}), mapped, &refused("10.0.0.1"));
    }

    #[test]
    fn refusals_may_have_their_own_words() {
        let config = json!({"deny": ["127.0.0.1"], "status": 404, "message": "gone"});
        check::<IpRestriction>(config, "GET /", "404\nbody \"message\":\"gone\"");
    }

    #[test]
    fn bad_configs_are_refused() {
        refuses::<IpRestriction>(json!({}), "at least one of these fields must be non-empty");
        refuses::<IpRestriction>(json!({"deny": ["300.0.0.1"]}), "invalid ip or cidr range");
        refuses::<IpRestriction>(json!({"allow": ["10.0.0.0/33"]}), "invalid ip or cidr range");
    }
}
