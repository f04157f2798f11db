//! What `rate-limiting` and `response-ratelimiting` share: periods, identifiers, and where Redis is.

use std::sync::Arc;
use std::time::Duration;

use super::{Cx, redis_topology as topology};
use crate::diag::{Diagnostic, codes};
use crate::limit::redis::{DEFAULT_MAX_WAIT, RedisTls, Topology};
use crate::limit::{Algorithm, Period, RedisSettings, Rule};
use crate::model::schema::{Field, Kind, MILLIS, PORT, Record, Rule as Text, STR};

/// A number of requests; fractions are allowed, as in Kong.
pub const AMOUNT: Kind = Kind::Num { min: f64::MIN_POSITIVE, max: f64::MAX };

const HOST: Kind = Kind::Str(Text::Host);
const DATABASE: Kind = Kind::Int { min: 0, max: i64::MAX };

/// Fields of `redis`.
pub static REDIS: &[Field] = &[
    Field::new("host", HOST, "Name or address of the Redis server. Without it `gateway.redis` applies."),
    Field::new("port", PORT, "Its port.").default("6379"),
    Field::new("username", STR, "User of Redis' access control, where it has one."),
    Field::new("password", STR, "Password.").secret(),
    Field::new("database", DATABASE, "Number of the database.").default("0"),
    Field::new("timeout", MILLIS, "Milliseconds that connecting may take.").default("2000"),
    Field::new(
        "max_wait",
        MILLIS,
        "Milliseconds that a request waits for Redis at most, if `timeout` is not less; then Redis counts as failed.",
    )
    .default("25")
    .extension(),
    Field::new("ssl", Kind::Bool, "Whether to speak TLS.").default("false"),
    Field::new("ssl_verify", Kind::Bool, "Whether the server's certificate must be valid.").default("false"),
    Field::new("server_name", HOST, "The name to ask for and to verify over TLS, where it is not the host."),
    topology::CLUSTER_NODES,
    topology::CLUSTER_REDIRECTIONS,
    topology::SENTINEL_MASTER,
    topology::SENTINEL_NODES,
    topology::SENTINEL_ROLE,
    topology::SENTINEL_USERNAME,
    topology::SENTINEL_PASSWORD,
];

/// The old, flat names of [`REDIS`].
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

/// Where Redis is: `redis`, for what it does not say the old flat fields, and without a host `gateway.redis`. `None`
/// after a finding.
pub fn redis_settings(config: &Record, cx: &mut Cx<'_>) -> Option<Arc<RedisSettings>> {
    let nested = config.record("redis");
    agree(config, nested, cx)?;
    let said = |name: &str| -> Option<(&Record, String)> {
        match nested {
            Some(redis) if redis.given(name) => Some((redis, name.to_owned())),
            _ => {
                let legacy = format!("redis_{name}");
                config.given(&legacy).then_some((config, legacy))
            }
        }
    };
    let text = |name| said(name).and_then(|(r, n)| r.str(&n).map(str::to_owned)).filter(|s| !s.is_empty());
    let int = |name| said(name).and_then(|(r, n)| r.int(&n));
    let truth = |name| said(name).is_some_and(|(r, n)| r.bool(&n));
    let millis = |name| int(name).and_then(|n| u64::try_from(n).ok()).map(Duration::from_millis);

    let topology = topology::read(nested, cx)?;
    let several = match &topology {
        Topology::Single => None,
        Topology::Cluster(seeds) => seeds.nodes.first(),
        Topology::Sentinel(sentinels) => sentinels.nodes.first(),
    };
    let host = several.map(|first| first.host.clone()).or_else(|| text("host"));
    let port = several.map(|first| first.port);
    let port = port.or_else(|| int("port").and_then(|n| u16::try_from(n).ok()));
    let mut settings = match (host, &cx.model.gateway.redis_url) {
        (Some(host), _) => RedisSettings {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.unwrap_or(6379),
            topology,
            username: text("username"),
            password: text("password"),
            database: int("database").unwrap_or(0),
            timeout: Duration::from_secs(2),
            max_wait: DEFAULT_MAX_WAIT,
            tls: truth("ssl")
                .then(|| RedisTls { verify: truth("ssl_verify"), server_name: text("server_name") }),
        },
        (None, Some(url)) => match RedisSettings::from_url(&url.value) {
            Ok(settings) => settings,
            Err(why) => {
                cx.report(&codes::INVALID_VALUE, url.span, format!("`gateway.redis` is {why}"));
                return None;
            }
        },
        (None, None) => {
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
    settings.timeout = millis("timeout").unwrap_or(settings.timeout);
    settings.max_wait = millis("max_wait").unwrap_or(settings.max_wait);
    Some(Arc::new(settings))
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

/// The limits of `config` by period, shortest first; bursts are the limits. `None` after a finding. `path` stands
/// before the fields' names in messages.
pub fn periods(config: &Record, path: &str, algorithm: Algorithm, cx: &mut Cx<'_>) -> Option<Vec<Rule>> {
    let rule = |period: Period| {
        let limit = config.num(period.name())?;
        Some(Rule::new(algorithm, period, limit))
    };
    let rules: Vec<Rule> = Period::KONG.into_iter().filter_map(rule).collect();
    if rules.is_empty() {
        let names = Period::KONG.map(|p| format!("'{path}{}'", p.name())).join(", ");
        let finding = Diagnostic::new(
            &codes::MISSING_ALTERNATIVE,
            config.span,
            format!("at least one of these fields must be non-empty: {names}"),
        );
        cx.diags.push(finding.help("add a limit, such as `minute: 60`"));
        return None;
    }
    for pair in rules.windows(2) {
        let [short, long] = pair else { continue };
        if long.limit < short.limit {
            let finding = Diagnostic::new(
                &codes::CONFLICTING_FIELDS,
                config.span_of(long.period.name()),
                format!(
                    "the limit for {}({:.1}) cannot be lower than the limit for {}({:.1})",
                    long.period.name(),
                    long.limit,
                    short.period.name(),
                    short.limit
                ),
            );
            let also = config.span_of(short.period.name());
            cx.diags.push(
                finding.label("less in a longer period").also(also, "more in a shorter one").help(format!(
                    "raise `{}` or lower `{}`",
                    long.period.name(),
                    short.period.name()
                )),
            );
            return None;
        }
    }
    Some(rules)
}
