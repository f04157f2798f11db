//! Rate limits counted in Redis (7 or newer) or Valkey.
//!
//! One round trip a request: a script decides under all limits at once by the server's own clock, so gateways that share
//! a Redis admit exactly the limit together and need no common clock. Requests of a worker share a connection, and what
//! they ask in one turn of the event loop is written in one go.

mod connect;
mod link;
mod script;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::time::{Instant, timeout_at};

use crate::limit::local::{SyncStore, Unsettled};
use crate::limit::{Key, Outcome, RedisSettings, Request, Rules, StoreError};
use link::Link;
use script::States;

/// The Redis connections of one worker. Cheap to clone; lives on the worker's thread, within its `LocalSet`.
#[derive(Clone, Default)]
pub struct RedisLimiter {
    links: Rc<RefCell<Links>>,
}

type Links = HashMap<Arc<RedisSettings>, Rc<Link>, ahash::RandomState>;

impl RedisLimiter {
    /// No connection yet: each is made when it is first needed, or by [`RedisLimiter::warm`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts to connect, so that the first request need not wait.
    pub fn warm(&self, settings: &Arc<RedisSettings>) {
        self.link(settings);
    }

    /// Closes the connections that a new config no longer names.
    pub fn retain(&self, used: impl Fn(&RedisSettings) -> bool) {
        self.links.borrow_mut().retain(|settings, _| used(settings));
    }

    /// Decides on a request. Never waits longer than the settings' `max_wait`, and not at all while Redis is known to be
    /// down.
    pub async fn take(&self, request: &Request) -> Result<Outcome, StoreError> {
        match &request.sync {
            None => {
                let counts = request.rules.count_rejected;
                let states =
                    self.run(&request.redis, &request.rules, &request.key, request.hits, counts).await?;
                Ok(states.outcome(&request.rules, request.hits))
            }
            Some(store) => self.take_synced(request, store).await,
        }
    }

    async fn take_synced(&self, request: &Request, store: &Arc<SyncStore>) -> Result<Outcome, StoreError> {
        let Request { redis, rules, key, hits, now_ms, .. } = request;
        if store.is_stale(key, *now_ms) {
            let states = self.run(redis, rules, key, 0, false).await?;
            store.settled(key, rules, &states.after(0), *now_ms);
        }
        let outcome = store.take(rules, key, *hits, *now_ms);
        if store.claim() {
            let (this, redis, store) = (self.clone(), Arc::clone(redis), Arc::clone(store));
            tokio::task::spawn_local(async move {
                let interval = Duration::from_millis(store.interval_ms);
                tokio::time::sleep(interval).await;
                this.settle(&redis, &store).await;
                while store.goes_on() {
                    tokio::time::sleep(interval).await;
                    this.settle(&redis, &store).await;
                }
            });
        }
        Ok(outcome)
    }

    /// Sends what was counted here; all of it in one go, as the connection is shared.
    async fn settle(&self, redis: &Arc<RedisSettings>, store: &Arc<SyncStore>) {
        let items = store.unsettled(crate::clock::unix_ms());
        let each = items.into_iter().map(|item| async move {
            let Unsettled { key, rules, hits } = &item;
            match self.run(redis, rules, key, *hits, true).await {
                // Ages are told by this machine's clock, whatever that of Redis says.
                Ok(states) => store.settled(key, rules, &states.after(*hits), crate::clock::unix_ms()),
                Err(_) => store.unsettle(item, crate::clock::unix_ms()),
            }
        });
        futures_util::future::join_all(each).await;
    }

    fn link(&self, settings: &Arc<RedisSettings>) -> Rc<Link> {
        if let Some(link) = self.links.borrow().get(settings) {
            return Rc::clone(link);
        }
        let link = Link::start(Arc::clone(settings));
        self.links.borrow_mut().insert(Arc::clone(settings), Rc::clone(&link));
        link
    }

    async fn run(
        &self,
        settings: &Arc<RedisSettings>,
        rules: &Rules,
        key: &Key,
        hits: u32,
        count_rejected: bool,
    ) -> Result<States, StoreError> {
        let link = self.link(settings);
        let deadline = Instant::now() + link.max_wait();
        let mut connection = link.connection(deadline).await?;
        let asked = async {
            let by_name = script::call(true, rules, key, hits, count_rejected);
            match answer(connection.send_packed_command(&by_name).await) {
                // The server forgot its scripts (a restart, SCRIPT FLUSH); with its text it learns this one again.
                Err(e) if e.code() == Some("NOSCRIPT") => {
                    let by_text = script::call(false, rules, key, hits, count_rejected);
                    answer(connection.send_packed_command(&by_text).await)
                }
                other => other,
            }
        };
        let result = match timeout_at(deadline, asked).await {
            Err(_) => Err(StoreError::Timeout),
            Ok(Err(e)) if e.is_io_error() || e.is_unrecoverable_error() => Err(StoreError::Broken),
            Ok(Err(_)) => Err(StoreError::Refused),
            Ok(Ok(value)) => States::read(rules, &value).ok_or(StoreError::Refused),
        };
        match &result {
            Ok(_) => link.succeeded(),
            Err(error) => link.failed(*error),
        }
        result
    }
}

/// Errors that the server answers with are values to the client library.
fn answer(reply: Result<Value, RedisError>) -> Result<Value, RedisError> {
    reply?.extract_error()
}
