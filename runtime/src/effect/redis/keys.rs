//! Finds the counters of a scope, whoever they belong to. For tools: it walks through all keys of a server.

use std::io;

use redis::{RedisError, Value};

use super::connect::{Login, dial, drive};
use super::{sentinel, slots};
use crate::limit::redis::{Address, Topology};
use crate::limit::{Key, RedisSettings};

/// How many keys the server looks at in one step.
const STEP: usize = 1000;

/// Keys whose text begins with `prefix`, at most `most` of them, as they are found.
///
/// # Errors
/// The server, or one of a cluster's, cannot be asked, or the user may not `SCAN`.
pub async fn under(settings: &RedisSettings, prefix: &str, most: usize) -> Result<Vec<Key>, RedisError> {
    let first = match &settings.topology {
        Topology::Single => Address { host: settings.host.clone(), port: settings.port },
        Topology::Sentinel(sentinels) => sentinel::find_master(settings, sentinels).await?,
        Topology::Cluster(seeds) => return in_cluster(settings, &seeds.nodes, prefix, most).await,
    };
    on(settings, &first, prefix, most).await
}

async fn in_cluster(
    settings: &RedisSettings,
    seeds: &[Address],
    prefix: &str,
    most: usize,
) -> Result<Vec<Key>, RedisError> {
    let mut last = io::Error::other("the cluster has no nodes").into();
    for seed in seeds {
        match masters(settings, seed).await {
            Ok(masters) if !masters.is_empty() => {
                let mut all = Vec::new();
                for master in masters {
                    all.extend(on(settings, &master, prefix, most.saturating_sub(all.len())).await?);
                }
                return Ok(all);
            }
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn masters(settings: &RedisSettings, seed: &Address) -> Result<Vec<Address>, RedisError> {
    let (mut connection, mut driver) = dial(settings.tls.as_ref(), seed, &login(settings)).await?;
    let mut ask = redis::cmd("CLUSTER");
    ask.arg("SLOTS");
    let answer = drive(&mut driver, connection.send_packed_command(&ask)).await?.extract_error()?;
    let mut masters: Vec<Address> = Vec::new();
    for range in slots::read(&answer, seed) {
        if !masters.contains(&range.master) {
            masters.push(range.master);
        }
    }
    Ok(masters)
}

fn login(settings: &RedisSettings) -> Login<'_> {
    Login {
        username: settings.username.as_deref(),
        password: settings.password.as_deref(),
        database: settings.database,
    }
}

async fn on(
    settings: &RedisSettings,
    server: &Address,
    prefix: &str,
    most: usize,
) -> Result<Vec<Key>, RedisError> {
    let (mut connection, mut driver) = dial(settings.tls.as_ref(), server, &login(settings)).await?;
    let pattern = format!("ratelimit:{{{}*", literal(prefix));
    let mut found = Vec::new();
    let mut cursor = b"0".to_vec();
    while found.len() < most {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
        let answer = drive(&mut driver, connection.send_packed_command(&scan)).await?.extract_error()?;
        let Value::Array(parts) = answer else { break };
        let [Value::BulkString(next), Value::Array(names)] = parts.as_slice() else { break };
        found.extend(names.iter().filter_map(key));
        cursor.clone_from(next);
        if cursor == b"0" {
            break;
        }
    }
    found.truncate(most);
    Ok(found)
}

/// The key of a counter's name, `ratelimit:{KEY}`.
fn key(name: &Value) -> Option<Key> {
    let Value::BulkString(name) = name else { return None };
    let text = std::str::from_utf8(name).ok()?.strip_prefix("ratelimit:{")?.strip_suffix('}')?;
    Some(Key::from_text(text))
}

/// A text as a pattern that matches nothing else.
fn literal(text: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '^' | '\\');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}
