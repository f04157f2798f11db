//! What happens to limits when Redis is away, and who else may reach it.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::limit::RedisSettings;
use crate::model::Plugin;
use crate::policy::redis_settings;
use crate::source::Span;

pub const FAILS_OPEN_DOC: &str = "\
## What it does
Finds limits in Redis that let every request pass while Redis cannot be reached. Off by default; `-W limiter-fails-open`
turns it on.

## Why
`fault_tolerant` is true unless the config says otherwise. That keeps a service up when Redis is down, and it means that
whoever can disturb Redis switches the limit off.

## Example
```yaml
plugins: [{ name: rate-limiting, config: { minute: 10, policy: redis, redis: { host: redis.internal } } }]
```

## Use instead
Where the limit protects something that must not be overrun:
```yaml
config: { minute: 10, policy: redis, fault_tolerant: false, redis: { host: redis.internal } }
```
";

pub const IN_CLEAR_DOC: &str = "\
## What it does
Finds connections to a Redis on another host without password or without TLS. Off by default; `-W redis-in-clear` turns
it on.

## Why
Whoever shares the network can read and reset the counters, or take the Redis over.

## Example
```yaml
redis: { host: redis.internal }
```

## Use instead
```yaml
redis: { host: redis.internal, password: \"${REDIS_PASSWORD}\", ssl: true, ssl_verify: true }
```
";

/// Reports limits that a broken Redis opens.
pub fn fails_open(facts: &Facts<'_>, diags: &mut Diags) {
    for plugin in limiters(facts) {
        if plugin.config.bool_opt("fault_tolerant") != Some(false) {
            diags.push(
                Diagnostic::new(
                    &codes::LIMITER_FAILS_OPEN,
                    plugin.name.span,
                    format!("`{}` lets every request pass while Redis cannot be reached", plugin.name.value),
                )
                .label("`fault_tolerant` is true")
                .help(
                    "set `fault_tolerant: false` if going without the limit is worse than refusing requests",
                ),
            );
        }
    }
}

/// Reports connections that others can read.
pub fn in_clear(facts: &Facts<'_>, diags: &mut Diags) {
    let inherited = limiters(facts).any(|p| server(p).is_none());
    let shared = shared(facts).filter(|_| inherited);
    let place =
        shared.iter().map(|(s, span)| (s.host.as_str(), *span, s.password.is_some(), s.tls.is_some()));
    let own = limiters(facts).filter_map(server);
    for (host, span, password, ssl) in place.chain(own) {
        let local = host == "localhost" || host.starts_with("127.") || host == "::1";
        let lacks = match (password, ssl) {
            _ if local => continue,
            (true, true) => continue,
            (false, true) => "a password",
            (true, false) => "TLS",
            (false, false) => "password and TLS",
        };
        diags.push(
            Diagnostic::new(
                &codes::REDIS_IN_CLEAR,
                span,
                format!("Redis at `{host}` is spoken to without {lacks}"),
            )
            .label("on another host")
            .help("set `password` and `ssl: true`, or let only the gateway reach that Redis"),
        );
    }
}

/// `gateway.redis`, and where it stands.
fn shared(facts: &Facts<'_>) -> Option<(RedisSettings, Span)> {
    let span = facts.model.gateway.redis.as_ref()?.span;
    Some((redis_settings::of_gateway(facts.model, &mut Diags::new())?, span))
}

fn limiters<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = &'a Plugin> {
    let names = ["rate-limiting", "response-ratelimiting"];
    names
        .into_iter()
        .flat_map(|n| facts.plugins(n))
        .filter(|p| matches!(p.config.str("policy"), Some("redis" | "hybrid")))
}

/// Host, its place, whether there is a password and whether TLS; nested or in Kong's older flat fields.
fn server(plugin: &Plugin) -> Option<(&str, Span, bool, bool)> {
    let c = &plugin.config;
    if let Some(r) = c.record("redis")
        && let Some(host) = r.str("host")
    {
        return Some((host, r.span_of("host"), r.get("password").is_some(), r.bool("ssl")));
    }
    for (list, host) in [("cluster_nodes", "ip"), ("sentinel_nodes", "host")] {
        if let Some(r) = c.record("redis")
            && let Some(node) = r.records(list).next()
            && let Some(name) = node.str(host)
        {
            return Some((name, node.span_of(host), r.get("password").is_some(), r.bool("ssl")));
        }
    }
    let host = c.str("redis_host")?;
    Some((host, c.span_of("redis_host"), c.get("redis_password").is_some(), c.bool("redis_ssl")))
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    fn with(rest: &str) -> String {
        format!(
            "_format_version: '3.0'\nplugins:\n- name: rate-limiting\n  config: {{minute: 1, policy: redis, {rest}}}\n"
        )
    }

    #[test]
    fn a_limit_may_fail_open_only_knowingly() {
        let found = ["3: `rate-limiting` lets every request pass"];
        check(&codes::LIMITER_FAILS_OPEN, &with("redis: {host: r.test}"), &found);
        check(&codes::LIMITER_FAILS_OPEN, &with("fault_tolerant: false, redis: {host: r.test}"), &[]);
    }

    #[test]
    fn a_distant_redis_wants_password_and_tls() {
        let found = ["4: Redis at `r.test` is spoken to without password and TLS"];
        check(&codes::REDIS_IN_CLEAR, &with("redis: {host: r.test}"), &found);
        check(&codes::REDIS_IN_CLEAR, &with("redis: {cluster_nodes: [{ip: r.test}]}"), &found);
        let shared =
            |redis: &str| with("").replace("plugins:", &format!("gateway: {{redis: {redis}}}\nplugins:"));
        check(
            &codes::REDIS_IN_CLEAR,
            &shared("'redis://:p@r.test'"),
            &["2: Redis at `r.test` is spoken to without TLS"],
        );
        check(&codes::REDIS_IN_CLEAR, &shared("{host: r.test, password: p, ssl: true}"), &[]);
        check(&codes::REDIS_IN_CLEAR, &with("redis: {host: 127.0.0.1}"), &[]);
        check(&codes::REDIS_IN_CLEAR, &with("redis: {host: r.test, password: p, ssl: true}"), &[]);
    }
}
