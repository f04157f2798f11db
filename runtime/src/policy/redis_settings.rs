//! Where Redis is and how to speak to it: what a plugin says, and what `gateway.redis` says for all of them.

use std::sync::Arc;
use std::time::Duration;

use super::{Cx, redis_topology as topology};
use crate::diag::{Diagnostic, Diags, codes};
use crate::limit::RedisSettings;
use crate::limit::redis::{DEFAULT_MAX_WAIT, RedisTls, Topology};
use crate::model::Model;
use crate::model::redis::{DATABASE, PLACE};
use crate::model::schema::{Field, Kind, MILLIS, PORT, Record, Rule as Text, STR};

const HOST: Kind = Kind::Str(Text::Host);

/// The old, flat names of a plugin's `redis`.
pub const LEGACY: [Field; 9] = [
    Field::new("redis_host", HOST, "Old name of `redis.host`."),
    Field::new("redis_port", PORT, "Old name of `redis.port`."),
    Field::new("redis_username", STR, "Old name of `redis.username`."),
    Field::new("redis_password", STR, "Old name of `redis.password`.").secret(),
    Field::new("redis_database", DATABASE, "Old name of `redis.database`."),
    Field::new("redis_timeout", MILLIS, "Old name of `redis.timeout`."),
    Field::new("redis_ssl", Kind::Bool, "Old name of `redis.ssl`."),
    Field::new("redis_ssl_verify", Kind::Bool, "Old name of `redis.ssl_verify`."),
    Field::new("redis_server_name", HOST, "Old name of `redis.server_name`."),
];

/// The Redis of a plugin: where it names one, as `redis` says and for what that does not say the old flat fields; else
/// that of `gateway.redis`, with what the plugin says otherwise. `None` after a finding.
pub fn of_plugin(config: &Record, cx: &mut Cx<'_>) -> Option<Arc<RedisSettings>> {
    let nested = config.record("redis");
    agree(config, nested, cx)?;
    let said = Said { nested, flat: Some(config) };
    let base = match (said.names_a_place(), of_gateway(cx.model, &mut Diags::new())) {
        (true, _) => said.place(cx.diags)?,
        (false, Some(shared)) => shared,
        // What is wrong there was reported there.
        (false, None) if cx.model.gateway.redis.is_some() => return None,
        (false, None) => {
            let span = nested.map_or(config.span, |r| r.span);
            let finding = Diagnostic::new(
                &codes::MISSING_ALTERNATIVE,
                span,
                "`redis.host`: required field missing, as `policy` is `redis`",
            );
            cx.diags.push(finding.help("set `redis.host`, or `redis` of `gateway` for all plugins at once"));
            return None;
        }
    };
    let settings = said.over(base, false, cx.model.gateway.tls.upstream_authorities());
    said.fits(&settings, cx.diags).then(|| Arc::new(settings))
}

/// The Redis of `gateway.redis`; `None` where there is none, and after a finding.
pub fn of_gateway(model: &Model, diags: &mut Diags) -> Option<RedisSettings> {
    let record = model.gateway.redis.as_ref()?;
    let said = Said { nested: Some(record), flat: None };
    let base = match record.spanned_str("url") {
        Some(url) => {
            let apart = ["port", "username", "password", "database", "ssl"];
            if let Some(other) = PLACE.into_iter().chain(apart).find(|name| record.given(name)) {
                let message = format!("`gateway.redis` has a `url` and also `{other}`");
                let finding = Diagnostic::new(&codes::CONFLICTING_FIELDS, record.span_of(other), message);
                let help = format!("write `{other}` into the `url`, or write fields only");
                diags.push(finding.also(url.span, "the URL").help(help));
                return None;
            }
            match RedisSettings::from_url(&url.value) {
                Ok(settings) => settings,
                Err(why) => {
                    let message = format!("`gateway.redis` is {why}");
                    diags.push(Diagnostic::new(&codes::INVALID_VALUE, url.span, message));
                    return None;
                }
            }
        }
        None if said.names_a_place() => said.place(diags)?,
        None => {
            let message = "`gateway.redis` does not say where Redis is";
            let finding = Diagnostic::new(&codes::MISSING_ALTERNATIVE, record.span, message);
            diags.push(
                finding
                    .help("set `url` or `host`, `cluster_nodes`, or `sentinel_master` and `sentinel_nodes`"),
            );
            return None;
        }
    };
    let settings = said.over(base, true, model.gateway.tls.upstream_authorities());
    said.fits(&settings, diags).then_some(settings)
}

/// What a record says, or in a plugin the old flat fields beside it.
struct Said<'a> {
    nested: Option<&'a Record>,
    flat: Option<&'a Record>,
}

impl Said<'_> {
    fn names_a_place(&self) -> bool {
        let filled = |name: &str| self.nested.is_some_and(|r| r.given(name) && r.get(name).is_some());
        self.text("host").is_some() || PLACE.into_iter().skip(1).any(filled)
    }

    /// A server, or several, with nothing but defaults beside.
    fn place(&self, diags: &mut Diags) -> Option<RedisSettings> {
        let topology = topology::read(self.nested, diags)?;
        let first = match &topology {
            Topology::Single => None,
            Topology::Cluster(seeds) => seeds.nodes.first().cloned(),
            Topology::Sentinel(sentinels) => sentinels.nodes.first().cloned(),
        };
        let (host, port) = match first {
            Some(node) => (node.host, node.port),
            None => {
                let port = self.int("port").and_then(|n| u16::try_from(n).ok()).unwrap_or(6379);
                (self.text("host")?.trim_matches(['[', ']']).to_owned(), port)
            }
        };
        Some(RedisSettings {
            host,
            port,
            topology,
            username: None,
            password: None,
            database: 0,
            timeout: Duration::from_secs(2),
            max_wait: DEFAULT_MAX_WAIT,
            tls: None,
        })
    }

    /// Settings, and over them what is said here. `verify` is what counts where TLS is asked for without a word on
    /// certificates.
    fn over(&self, mut s: RedisSettings, verify: bool, authorities: Option<&str>) -> RedisSettings {
        s.username = self.text("username").or(s.username);
        s.password = self.text("password").or(s.password);
        s.database = self.int("database").unwrap_or(s.database);
        s.timeout = self.millis("timeout").unwrap_or(s.timeout);
        s.max_wait = self.millis("max_wait").unwrap_or(s.max_wait);
        match self.truth("ssl") {
            Some(true) if s.tls.is_none() => s.tls = Some(RedisTls { verify, ..RedisTls::default() }),
            Some(false) => s.tls = None,
            _ => {}
        }
        if let Some(tls) = &mut s.tls {
            tls.verify = self.truth("ssl_verify").unwrap_or(tls.verify);
            tls.server_name = self.text("server_name").or(tls.server_name.take());
            tls.authorities = authorities.filter(|_| tls.verify).map(Arc::from);
        }
        s
    }

    /// Whether the parts go together.
    fn fits(&self, settings: &RedisSettings, diags: &mut Diags) -> bool {
        if settings.database == 0 || !matches!(settings.topology, Topology::Cluster(_)) {
            return true;
        }
        let span = match self.look("database") {
            Some((record, name)) => record.span_of(&name),
            None => self.nested.or(self.flat).map(|r| r.span).unwrap_or_default(),
        };
        let message = "`database` is not 0, but a Redis Cluster has no other";
        let finding = Diagnostic::new(&codes::CONFLICTING_FIELDS, span, message);
        diags.push(finding.help("remove `database`"));
        false
    }

    fn look(&self, name: &str) -> Option<(&Record, String)> {
        if let Some(redis) = self.nested.filter(|r| r.given(name)) {
            return Some((redis, name.to_owned()));
        }
        let legacy = format!("redis_{name}");
        self.flat.filter(|r| r.given(&legacy)).map(|r| (r, legacy))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.look(name).and_then(|(r, n)| r.str(&n).map(str::to_owned)).filter(|s| !s.is_empty())
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.look(name).and_then(|(r, n)| r.int(&n))
    }

    fn truth(&self, name: &str) -> Option<bool> {
        self.look(name).and_then(|(r, n)| r.bool_opt(&n))
    }

    fn millis(&self, name: &str) -> Option<Duration> {
        self.int(name).and_then(|n| u64::try_from(n).ok()).map(Duration::from_millis)
    }
}

/// Refuses an old name beside its new one, unless both say the same (as files that Kong wrote do).
fn agree(config: &Record, nested: Option<&Record>, cx: &mut Cx<'_>) -> Option<()> {
    for field in &LEGACY {
        let name = field.name.trim_start_matches("redis_");
        let (Some(old), Some(new)) = (config.get(field.name), nested.and_then(|r| r.get(name))) else {
            continue;
        };
        if old.given && new.given && old.value.value != new.value.value {
            let message = format!("`{}` and `redis.{name}` are both given and differ", field.name);
            let finding = Diagnostic::new(&codes::CONFLICTING_FIELDS, old.key, message);
            cx.diags.push(finding.also(new.key, "the new name").help(format!("remove `{}`", field.name)));
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::front::{self, Input, LoadOptions};
    use crate::policy::{Policy as _, Step};
    use crate::snapshot::shared::Shared;
    use crate::source::Sources;
    use crate::{check, compile};

    /// The settings of a plugin whose `redis` is `plugin`, beside `gateway.redis`; else what was found.
    fn read(gateway: &str, plugin: &str) -> Result<Arc<RedisSettings>, Vec<String>> {
        let text = format!(
            "_format_version: '3.0'\ngateway: {{redis: {gateway}}}\nplugins:\n- name: rate-limiting\n  config: {{minute: 1, \
             policy: redis, redis: {plugin}}}\nroutes: [{{name: r, paths: [/]}}]\n"
        );
        let (input, mut sources) = (Input::text("t.yaml", text), Sources::default());
        let (model, mut diags) = front::load(&mut sources, &[input], &Env::empty(), &LoadOptions::default());
        let (checked, errors) = check::run(model);
        diags.extend(errors);
        let snapshot = checked.and_then(|model| {
            let (snapshot, errors) = compile::build(&model, &Arc::new(Shared::default()));
            diags.extend(errors);
            snapshot
        });
        let steps = snapshot.iter().flat_map(|s| s.steps.iter());
        let mut all = steps.filter_map(|step| match step {
            Step::RateLimiting(policy) => policy.redis().cloned(),
            _ => None,
        });
        all.next().ok_or_else(|| diags.into_iter().map(|d| d.message).collect())
    }

    #[track_caller]
    fn check(gateway: &str, plugin: &str, want: impl FnOnce(&RedisSettings) -> bool) {
        let settings = read(gateway, plugin).unwrap_or_else(|found| panic!("{gateway} {plugin}: {found:?}"));
        assert!(want(&settings), "{gateway} {plugin}: {settings:?}");
    }

    #[track_caller]
    fn refuses(gateway: &str, plugin: &str, want: &str) {
        let found = read(gateway, plugin).expect_err("it should be refused");
        assert!(found.len() == 1 && found[0].contains(want), "{gateway} {plugin}: {found:?}");
    }

    const SENTINELS: &str =
        "{sentinel_master: m, sentinel_nodes: [{host: s.test}], username: u, password: p}";

    #[test]
    fn the_gateways_redis_may_be_a_url_a_server_a_cluster_or_sentinels() {
        check("redis://u:p@r.test:7000/2", "{}", |s| {
            (s.host.as_str(), s.port, s.database, s.username.as_deref()) == ("r.test", 7000, 2, Some("u"))
        });
        check("{url: 'rediss://r.test', max_wait: 7}", "{}", |s| {
            s.max_wait.as_millis() == 7 && s.tls.as_ref().is_some_and(|t| t.verify)
        });
        check("{host: r.test, port: 7, password: p, database: 3}", "{}", |s| {
            (s.port, s.database, s.password.as_deref(), &s.tls) == (7, 3, Some("p"), &None)
        });
        check("{cluster_nodes: [{ip: a.test}, {ip: b.test, port: 1}]}", "{}", |s| {
            matches!(&s.topology, Topology::Cluster(seeds) if seeds.nodes.len() == 2) && s.host == "a.test"
        });
        check(SENTINELS, "{}", |s| matches!(s.topology, Topology::Sentinel(_)) && s.port == 26_379);
    }

    #[test]
    fn certificates_are_verified_unless_the_gateway_says_otherwise() {
        let verified = |s: &RedisSettings| s.tls.as_ref().map(|t| t.verify);
        check("{host: r.test, ssl: true}", "{}", |s| verified(s) == Some(true));
        check("{host: r.test, ssl: true, ssl_verify: false}", "{}", |s| verified(s) == Some(false));
        // Kong's default, where a plugin names a server of its own.
        check("{host: r.test, ssl: true}", "{host: other.test, ssl: true}", |s| verified(s) == Some(false));
    }

    #[test]
    fn a_plugin_takes_the_gateways_redis_with_what_it_says_otherwise_or_has_its_own() {
        check("redis://u:p@r.test/2", "{database: 5, username: v, max_wait: 9}", |s| {
            (s.host.as_str(), s.database, s.username.as_deref()) == ("r.test", 5, Some("v"))
                && (s.password.as_deref(), s.max_wait.as_millis()) == (Some("p"), 9)
        });
        check(SENTINELS, "{ssl: true, server_name: n.test}", |s| {
            s.tls.as_ref().is_some_and(|t| !t.verify && t.server_name.as_deref() == Some("n.test"))
        });
        check("redis://u:p@r.test/2", "{host: other.test}", |s| {
            (s.host.as_str(), s.database, &s.password) == ("other.test", 0, &None)
        });
        check(SENTINELS, "{cluster_nodes: [{ip: c.test}]}", |s| matches!(s.topology, Topology::Cluster(_)));
    }

    #[test]
    fn what_does_not_go_together_is_refused_once() {
        refuses("{max_wait: 3}", "{}", "`gateway.redis` does not say where Redis is");
        refuses("{url: 'redis://r.test', host: r.test}", "{}", "has a `url` and also `host`");
        refuses("{url: 'redis://r.test', password: hunter2}", "{}", "has a `url` and also `password`");
        refuses("{sentinel_master: m}", "{}", "`redis.sentinel_nodes`: required field missing");
        refuses("{cluster_nodes: [{ip: a.test}], database: 1}", "{}", "`database` is not 0");
        refuses("{cluster_nodes: [{ip: a.test}]}", "{database: 1}", "`database` is not 0");
        refuses("'http://r.test'", "{}", "`gateway.redis` is not a Redis URL");
        refuses("~", "{}", "`redis.host`: required field missing");
    }
}
