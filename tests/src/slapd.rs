//! A real OpenLDAP server with two users, on free ports of the loopback, killed when dropped.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::gateway::PATIENCE;
use crate::redis::free_port;

/// The password of `uid=alice,ou=people,dc=test`; `bob`'s is the same with a `2` behind it.
pub const PASSWORD: &str = "correct horse";

/// See the module.
pub struct Slapd {
    child: Child,
    folder: Folder,
    /// Clear text and StartTLS; TLS.
    pub port: u16,
    pub tls_port: u16,
}

impl Slapd {
    /// Starts it, with a certificate for `localhost` that `ca.pem` in [`Slapd::folder`] signed.
    ///
    /// # Panics
    /// Panics if there is no `slapd`: `apt-get install slapd`.
    pub fn start() -> Self {
        let folder = Folder::new("slapd");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("the name is valid");
        folder.write("ca.pem", &made.cert.pem());
        folder.write("key.pem", &made.signing_key.serialize_pem());
        std::fs::create_dir(folder.path().join("db")).expect("the folder is writable");
        let (port, tls_port) = (free_port(), free_port());
        let config = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             pidfile {}\nTLSCertificateFile {}\nTLSCertificateKeyFile {}\nTLSCACertificateFile {}\n\
             database mdb\nmaxsize 10485760\nsuffix \"dc=test\"\nrootdn \"cn=admin,dc=test\"\nrootpw admin\n\
             directory {}\n",
            at("pid"),
            at("ca.pem"),
            at("key.pem"),
            at("ca.pem"),
            at("db")
        );
        let config = folder.write("slapd.conf", &config);
        let user = |name: &str, password: &str| {
            format!(
                "dn: uid={name},ou=people,dc=test\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n\
                 userPassword: {password}\n\n"
            )
        };
        let entries = format!(
            "dn: dc=test\nobjectClass: dcObject\nobjectClass: organization\no: test\ndc: test\n\n\
             dn: ou=people,dc=test\nobjectClass: organizationalUnit\nou: people\n\n{}{}",
            user("alice", PASSWORD),
            user("bob", &format!("{PASSWORD}2"))
        );
        let entries = folder.write("entries.ldif", &entries);
        let added = Command::new("/usr/sbin/slapadd").arg("-f").arg(&config).arg("-l").arg(&entries).output();
        let added = added.expect("slapadd starts: apt-get install slapd");
        assert!(added.status.success(), "slapadd: {}", String::from_utf8_lossy(&added.stderr));
        let child = Self::spawn(&config, port, tls_port);
        Self { child, folder, port, tls_port }
    }

    fn spawn(config: &Path, port: u16, tls_port: u16) -> Child {
        let urls = format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}");
        // With a debug level it stays in the foreground.
        let child = Command::new("/usr/sbin/slapd")
            .args(["-d", "0", "-h", &urls, "-f"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("slapd starts: apt-get install slapd");
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", tls_port)).is_err() {
            assert!(Instant::now() < until, "slapd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    /// Where `ca.pem` is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same ports.
    pub fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(&self.folder.path().join("slapd.conf"), self.port, self.tls_port);
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}
