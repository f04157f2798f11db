//! Limits that clients can dodge.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::schema::Record;
use crate::source::Span;

pub const FORGEABLE_DOC: &str = "\
## What it does
Finds rate limits that are counted by something the client itself chooses.

## Why
A limit counts requests by a key. If the key is a header that the client sends, every new value is a new budget, and the
limit stops only the honest. The same goes for the client's address where `gateway.trusted_ips` trusts everybody.

## Example
```yaml
plugins: [{ name: rate-limiting, config: { minute: 10, limit_by: header, header_name: X-Api-Client } }]
```

## Use instead
Count by who was authenticated (`limit_by: consumer`) or by address (`limit_by: ip`).
";

pub const UNIDENTIFIED_DOC: &str = "\
## What it does
Finds `limit_by: consumer` and `limit_by: credential` on routes without an authenticator.

## Why
Nobody is ever identified on such a route, so the limit is silently counted by client address: all clients behind one
NAT share a budget, and one client with many addresses has many.

## Example
```yaml
plugins: [{ name: rate-limiting, config: { minute: 10, limit_by: consumer } }]
```

## Use instead
Add an authenticator (`jwt`, `key-auth`, ...), or say what happens: `limit_by: ip`.
";

/// Reports limits by a forgeable key.
pub fn forgeable(facts: &Facts<'_>, diags: &mut Diags) {
    let trusts_all = facts.model.gateway.trusted_ips.iter().any(|net| net.prefix_len() == 0);
    for plugin in facts.plugins("rate-limiting") {
        for limit in plugin.config.records("limits") {
            named(limit, trusts_all, diags);
        }
        let (why, help) = match plugin.config.str("limit_by") {
            Some("header") => {
                let name = plugin.config.str("header_name").unwrap_or("the header");
                (format!("every new value of `{name}` is a new budget"), "count by `consumer` or `ip`")
            }
            Some("ip") if trusts_all => (
                "`trusted_ips` trusts everybody, so clients choose the address they are counted by"
                    .to_owned(),
                "let `gateway.trusted_ips` list only your own proxies",
            ),
            _ => continue,
        };
        diags.push(
            Diagnostic::new(
                &codes::FORGEABLE_LIMIT_KEY,
                plugin.config.span_of("limit_by"),
                format!("clients can dodge this limit: {why}"),
            )
            .label("the client chooses this key")
            .help(help),
        );
    }
}

/// A limit is forgeable by any part of its key that clients choose, and by a weight that they choose.
fn named(limit: &Record, trusts_all: bool, diags: &mut Diags) {
    let mut report = |span, why: String, help: &str| {
        let name = limit.str("name").unwrap_or_default();
        let message = format!("clients can dodge the limit `{name}`: {why}");
        let finding = Diagnostic::new(&codes::FORGEABLE_LIMIT_KEY, span, message);
        diags.push(finding.label("the client chooses this").help(help.to_owned()));
    };
    if let Some(name) = limit.str("weight_header") {
        report(
            limit.span_of("weight_header"),
            format!("whoever may set `{name}` says how little a request weighs"),
            "see that a proxy in front sets the header, or charge by the response with `cost_header`",
        );
    }
    for word in limit.strings("by") {
        match word.value.split_once(':') {
            Some(("header", name)) => report(
                word.span,
                format!("every new value of `{name}` is a new budget"),
                "count by `consumer`, `ip` or `claim:NAME`",
            ),
            None if word.value == "ip" && trusts_all => report(
                word.span,
                "`trusted_ips` trusts everybody, so clients choose the address they are counted by"
                    .to_owned(),
                "let `gateway.trusted_ips` list only your own proxies",
            ),
            _ => {}
        }
    }
}

/// Reports limits by consumer where there are none.
pub fn unidentified(facts: &Facts<'_>, diags: &mut Diags) {
    for name in ["rate-limiting", "response-ratelimiting"] {
        for (i, plugin) in facts.numbered_plugins(name).filter(|(_, p)| p.config.given("limit_by")) {
            let by = plugin.config.str("limit_by").unwrap_or("");
            if !matches!(by, "consumer" | "credential") {
                continue;
            }
            let said = format!("`limit_by: {by}`");
            nobody(facts, i, plugin.config.span_of("limit_by"), &said, by, "`limit_by: ip`", diags);
        }
    }
    for (i, plugin) in facts.numbered_plugins("rate-limiting") {
        for limit in plugin.config.records("limits").filter(|l| l.given("by")) {
            // Of several things one that is never there only makes the key shorter.
            if let [word] = limit.strings("by").as_slice() {
                let identity = word.value.split_once(':').map_or(word.value.as_str(), |(kind, _)| kind);
                if matches!(identity, "consumer" | "credential" | "claim") {
                    let said = format!("`by: [{}]`", word.value);
                    nobody(facts, i, word.span, &said, identity, "`by: [ip]`", diags);
                }
            }
        }
    }
}

/// Reports a limit by an identity that is never known on one of the plugin's routes.
fn nobody(
    facts: &Facts<'_>,
    plugin: usize,
    span: Span,
    said: &str,
    identity: &str,
    instead: &str,
    diags: &mut Diags,
) {
    let open = facts.routes_of(plugin).iter().copied().find(|&r| !facts.has_authenticator(r));
    let Some(route) = open else { return };
    diags.push(
        Diagnostic::new(
            &codes::LIMIT_WITHOUT_IDENTITY,
            span,
            format!(
                "{said} counts by client address on route {}: nothing there identifies consumers",
                facts.route_name(route)
            ),
        )
        .label(format!("no {identity} is ever known"))
        .also(facts.route_span(route), "this route has no authenticator")
        .help(format!("add an authenticator such as `key-auth` or `jwt`, or write {instead}")),
    );
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    const BASE: &str =
        "_format_version: '3.0'\nservices: [{url: 'http://a.test', routes: [{name: r, paths: [/r]}]}]\n";

    #[test]
    fn a_header_is_no_identity() {
        let yaml = format!(
            "{BASE}plugins:\n- {{name: rate-limiting, config: {{minute: 1, limit_by: header, header_name: X}}}}\n"
        );
        check(
            &codes::FORGEABLE_LIMIT_KEY,
            &yaml,
            &["4: clients can dodge this limit: every new value of `X`"],
        );
    }

    #[test]
    fn named_limits_may_be_forgeable_too() {
        let limit = |by: &str| {
            format!(
                "{BASE}plugins:\n- {{name: rate-limiting, config: {{limits: [{{name: l, limit: 1, period: day, by: [{by}]}}]}}}}\n"
            )
        };
        let dodged = ["4: clients can dodge the limit `l`: every new value of `X`"];
        check(&codes::FORGEABLE_LIMIT_KEY, &limit("consumer, 'header:X'"), &dodged);
        check(&codes::FORGEABLE_LIMIT_KEY, &limit("consumer, ip"), &[]);
        let weighed = limit("ip").replace("period: day", "period: day, weight_header: X-W");
        let dodged = ["4: clients can dodge the limit `l`: whoever may set `X-W`"];
        check(&codes::FORGEABLE_LIMIT_KEY, &weighed, &dodged);
        let claim = limit("'claim:tenant'");
        let unknown = ["4: `by: [claim:tenant]` counts by client address on route `r`"];
        check(&codes::LIMIT_WITHOUT_IDENTITY, &claim, &unknown);
        check(&codes::LIMIT_WITHOUT_IDENTITY, &format!("{claim}- name: jwt\n"), &[]);
        check(&codes::LIMIT_WITHOUT_IDENTITY, &limit("ip"), &[]);
    }

    #[test]
    fn limits_by_consumer_need_an_authenticator() {
        let yaml =
            format!("{BASE}plugins:\n- {{name: rate-limiting, config: {{minute: 1, limit_by: consumer}}}}\n");
        check(
            &codes::LIMIT_WITHOUT_IDENTITY,
            &yaml,
            &["4: `limit_by: consumer` counts by client address on route `r`"],
        );
        check(&codes::LIMIT_WITHOUT_IDENTITY, &format!("{yaml}- name: key-auth\n"), &[]);
        let unsaid = format!("{BASE}plugins:\n- {{name: rate-limiting, config: {{minute: 1}}}}\n");
        check(&codes::LIMIT_WITHOUT_IDENTITY, &unsaid, &[]);
    }
}
