//! A running `gw serve` with files, ports and output of its own, gone when dropped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::binary::gw_binary;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An answer: status, head and body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// The running gateway.
pub struct Serving {
    pub dir: PathBuf,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
}

impl Serving {
    /// Starts one with this config, and waits until it serves.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[], &[], &[])
    }

    /// The same, with further files in its directory, further arguments (`{dir}` is filled in), and a command in front
    /// such as `prlimit --nofile=64`.
    pub fn start_with(config: &str, files: &[(&str, &str)], args: &[&str], before: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("gw-serving-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        for (name, text) in files.iter().chain([&("gw.yaml", config)]) {
            std::fs::write(dir.join(name), text).expect("the directory was just made");
        }
        let fill = |a: &&str| a.replace("{dir}", &dir.display().to_string());
        let mut command = match before {
            [] => Command::new(gw_binary()),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(gw_binary());
                command
            }
        };
        let log = std::fs::File::create(dir.join("log")).expect("the directory was just made");
        let child = command
            .arg("serve")
            .arg(dir.join("gw.yaml"))
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(if args.contains(&"--workers") { &[][..] } else { &["--workers", "2"] })
            .args(args.iter().map(fill))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("gw does not start: {e}"));
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut serving = Self { dir, http: unknown, https: unknown, admin: unknown, child };
        serving.until("it listens", |s| {
            assert!(!s.has_ended(), "gw has ended: {}", s.log());
            s.log().contains("listening on http://")
        });
        serving.until("it says where", |s| {
            let log = s.log();
            let said = |what: &str| log.lines().find_map(|l| l.strip_prefix(what)?.parse().ok());
            s.http = said("listening on http://").unwrap_or(unknown);
            s.https = said("listening on https://").unwrap_or(unknown);
            s.admin = said("admin on http://").unwrap_or(unknown);
            s.http != unknown && s.admin != unknown && (s.https != unknown || !args.contains(&"--listen-tls"))
        });
        serving
    }

    /// Waits until something is so.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < end, "never: {what}; the log: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Puts a file in place at once, as a careful editor does.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.dir.join(format!("{name}.new"));
        std::fs::write(&new, text).expect("the directory exists");
        std::fs::rename(&new, self.dir.join(name)).expect("both are in one directory");
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the gateway is a child of this process");
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Changes the config, has it read again, and waits for what comes of it: true if it is in force.
    pub fn reload(&mut self, config: &str) -> bool {
        let before = self.config_status();
        self.write("gw.yaml", config);
        self.signal(Signal::HUP);
        let mut fine = false;
        self.until("the config was read again", |s| {
            let now = s.config_status();
            fine = now["generation"] != before["generation"];
            fine || now["reloads"] != before["reloads"]
        });
        fine
    }

    /// `GET /config` of the admin listener.
    pub fn config_status(&self) -> Value {
        let answer = get(self.admin, "/config");
        serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"))
    }

    /// One metric without labels, or with them if they are part of the name.
    pub fn metric(&self, name: &str) -> f64 {
        let all = get(self.admin, "/metrics").body;
        let value = all.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no metric `{name}`: {all}"))
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits for its end: how, and after how long.
    pub fn ended(&mut self) -> (ExitStatus, Duration) {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child of this process") {
                return (status, since.elapsed());
            }
            assert!(since.elapsed() < PATIENCE, "gw does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// One `GET` on a connection of its own.
pub fn get(to: SocketAddr, target: &str) -> Answer {
    send(to, &format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
        .unwrap_or_else(|e| panic!("GET {target} at {to}: {e}"))
}

/// One `POST` on a connection of its own.
pub fn post(to: SocketAddr, target: &str, fields: &str, body: &str) -> Answer {
    let n = body.len();
    send(
        to,
        &format!("POST {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}Content-Length: {n}\r\n\r\n{body}"),
    )
    .unwrap_or_else(|e| panic!("POST {target} at {to}: {e}"))
}

fn send(to: SocketAddr, request: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    receive(&mut stream)
}

/// Sends a request on a connection that stays open, and reads the answer.
pub fn ask(stream: &mut TcpStream, target: &str) -> std::io::Result<Answer> {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())?;
    receive(stream)
}

/// Reads one answer, whose length must be stated.
pub fn receive(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(answer) = whole(&bytes) {
            return Ok(answer);
        }
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

fn whole(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.get(9..12)?.parse().ok()?;
    let length = head.lines().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let done = body.len() >= length.unwrap_or(0);
    done.then(|| Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// A file's text.
pub fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
