//! A real ACME server (Let's Encrypt's pebble) with its name server, on free ports of the loopback, killed when dropped.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::redis::free_port;

/// See the module.
pub struct Pebble {
    folder: Folder,
    port: u16,
    management: u16,
    dns: u16,
    names: Child,
    server: Option<Child>,
}

impl Pebble {
    /// Starts it. It checks HTTP-01 at `http` and TLS-ALPN-01 at `tls`, ports of this machine, for whatever name, and
    /// refuses every fifth nonce. `further` goes into its config: `"externalAccountBindingRequired": true`.
    ///
    /// # Panics
    /// Panics if there is no `pebble`: `apt-get install pebble`.
    pub fn start(http: u16, tls: u16, further: &str) -> Self {
        let folder = Folder::new("pebble");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
            .expect("the names are valid");
        let cert = folder.write("cert.pem", &made.cert.pem());
        let key = folder.write("key.pem", &made.signing_key.serialize_pem());
        let (port, management, dns, admin) = (free_port(), free_port(), free_port(), free_port());
        let further = if further.is_empty() { String::new() } else { format!(", {further}") };
        folder.write(
            "config.json",
            &format!(
                r#"{{"pebble": {{"listenAddress": "127.0.0.1:{port}", "managementListenAddress": "127.0.0.1:{management}",
                "certificate": {cert:?}, "privateKey": {key:?}, "httpPort": {http}, "tlsPort": {tls}{further}}}}}"#
            ),
        );
        let at = |port: u16| format!("127.0.0.1:{port}");
        let names = Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .args(["-defaultIPv4", "127.0.0.1", "-dns01", &at(dns), "-management", &at(admin)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("pebble-challtestsrv does not start: {e}: install `pebble`"));
        let mut pebble = Self { folder, port, management, dns, names, server: None };
        pebble.restart();
        pebble
    }

    /// Starts it again, without memory of accounts, orders and its own authority.
    pub fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::create(self.folder.path().join("log")).expect("the folder is writable");
        let server = Command::new("pebble")
            .arg("-config")
            .arg(self.folder.path().join("config.json"))
            .args(["-strict", "-dnsserver", &format!("127.0.0.1:{}", self.dns)])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "20")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("pebble does not start: {e}: install `pebble`"));
        self.server = Some(server);
        let until = Instant::now() + Duration::from_secs(10);
        for port in [self.dns, self.port, self.management] {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(Instant::now() < until, "pebble does not listen: {}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Ends it.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// URL of its directory.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// The authority of its own TLS.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The authority that its certificates lead to, in PEM.
    pub fn root(&self) -> String {
        let output = Command::new("curl")
            .args(["-sS", "--cacert"])
            .arg(self.ca())
            .arg(format!("https://127.0.0.1:{}/roots/0", self.management))
            .output()
            .expect("there is `curl`");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("PEM is ASCII")
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.kill();
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}
