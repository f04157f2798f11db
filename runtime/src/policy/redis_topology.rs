//! How `redis` says that there are several servers: a cluster, or sentinels and their master.

use crate::diag::{Diagnostic, Diags, codes};
use crate::limit::redis::{Address, Seeds, Sentinels, Topology};
use crate::model::schema::Record;

/// What `redis` says of several servers; `None` after a finding.
pub fn read(redis: Option<&Record>, diags: &mut Diags) -> Option<Topology> {
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
        diags.push(finding.also(also, "a cluster").help("remove one of them"));
        return None;
    }
    if !nodes.is_empty() {
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
            diags.push(finding.help(format!("add `{missing}: {example}`")));
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
