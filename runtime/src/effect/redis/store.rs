//! Plain keys and values in a Redis, for what is neither counted nor asked by requests.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use super::Server;
use crate::clock;
use crate::limit::{RedisSettings, StoreError};

/// The connections to one Redis, kept up in the background. Must be made within a `LocalSet`.
pub struct Store {
    server: Server,
    settings: Arc<RedisSettings>,
}

impl Store {
    /// Connects in the background.
    pub fn open(settings: &Arc<RedisSettings>) -> Self {
        Self { server: Server::start(settings), settings: Arc::clone(settings) }
    }

    /// Asks about a key, and waits for the settings' `max_wait` at most.
    ///
    /// # Errors
    /// Redis is away, slow, or refuses.
    pub async fn ask(&self, key: &str, cmd: Cmd) -> Result<Value, StoreError> {
        let deadline = (clock::monotonic() + self.settings.max_wait()).into();
        let answer = match &self.server {
            Server::One(link) => {
                let mut pipeline = Pipeline::with_capacity(1);
                pipeline.add_command(cmd);
                link.ask_alone(&pipeline, deadline).await?
            }
            Server::Cluster(cluster) => cluster.ask(key, |_| cmd.clone(), deadline).await?,
        };
        match answer {
            Value::ServerError(_) => Err(StoreError::Refused),
            value => Ok(value),
        }
    }

    /// Runs a script on keys of one slot, of which there is at least one.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub async fn eval(&self, script: &str, keys: &[&str], args: &[&str]) -> Result<Value, StoreError> {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(script).arg(keys.len());
        cmd.arg(keys).arg(args);
        self.ask(keys.first().copied().unwrap_or_default(), cmd).await
    }
}

/// The text of a value.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
