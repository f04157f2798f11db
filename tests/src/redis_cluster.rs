//! A Redis Cluster and a master watched by sentinels, of the test's own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::redis::{RedisServer, free_port, program};

/// How long servers may take to find each other, or to replace one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes that form a cluster.
pub struct RedisCluster {
    /// The masters of the beginning; each has a third (or so) of the slots, in order.
    pub masters: Vec<RedisServer>,
    /// One for each master, where they were asked for.
    pub replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts so many masters, each with a replica if asked, and waits until the cluster works.
    pub fn start(masters: usize, replicated: bool) -> Self {
        let node = || {
            let bus = free_port().to_string();
            RedisServer::start_with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "1000",
                "--cluster-port",
                &bus,
                "--cluster-replica-validity-factor",
                "0",
                "--repl-diskless-sync-delay",
                "0",
            ])
        };
        let cluster = Self {
            masters: (0..masters).map(|_| node()).collect(),
            replicas: (0..if replicated { masters } else { 0 }).map(|_| node()).collect(),
        };
        let each = 16_384_usize.div_ceil(masters);
        for (i, master) in cluster.masters.iter().enumerate() {
            let (first, last) = (i * each, ((i + 1) * each).min(16_384) - 1);
            run(master, redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(first).arg(last));
        }
        let first = &cluster.masters[0];
        for other in cluster.nodes().skip(1) {
            let bus: u16 = other.argument("--cluster-port").parse().expect("a port");
            run(first, redis::cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(other.port()).arg(bus));
        }
        let all = cluster.nodes().count();
        cluster.wait_until("all know each other", |info| info.contains(&format!("known_nodes:{all}\r")));
        for (replica, master) in cluster.replicas.iter().zip(&cluster.masters) {
            let id: String = redis::cmd("CLUSTER").arg("MYID").query(&mut master.client()).expect("it runs");
            run(replica, redis::cmd("CLUSTER").arg("REPLICATE").arg(id));
        }
        cluster.wait_until("it works", |info| info.contains("cluster_state:ok"));
        for replica in &cluster.replicas {
            wait_for("replicas follow", || role(replica).is_some_and(|r| r.contains("connected")));
        }
        cluster
    }

    /// All nodes, masters first.
    pub fn nodes(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    /// The master that had this slot at the beginning.
    pub fn master_of(&self, slot: u16) -> usize {
        usize::from(slot) / 16_384_usize.div_ceil(self.masters.len())
    }

    /// Begins to move a slot to another master: its keys are still where they were.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) -> Moving<'_> {
        let (from, to) = (&self.masters[from], &self.masters[to]);
        let (from_id, to_id) = (id(from), id(to));
        run(to, redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("IMPORTING").arg(&from_id));
        run(from, redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("MIGRATING").arg(&to_id));
        Moving { slot, from, to, to_id }
    }

    fn wait_until(&self, what: &str, is: impl Fn(&str) -> bool) {
        for node in self.nodes() {
            wait_for(what, || {
                let info: String =
                    redis::cmd("CLUSTER").arg("INFO").query(&mut node.client()).expect("it runs");
                is(&info)
            });
        }
    }
}

/// A slot between two masters.
pub struct Moving<'a> {
    slot: u16,
    from: &'a RedisServer,
    to: &'a RedisServer,
    to_id: String,
}

impl Moving<'_> {
    /// Moves the keys that the slot has now.
    pub fn keys(&self) {
        loop {
            let mut ask = redis::cmd("CLUSTER");
            ask.arg("GETKEYSINSLOT").arg(self.slot).arg(100);
            let keys: Vec<String> = ask.query(&mut self.from.client()).expect("it runs");
            if keys.is_empty() {
                return;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.to.port()).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
            run(self.from, &migrate);
        }
    }

    /// From now on the slot belongs to the other.
    pub fn finish(self) {
        self.keys();
        for node in [self.to, self.from] {
            run(node, redis::cmd("CLUSTER").arg("SETSLOT").arg(self.slot).arg("NODE").arg(&self.to_id));
        }
    }
}

fn id(server: &RedisServer) -> String {
    redis::cmd("CLUSTER").arg("MYID").query(&mut server.client()).expect("it runs")
}

fn run(server: &RedisServer, cmd: &redis::Cmd) {
    cmd.exec(&mut server.client()).unwrap_or_else(|e| panic!("port {}: {e}", server.port()));
}

fn role(server: &RedisServer) -> Option<String> {
    let role: redis::Value = redis::cmd("ROLE").query(&mut server.client()).ok()?;
    Some(format!("{role:?}"))
}

/// Waits until something is so.
///
/// # Panics
/// Panics if it takes too long.
pub fn wait_for(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A master with a replica, and three sentinels that watch them.
pub struct RedisSentinels {
    pub master: RedisServer,
    pub replica: RedisServer,
    /// Ports of the sentinels.
    pub ports: Vec<u16>,
    sentinels: Vec<Child>,
}

impl RedisSentinels {
    /// Starts them and waits until the sentinels know each other and the replica. The master is called `counters`.
    pub fn start() -> Self {
        let delay = ["--repl-diskless-sync-delay", "0"];
        let master = RedisServer::start_with(&delay);
        let port = master.port().to_string();
        let replica = RedisServer::start_with(&[&delay[..], &["--replicaof", "127.0.0.1", &port]].concat());
        let mut all = Self { master, replica, ports: Vec::new(), sentinels: Vec::new() };
        for n in 0..3 {
            let port = free_port();
            let file = all.master.dir().join(format!("sentinel-{n}.conf"));
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor counters 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds counters 500\nsentinel failover-timeout counters 3000\n",
                all.master.dir().display(),
                all.master.port()
            );
            std::fs::write(&file, text).expect("the directory is writable");
            let child = Command::new(program())
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .expect("it starts as a sentinel");
            all.sentinels.push(child);
            all.ports.push(port);
        }
        wait_for("the replica follows", || role(&all.replica).is_some_and(|r| r.contains("connected")));
        for port in &all.ports {
            wait_for("the sentinels know each other", || counts(*port) == Some((2, 1)));
        }
        all
    }

    /// Waits until most sentinels say that the replica is the master.
    pub fn wait_for_failover(&self) {
        let new = self.replica.port();
        wait_for("the replica was promoted", || {
            role(&self.replica).is_some_and(|r| r.contains("master"))
                && self.ports.iter().filter(|p| master_of(**p) == Some(new)).count() >= 2
        });
    }
}

impl Drop for RedisSentinels {
    fn drop(&mut self) {
        for sentinel in &mut self.sentinels {
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}

fn connect(port: u16) -> Option<redis::Connection> {
    redis::Client::open(format!("redis://127.0.0.1:{port}")).ok()?.get_connection().ok()
}

/// Other sentinels and replicas that one knows.
fn counts(port: u16) -> Option<(u32, u32)> {
    let state: std::collections::HashMap<String, String> =
        redis::cmd("SENTINEL").arg("MASTER").arg("counters").query(&mut connect(port)?).ok()?;
    Some((state.get("num-other-sentinels")?.parse().ok()?, state.get("num-slaves")?.parse().ok()?))
}

fn master_of(port: u16) -> Option<u16> {
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg("counters");
    let (_, port): (String, String) = ask.query(&mut connect(port)?).ok()?;
    port.parse().ok()
}
