//! A Redis of the test's own: private directory, free port, gone when dropped.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What is started: `redis-server`, or what `GW_REDIS_SERVER` names, so that the same tests run on Valkey.
pub fn program() -> PathBuf {
    std::env::var_os("GW_REDIS_SERVER").map_or_else(|| "redis-server".into(), PathBuf::from)
}

/// A running (or killed) server.
pub struct RedisServer {
    port: u16,
    dir: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further command-line arguments; `{dir}` in them is the private directory.
    pub fn start_with(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("gw-redis-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let shown = dir.display().to_string();
        let args = args.iter().map(|a| a.replace("{dir}", &shown)).collect();
        let mut server = Self { port: free_port(), dir, args, child: None };
        server.restart();
        server
    }

    /// The plain-text port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The private directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What stands behind a command-line argument that it was started with.
    ///
    /// # Panics
    /// Panics if it was not started with it.
    pub fn argument(&self, name: &str) -> &str {
        let at = self.args.iter().position(|a| a == name).expect("the server has the argument");
        &self.args[at + 1]
    }

    /// `redis://127.0.0.1:PORT/0`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Starts the server again on its port, empty; stops it first if it runs.
    pub fn restart(&mut self) {
        self.kill();
        let spawned = Command::new(program())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(&self.dir)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match spawned {
            Ok(child) => self.child = Some(child),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                panic!("{} not found: apt-get install redis-server", program().display())
            }
            Err(e) => panic!("{} does not start: {e}", program().display()),
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.answers() {
            assert!(Instant::now() < deadline, "redis-server on port {} does not answer", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Any answer will do: one that demands a password answers, too.
    fn answers(&self) -> bool {
        let ping = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            stream.read(&mut [0; 64])
        };
        matches!(ping(), Ok(n) if n > 0)
    }

    /// SIGKILL: connections break, all counters are lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server was not killed");
        let pid = Pid::from_child(child);
        kill_process(pid, signal).expect("the server is a child of this process");
    }

    /// A connection for looking at what is in the server.
    pub fn client(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("the URL is well-formed");
        client.get_connection().expect("the server runs")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
    listener.local_addr().expect("a bound socket has an address").port()
}
