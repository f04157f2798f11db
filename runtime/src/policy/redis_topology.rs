//! How a plugin's `redis` says that there are several servers: a cluster, or sentinels and their master.

use super::Cx;
use crate::diag::{Diagnostic, codes};
use crate::limit::redis::{Address, Seeds, Sentinels, Topology};
use crate::model::schema::{Field, Kind, PORT, Record, Rule as Text, STR};

const HOST: Kind = Kind::Str(Text::Host);

const NODE: &[Field] = &[
    Field::new("ip", HOST, "Name or address of the node.").required(),
    Field::new("port", PORT, "Its port.").default("6379"),
];

const SENTINEL: &[Field] = &[
    Field::new("host", HOST, "Name or address of the sentinel.").required(),
    Field::new("port", PORT, "Its port.").default("26379"),
];

pub const CLUSTER_NODES: Field = Field::new(
    "cluster_nodes",
    Kind::List(&Kind::Record(NODE)),
    "Nodes of a Redis Cluster, by which the others are found; goes before `host`.",
)
.extension();

pub const CLUSTER_REDIRECTIONS: Field = Field::new(
    "cluster_max_redirections",
    Kind::Int { min: 1, max: 16 },
    "How often a request follows a node of the cluster that sends it to another.",
)
.default("5")
.extension();

pub const SENTINEL_MASTER: Field =
    Field::new("sentinel_master", STR, "The name under which the sentinels know the master.").extension();

pub const SENTINEL_NODES: Field = Field::new(
    "sentinel_nodes",
    Kind::List(&Kind::Record(SENTINEL)),
    "Sentinels, which say where the master is; goes before `host`.",
)
.extension();

pub const SENTINEL_ROLE: Field = Field::new(
    "sentinel_role",
    Kind::Enum(&["master"]),
    "Counters are written, so that only the master can keep them.",
)
.default("\"master\"")
.extension();

pub const SENTINEL_USERNAME: Field =
    Field::new("sentinel_username", STR, "User for the sentinels, where they ask for one.").extension();

pub const SENTINEL_PASSWORD: Field =
    Field::new("sentinel_password", STR, "Password for the sentinels.").secret().extension();

/// What `redis` says of several servers; `None` after a finding.
pub fn read(redis: Option<&Record>, cx: &mut Cx<'_>) -> Option<Topology> {
    let Some(redis) = redis else { return Some(Topology::Single) };
    let nodes = addresses(redis, "cluster_nodes", "ip");
    let sentinels = addresses(redis, "sentinel_nodes", "host");
    let text = |name: &str| redis.str(name).filter(|s| !s.is_empty()).map(str::to_owned);
    if !nodes.is_empty() && !sentinels.is_empty() {
        let finding = Diagnostic::new(
            &codes::CONFLICTING_FIELDS,
            redis.span_of("sentinel_nodes"),
            "`cluster_nodes` and `sentinel_nodes` are both given, but a cluster has no sentinels",
        );
        let also = redis.span_of("cluster_nodes");
        cx.diags.push(finding.also(also, "a cluster").help("remove one of them"));
        return None;
    }
    if !nodes.is_empty() {
        if redis.int("database").unwrap_or(0) != 0 {
            let finding = Diagnostic::new(
                &codes::CONFLICTING_FIELDS,
                redis.span_of("database"),
                "`database` is not 0, but a Redis Cluster has no other",
            );
            cx.diags.push(finding.help("remove `database`"));
            return None;
        }
        let most = redis.int("cluster_max_redirections").and_then(|n| u32::try_from(n).ok());
        return Some(Topology::Cluster(Seeds { nodes, max_redirections: most.unwrap_or(5) }));
    }
    match (text("sentinel_master"), sentinels.is_empty()) {
        (None, true) => Some(Topology::Single),
        (Some(master), false) => Some(Topology::Sentinel(Sentinels {
            master,
            nodes: sentinels,
            username: text("sentinel_username"),
            password: text("sentinel_password"),
        })),
        (master, _) => {
            let (given, missing, example) = match master {
                Some(_) => ("sentinel_master", "sentinel_nodes", "[{ host: sentinel.internal }]"),
                None => ("sentinel_nodes", "sentinel_master", "mymaster"),
            };
            let finding = Diagnostic::new(
                &codes::MISSING_ALTERNATIVE,
                redis.span_of(given),
                format!("`redis.{missing}`: required field missing, as `{given}` is given"),
            );
            cx.diags.push(finding.help(format!("add `{missing}: {example}`")));
            None
        }
    }
}

fn addresses(redis: &Record, list: &str, host: &str) -> Vec<Address> {
    let address = |node: &Record| {
        let port = node.int("port").and_then(|n| u16::try_from(n).ok())?;
        Some(Address { host: node.str(host)?.trim_matches(['[', ']']).to_owned(), port })
    };
    redis.records(list).filter_map(address).collect()
}
