//! A Redis Cluster as one worker knows it: a link to each master, and which of them has which slot.
//!
//! The map is read in the background: at the start, every minute, and whenever an answer or an outage shows that it is out
//! of date. Meanwhile redirections are followed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::backoff::{Backoff, below};
use super::connect::{Login, Place, dial, drive};
use super::link::Link;
use super::slots::{self, Range};
use crate::limit::redis::{Address, Seeds};
use crate::limit::{RedisSettings, StoreError};

/// How long one node may take to show its map.
const PATIENCE: Duration = Duration::from_millis(500);

/// How old a map may become.
const REFRESH: Duration = Duration::from_secs(60);

/// How many nodes are kept, whatever redirections say.
const NODES: usize = 1000;

/// See the module.
pub struct Cluster {
    shared: Rc<Shared>,
}

struct Shared {
    settings: Arc<RedisSettings>,
    seeds: Seeds,
    map: RefCell<Map>,
    /// The map is out of date, or the cluster is no longer held.
    outdated: Notify,
    /// The map was read, or could not be.
    read: Notify,
    closed: Cell<bool>,
}

/// Links by where they lead, and by slot.
#[derive(Default)]
struct Map {
    nodes: HashMap<Address, Rc<Node>, ahash::RandomState>,
    /// Empty until the first attempt to read the map.
    slots: Vec<Option<Rc<Node>>>,
}

struct Node {
    address: Address,
    link: Rc<Link>,
}

impl Cluster {
    /// A cluster whose nodes are found in the background. Must be called within a `LocalSet`.
    pub fn start(settings: Arc<RedisSettings>, seeds: Seeds) -> Rc<Self> {
        let shared = Rc::new(Shared {
            settings,
            seeds,
            map: RefCell::default(),
            outdated: Notify::new(),
            read: Notify::new(),
            closed: Cell::new(false),
        });
        tokio::task::spawn_local(keep_up(Rc::clone(&shared)));
        Rc::new(Self { shared })
    }

    /// Asks whoever has the key. `call` makes the command: with the script's name, or with its text.
    pub async fn ask(
        &self,
        key: &str,
        call: impl Fn(bool) -> Cmd,
        deadline: Instant,
    ) -> Result<Value, StoreError> {
        let shared = &self.shared;
        let slot = slots::slot_of(key);
        let mut node = shared.node_of(slot, deadline).await?;
        let mut answer = node.link.ask(call(true), deadline).await;
        for _ in 0..shared.seeds.max_redirections {
            let error = match &answer {
                Ok(Value::ServerError(error)) => error,
                Ok(_) => return answer,
                Err(_) => break,
            };
            let mut again = Pipeline::new();
            match error.kind() {
                Some(ServerErrorKind::NoScript) => {}
                Some(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                    let target = error.details().and_then(|d| slots::read_redirection(d, &node.address));
                    node = shared.redirected(target.ok_or(StoreError::Refused)?)?;
                    if kind == ServerErrorKind::Ask {
                        again.cmd("ASKING");
                    } else {
                        shared.assign(slot, &node);
                        shared.outdated.notify_one();
                    }
                }
                _ => break,
            }
            // The text, in case that the other node does not know the script.
            again.add_command(call(false));
            answer = node.link.ask_alone(&again, deadline).await;
        }
        if matches!(&answer, Err(_) | Ok(Value::ServerError(_))) {
            shared.outdated.notify_one();
        }
        answer
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shared.closed.set(true);
        self.shared.outdated.notify_one();
    }
}

impl Shared {
    /// Who has the slot; waits for the first map.
    async fn node_of(&self, slot: u16, deadline: Instant) -> Result<Rc<Node>, StoreError> {
        loop {
            let read = self.read.notified();
            {
                let map = self.map.borrow();
                if let Some(node) = map.slots.get(usize::from(slot)) {
                    return match node {
                        Some(node) => Ok(Rc::clone(node)),
                        None => Err(StoreError::Down),
                    };
                }
            }
            timeout_at(deadline, read).await.map_err(|_| StoreError::Timeout)?;
        }
    }

    fn redirected(&self, to: Address) -> Result<Rc<Node>, StoreError> {
        let mut map = self.map.borrow_mut();
        if map.nodes.len() >= NODES && !map.nodes.contains_key(&to) {
            return Err(StoreError::Refused);
        }
        Ok(self.node(&mut map, to))
    }

    fn node(&self, map: &mut Map, address: Address) -> Rc<Node> {
        let new = || {
            let link = Link::start(Arc::clone(&self.settings), Place::Fixed(address.clone()));
            Rc::new(Node { address: address.clone(), link })
        };
        Rc::clone(map.nodes.entry(address.clone()).or_insert_with(new))
    }

    fn assign(&self, slot: u16, node: &Rc<Node>) {
        if let Some(owner) = self.map.borrow_mut().slots.get_mut(usize::from(slot)) {
            *owner = Some(Rc::clone(node));
        }
    }

    /// Takes over what a node said, or that none said anything.
    fn install(&self, ranges: Vec<Range>) {
        let mut map = self.map.borrow_mut();
        if map.slots.is_empty() {
            map.slots = vec![None; slots::COUNT];
        }
        if !ranges.is_empty() {
            let mut owners = vec![None; slots::COUNT];
            for Range { first, last, master } in ranges {
                let node = self.node(&mut map, master);
                owners[usize::from(first)..=usize::from(last)].fill(Some(node));
            }
            map.slots = owners;
            // Those that lead nowhere any more are held by nobody but the table of nodes.
            map.nodes.retain(|_, node| Rc::strong_count(node) > 1);
        }
        drop(map);
        self.read.notify_waiters();
    }

    /// Asks one node after the other, beginning with any, until one shows a map of a cluster that works.
    async fn discover(&self) -> Vec<Range> {
        let mut candidates: Vec<Address> = self.map.borrow().nodes.keys().cloned().collect();
        let known = candidates.len();
        candidates.rotate_left(below(known));
        candidates
            .extend(self.seeds.nodes.iter().filter(|s| !self.map.borrow().nodes.contains_key(s)).cloned());
        let mut second_best = Vec::new();
        for candidate in candidates {
            match timeout(PATIENCE, self.show(&candidate)).await {
                Ok(Ok((true, ranges))) if !ranges.is_empty() => return ranges,
                Ok(Ok((_, ranges))) if second_best.is_empty() => second_best = ranges,
                _ => {}
            }
        }
        second_best
    }

    /// What a node knows, and whether it says that the cluster works: one that is cut off says that it does not.
    async fn show(&self, at: &Address) -> Result<(bool, Vec<Range>), RedisError> {
        let settings = &self.settings;
        let login = Login {
            username: settings.username.as_deref(),
            password: settings.password.as_deref(),
            database: 0,
        };
        let (mut connection, mut driver) = dial(settings.tls.as_ref(), at, &login).await?;
        let mut questions = Pipeline::new();
        questions.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
        let answers = drive(&mut driver, connection.send_packed_commands(&questions, 0, 2)).await?;
        let [info, map] = answers.as_slice() else { return Ok((false, Vec::new())) };
        let works = match info {
            Value::BulkString(text) => String::from_utf8_lossy(text).contains("cluster_state:ok"),
            Value::VerbatimString { text, .. } | Value::SimpleString(text) => {
                text.contains("cluster_state:ok")
            }
            _ => false,
        };
        Ok((works, slots::read(map, at)))
    }
}

/// Keeps the map up to date; ends with the cluster.
async fn keep_up(shared: Rc<Shared>) {
    let backoff = Backoff::new();
    while !shared.closed.get() {
        let ranges = shared.discover().await;
        if !ranges.is_empty() {
            backoff.up(Instant::now());
        }
        shared.install(ranges);
        let known = !shared.map.borrow().nodes.is_empty();
        if known {
            let _ = timeout(REFRESH, shared.outdated.notified()).await;
        }
        if !shared.closed.get() {
            backoff.down(Instant::now());
            backoff.wait().await;
        }
    }
}
