//! A running `gw serve`, on free ports, killed when dropped.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::binary::gw;

/// How long anything may take on a busy machine before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway and what it said on standard error.
pub struct Gateway {
    child: Child,
    addr: SocketAddr,
    tls: Option<SocketAddr>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Serves `config` on a free port (and on what `args` add), and returns once it listens.
    pub fn start(config: &Path, args: &[&str]) -> Self {
        Self::start_in(&[], config, args)
    }

    /// The same with variables in its environment, for configs that take secrets from there.
    pub fn start_in(environment: &[(&str, &str)], config: &Path, args: &[&str]) -> Self {
        let mut child = gw()
            .arg("serve")
            .arg(config)
            .args(["--listen", "127.0.0.1:0"])
            .args(if args.contains(&"--workers") { &[][..] } else { &["--workers", "2"] })
            .args(args)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gw starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Self { child, addr: unknown, tls: None, said };
        gateway.addr = gateway.listens_on("http");
        if args.contains(&"--listen-tls") {
            gateway.tls = Some(gateway.listens_on("https"));
        }
        gateway
    }

    fn listens_on(&mut self, scheme: &str) -> SocketAddr {
        let line = self.hears(&format!("listening on {scheme}://"));
        let addr = line.rsplit('/').next().and_then(|a| a.parse().ok());
        addr.unwrap_or_else(|| panic!("no address in `{line}`"))
    }

    /// Where it listens without TLS.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens for TLS.
    ///
    /// # Panics
    /// Panics if it was not started with `--listen-tls`.
    pub fn tls_addr(&self) -> SocketAddr {
        self.tls.expect("started with --listen-tls")
    }

    /// All lines of standard error so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line with `part` in it on standard error.
    pub fn hears(&mut self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            // Asked before looking, so that the last words of a gateway that ended are not missed.
            let ended = self.child.try_wait().expect("a child can be waited for");
            let said = self.said();
            if let Some(line) = said.iter().find(|l| l.contains(part)) {
                return line.clone();
            }
            let late = Instant::now() > until;
            assert!(!late && ended.is_none(), "no `{part}` from gw ({ended:?}): {said:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGHUP: the config is read again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGTERM: what is in flight is finished.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("gw is a child of this process");
    }

    /// Waits until it has ended, and returns its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < until, "gw does not end: {:#?}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
