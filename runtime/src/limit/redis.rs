//! Where a Redis is and how to speak to it. Equal settings share a connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The settings of one Redis.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedisSettings {
    /// Name or address, without brackets. Of a cluster and of sentinels, the first of their nodes.
    pub host: String,
    pub port: u16,
    pub topology: Topology,
    pub username: Option<String>,
    pub password: Option<String>,
    pub database: i64,
    /// Bounds connecting, with the handshake.
    pub timeout: Duration,
    /// No request waits longer.
    pub max_wait: Duration,
    pub tls: Option<RedisTls>,
}

/// How many servers there are, and which of them to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Topology {
    /// One server, at `host` and `port`.
    #[default]
    Single,
    /// A Redis Cluster.
    Cluster(Seeds),
    /// A master that sentinels watch and replace.
    Sentinel(Sentinels),
}

/// Nodes by which a cluster is found; the cluster itself says which others there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seeds {
    pub nodes: Vec<Address>,
    /// How often a request follows a node that sends it to another.
    pub max_redirections: u32,
}

/// Sentinels and what they watch.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Sentinels {
    /// The name under which they know the master.
    pub master: String,
    pub nodes: Vec<Address>,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// Without the password.
impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "master `{}` by {:?}", self.master, self.nodes)
    }
}

/// Name or address, without brackets, and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// TLS to Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RedisTls {
    /// Whether the server's certificate must be valid for its name. Kong's default is no.
    pub verify: bool,
    /// The name to ask for and to verify, where it is not the host.
    pub server_name: Option<String>,
    /// PEM of authorities beside the system's.
    pub authorities: Option<Arc<str>>,
}

/// What a request waits for Redis at most, unless the config says otherwise.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_millis(25);

impl RedisSettings {
    /// How long a request may wait.
    pub fn max_wait(&self) -> Duration {
        self.max_wait.min(self.timeout)
    }

    /// Reads `redis://[user:password@]host[:port][/database]`; `rediss` is TLS, verified unless `#insecure`.
    pub fn from_url(url: &str) -> Result<Self, String> {
        use redis::IntoConnectionInfo as _;
        // The error of the library may quote the URL, and with it the password.
        let info = url.into_connection_info().map_err(|_| {
            "not a Redis URL; write `redis://user:password@host:6379/0`, or `rediss://` for TLS".to_owned()
        })?;
        let (host, port, tls) = match info.addr() {
            redis::ConnectionAddr::Tcp(host, port) => (host, *port, None),
            redis::ConnectionAddr::TcpTls { host, port, insecure, .. } => {
                (host, *port, Some(RedisTls { verify: !insecure, ..RedisTls::default() }))
            }
            _ => {
                return Err("Redis over a Unix socket is not supported; write `redis://host:6379`".to_owned());
            }
        };
        let login = info.redis_settings();
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            topology: Topology::Single,
            username: login.username().map(str::to_owned),
            password: login.password().map(str::to_owned),
            database: login.db(),
            timeout: Duration::from_secs(2),
            max_wait: DEFAULT_MAX_WAIT,
            tls,
        })
    }
}

/// Without the password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `redis://host:port/database`, without login; `redis-cluster` and `redis-sentinel` where there are several servers.
impl fmt::Display for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.topology {
            Topology::Single => "",
            Topology::Cluster(_) => "-cluster",
            Topology::Sentinel(_) => "-sentinel",
        };
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        write!(f, "{scheme}{kind}://{}:{}/{}", self.host, self.port, self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let s = RedisSettings::from_url("rediss://u:p%40@cache.test:6390/3").unwrap();
        assert_eq!((s.host.as_str(), s.port, s.database), ("cache.test", 6390, 3));
        assert_eq!((s.username.as_deref(), s.password.as_deref()), (Some("u"), Some("p@")));
        assert_eq!(s.tls, Some(RedisTls { verify: true, ..RedisTls::default() }));
        let plain = RedisSettings::from_url("redis://127.0.0.1").unwrap();
        assert_eq!((plain.port, plain.database, plain.tls), (6379, 0, None));
        assert_eq!(RedisSettings::from_url("redis://[::1]:7000").unwrap().host, "::1");
    }

    #[test]
    fn a_bad_url_is_refused_without_quoting_it() {
        for url in ["", "http://u:hunter2@x", "redis://u:hunter2@:x", "redis+unix:///tmp/hunter2"] {
            let error = RedisSettings::from_url(url).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let s = RedisSettings::from_url("redis://user:hunter2@h/0").unwrap();
        assert_eq!(format!("{s:?} {s}"), "redis://h:6379/0 redis://h:6379/0");
    }
}
