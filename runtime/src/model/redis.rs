//! The fields that say where Redis is: of `gateway.redis`, and of `redis` in plugins that count there.

use super::schema::{Field, Kind, MILLIS, PORT, Rule, STR};

const HOST: Kind = Kind::Str(Rule::Host);
pub const DATABASE: Kind = Kind::Int { min: 0, max: i64::MAX };

const NODE: &[Field] = &[
    Field::new("ip", HOST, "Name or address of the node.").required(),
    Field::new("port", PORT, "Its port.").default("6379"),
];

const SENTINEL: &[Field] = &[
    Field::new("host", HOST, "Name or address of the sentinel.").required(),
    Field::new("port", PORT, "Its port.").default("26379"),
];

/// What says which server is meant; a plugin that gives none of these uses that of `gateway.redis`.
pub const PLACE: [&str; 4] = ["host", "cluster_nodes", "sentinel_master", "sentinel_nodes"];

/// Fields of a plugin's `redis`.
pub const REDIS: &[Field] = &PLUGIN;

const PLUGIN: [Field; 17] = [
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
    Field::new(
        "ssl_verify",
        Kind::Bool,
        "Whether the server's certificate must be valid: by the system's authorities and those of `gateway.tls.upstream_ca`.",
    )
    .default("false"),
    Field::new("server_name", HOST, "The name to ask for and to verify over TLS, where it is not the host."),
    Field::new(
        "cluster_nodes",
        Kind::List(&Kind::Record(NODE)),
        "Nodes of a Redis Cluster, by which the others are found; goes before `host`.",
    )
    .extension(),
    Field::new(
        "cluster_max_redirections",
        Kind::Int { min: 1, max: 16 },
        "How often a request follows a node of the cluster that sends it to another.",
    )
    .default("5")
    .extension(),
    Field::new("sentinel_master", STR, "The name under which the sentinels know the master.").extension(),
    Field::new(
        "sentinel_nodes",
        Kind::List(&Kind::Record(SENTINEL)),
        "Sentinels, which say where the master is; goes before `host`.",
    )
    .extension(),
    Field::new(
        "sentinel_role",
        Kind::Enum(&["master"]),
        "Counters are written, so that only the master can keep them.",
    )
    .default("\"master\"")
    .extension(),
    Field::new("sentinel_username", STR, "User for the sentinels, where they ask for one.").extension(),
    Field::new("sentinel_password", STR, "Password for the sentinels.").secret().extension(),
];

/// Fields of `gateway.redis`: a URL, or what plugins say. Nobody needs Kong's default here, so certificates are verified.
pub const GATEWAY: &[Field] = &SHARED;

const SHARED: [Field; PLUGIN.len() + 1] = {
    let url = "`redis://[user:password@]host[:port][/database]`, `rediss://` for TLS; instead of the fields that it stands for.";
    let mut all = [Field::new("url", Kind::Str(Rule::Url), url).secret(); PLUGIN.len() + 1];
    let mut i = 0;
    while i < PLUGIN.len() {
        all[i + 1] = PLUGIN[i];
        all[i + 1].extension = false;
        i += 1;
    }
    all[1].doc = "Name or address of the Redis server.";
    all[9].default = Some("true");
    all
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_verifies_unless_told_otherwise() {
        let default =
            |fields: &[Field]| fields.iter().find(|f| f.name == "ssl_verify").and_then(|f| f.default);
        assert_eq!((default(REDIS), default(GATEWAY)), (Some("false"), Some("true")));
        assert_eq!(GATEWAY[1].name, "host");
    }
}
