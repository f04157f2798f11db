//! Rate limits counted in Redis (7 or newer) or Valkey: one server, one that sentinels replace, or a cluster.
//!
//! One round trip a request: a script decides under all limits at once by the server's own clock, so gateways that share
//! a Redis admit exactly the limit together and need no common clock. Requests of a worker share a connection, and what
//! they ask in one turn of the event loop is one pipeline.

mod backoff;
mod cluster;
mod connect;
pub mod keys;
mod leases;
mod link;
pub mod script;
mod sentinel;
pub mod slots;
pub mod store;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use tokio::time::{Instant, sleep};

use crate::limit::local::{SyncStore, Unsettled};
use crate::limit::redis::{Address, Topology};
use crate::limit::{Key, Outcome, RedisSettings, Request, Rules, StoreError};
use cluster::Cluster;
use connect::Place;
use link::Link;
use script::{Charge, States};

/// The Redis connections of one worker. Cheap to clone; lives on the worker's thread, within its `LocalSet`.
#[derive(Clone, Default)]
pub struct RedisLimiter {
    servers: Rc<RefCell<Servers>>,
}

type Servers = HashMap<Arc<RedisSettings>, Server, ahash::RandomState>;

/// One Redis, however many servers it is.
#[derive(Clone)]
enum Server {
    One(Rc<Link>),
    Cluster(Rc<Cluster>),
}

impl RedisLimiter {
    /// No connection yet: each is made when it is first needed, or by [`RedisLimiter::prepare`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects to the servers that a config names, so that the first request need not wait, and leaves all others.
    pub fn prepare<'a>(&self, named: impl Iterator<Item = &'a Arc<RedisSettings>>) {
        let named: std::collections::HashSet<_, ahash::RandomState> = named.collect();
        self.servers.borrow_mut().retain(|settings, _| named.contains(settings));
        for settings in named {
            self.server(settings);
        }
    }

    /// Decides on a request. Never waits longer than the settings' `max_wait`, and not at all while Redis is known to be
    /// down.
    pub async fn take(&self, request: &Request) -> Result<Outcome, StoreError> {
        if let Some(store) = &request.sync {
            return self.take_synced(request, store).await;
        }
        let Request { redis, rules, key, hits, lease, .. } = request;
        let count_rejected = rules.count_rejected;
        let mut charge = Charge { hits: (*hits).into(), count_rejected, ..Charge::default() };
        let Some(leases) = lease else {
            return Ok(self.run(redis, rules, key, charge).await?.outcome(rules, *hits));
        };
        let asked = crate::clock::monotonic();
        // What another request of the same moment has learnt meanwhile.
        if let Some(outcome) = leases.decide(rules, key, *hits, asked) {
            return Ok(outcome);
        }
        charge.extra = leases.extra(rules, key, asked);
        let answer = self.run(redis, rules, key, charge).await;
        let outcome =
            leases::Asked { rules, key, at: asked, hits: *hits, extra: charge.extra }.note(leases, answer);
        if leases.claim() {
            tokio::task::spawn_local(leases::look_after(self.clone(), Arc::clone(redis), Arc::clone(leases)));
        }
        outcome
    }

    /// Takes back what an admitted request was charged, as another limit refused it. What cannot be given back for want of
    /// a connection stays charged: that admits less, never more.
    pub async fn give_back(&self, request: &Request) {
        match &request.sync {
            Some(store) => store.give_back(&request.rules, &request.key, request.hits, request.now_ms),
            None => {
                let charge = Charge { hits: -i64::from(request.hits), ..Charge::default() };
                let _ = self.run(&request.redis, &request.rules, &request.key, charge).await;
            }
        }
    }

    async fn take_synced(&self, request: &Request, store: &Arc<SyncStore>) -> Result<Outcome, StoreError> {
        let Request { redis, rules, key, hits, now_ms, .. } = request;
        if store.is_stale(key, *now_ms) {
            let states = self.run(redis, rules, key, Charge::default()).await?;
            store.settled(key, rules, &states.after(rules, 0), *now_ms);
        }
        let outcome = store.take(rules, key, *hits, *now_ms);
        if store.claim() {
            let (this, redis, store) = (self.clone(), Arc::clone(redis), Arc::clone(store));
            tokio::task::spawn_local(async move {
                let interval = Duration::from_millis(store.interval_ms);
                sleep(interval).await;
                this.settle(&redis, &store).await;
                while store.goes_on() {
                    sleep(interval).await;
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
            let charge = Charge { hits: (*hits).into(), count_rejected: true, ..Charge::default() };
            match self.run(redis, rules, key, charge).await {
                // Ages are told by this machine's clock, whatever that of Redis says.
                Ok(states) => store.settled(key, rules, &states.after(rules, *hits), crate::clock::unix_ms()),
                Err(_) => store.unsettle(item, crate::clock::unix_ms()),
            }
        });
        futures_util::future::join_all(each).await;
    }

    fn server(&self, settings: &Arc<RedisSettings>) -> Server {
        if let Some(server) = self.servers.borrow().get(settings) {
            return server.clone();
        }
        let server = Server::start(settings);
        self.servers.borrow_mut().insert(Arc::clone(settings), server.clone());
        server
    }

    async fn run(
        &self,
        settings: &Arc<RedisSettings>,
        rules: &Rules,
        key: &Key,
        charge: Charge,
    ) -> Result<States, StoreError> {
        let stem = script::stem(key);
        let call = |by_name| script::call(by_name, rules, &stem, charge);
        let deadline = Instant::now() + settings.max_wait();
        let answer = match self.server(settings) {
            Server::One(link) => ask(&link, call, deadline).await?,
            Server::Cluster(cluster) => cluster.ask(&stem, call, deadline).await?,
        };
        States::read(rules, &answer).ok_or(StoreError::Refused)
    }
}

impl Server {
    fn start(settings: &Arc<RedisSettings>) -> Self {
        let link = |place| Self::One(Link::start(Arc::clone(settings), place));
        match &settings.topology {
            Topology::Single => {
                link(Place::Fixed(Address { host: settings.host.clone(), port: settings.port }))
            }
            Topology::Sentinel(sentinels) => link(Place::Master(sentinels.clone())),
            Topology::Cluster(seeds) => Self::Cluster(Cluster::start(Arc::clone(settings), seeds.clone())),
        }
    }
}

/// Asks a single server. One that forgot its scripts (a restart, SCRIPT FLUSH) gets the text and learns this one again.
async fn ask(link: &Link, call: impl Fn(bool) -> Cmd, deadline: Instant) -> Result<Value, StoreError> {
    match link.ask(call(true), deadline).await? {
        Value::ServerError(e) if e.kind() == Some(ServerErrorKind::NoScript) => {
            let mut again = Pipeline::with_capacity(1);
            again.add_command(call(false));
            link.ask_alone(&again, deadline).await
        }
        answer => Ok(answer),
    }
}
