//! Asks sentinels where the master is.

use std::io;
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::time::timeout;

use super::backoff::below;
use super::connect::{Login, dial, drive};
use crate::limit::RedisSettings;
use crate::limit::redis::{Address, Sentinels};

/// How long one sentinel may take, so that a dead one does not use up the time for the others.
const PATIENCE: Duration = Duration::from_millis(500);

/// The master's address as the first sentinel that knows says it. Begins with any of them: one that is cut off from the
/// others may name a master that is none any more.
///
/// # Errors
/// No sentinel answers, or none knows a master of that name.
pub async fn find_master(settings: &RedisSettings, sentinels: &Sentinels) -> Result<Address, RedisError> {
    let mut last = io::Error::other("no sentinels").into();
    let first = below(sentinels.nodes.len());
    let (before, from) = sentinels.nodes.split_at(first);
    for node in from.iter().chain(before) {
        match timeout(PATIENCE, ask(settings, sentinels, node)).await {
            Ok(Ok(master)) => return Ok(master),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut).into(),
        }
    }
    Err(last)
}

async fn ask(settings: &RedisSettings, sentinels: &Sentinels, node: &Address) -> Result<Address, RedisError> {
    let login = Login {
        username: sentinels.username.as_deref(),
        password: sentinels.password.as_deref(),
        database: 0,
    };
    let (mut connection, mut driver) = dial(settings.tls.as_ref(), node, &login).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(&sentinels.master);
    let answer = drive(&mut driver, connection.send_packed_command(&question)).await?.extract_error()?;
    read(&answer).ok_or_else(|| io::Error::other("the sentinel knows no master of that name").into())
}

fn read(answer: &Value) -> Option<Address> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else { return None };
    Some(Address {
        host: String::from_utf8(host.clone()).ok()?,
        port: std::str::from_utf8(port).ok()?.parse().ok()?,
    })
}
