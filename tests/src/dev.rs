//! A running `gw serve --dev`, and the shell into which its lines are pasted.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::binary::{gw, gw_binary, repository};
use crate::folder::Folder;

/// Listeners on free ports.
pub const FREE: &[&str] = &["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"];

/// A running `gw serve --dev`.
pub struct Dev {
    /// The process, for signals.
    pub child: Child,
    /// The lines after the start: one a request.
    pub stdout: BufReader<ChildStdout>,
    /// What it showed at the start, line by line.
    pub shown: Vec<String>,
    _folder: Folder,
}

impl Dev {
    /// Serves `config`, and returns once all is shown.
    pub fn start(config: &str, args: &[&str]) -> Self {
        Self::run(&[&["serve", "--dev", config], args].concat())
    }

    /// Runs gw with arguments that have `serve --dev` among them.
    pub fn run(args: &[&str]) -> Self {
        let folder = Folder::new("dev");
        let mut child = gw()
            .args(args)
            .args(["--workers", "1"])
            .env("XDG_DATA_HOME", folder.path())
            .current_dir(repository())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gw starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut shown = Vec::new();
        loop {
            let mut line = String::new();
            let n = stdout.read_line(&mut line).expect("text");
            assert!(n > 0, "gw ended after {shown:#?}");
            if line.ends_with("Requests:\n") {
                break;
            }
            shown.push(line.trim_end().to_owned());
        }
        Self { child, stdout, shown, _folder: folder }
    }

    /// The command below the first comment with `title` in it.
    pub fn command(&self, title: &str) -> &str {
        let at = self.shown.iter().position(|l| l.starts_with("  #") && l.contains(title));
        let at = at.unwrap_or_else(|| panic!("no `{title}` in {:#?}", self.shown));
        self.shown[at + 1].trim()
    }

    /// Whether one of the lines has all `parts` in it.
    pub fn shows(&self, parts: &[&str]) -> bool {
        self.shown.iter().any(|l| parts.iter().all(|p| l.contains(p)))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a line as a shell does, with `more` behind it.
pub fn bash(line: &str, more: &str) -> String {
    let folder = gw_binary().parent().map(|p| p.display().to_string()).unwrap_or_default();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let out = Command::new("bash")
        .args(["-c", &format!("{line} {more}")])
        .env("PATH", path)
        .env("NO_PROXY", "*")
        .current_dir(repository())
        .output()
        .expect("bash starts");
    assert!(out.status.success(), "{line}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
