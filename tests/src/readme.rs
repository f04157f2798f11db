//! The commands of a fixture's README, run as a reader would run them.

use std::net::SocketAddr;

use crate::dev::{Dev, bash};
use crate::http::Message;
use crate::redis::free_port;

/// A README and what is in its shell blocks.
pub struct Readme {
    commands: Vec<String>,
}

impl Readme {
    /// Reads one.
    pub fn new(text: &str) -> Self {
        let mut inside = false;
        let mut commands = Vec::new();
        for line in text.lines() {
            match line {
                "```sh" => inside = true,
                "```" => inside = false,
                _ if inside => commands.push(line.to_owned()),
                _ => {}
            }
        }
        Self { commands }
    }

    /// The commands that begin like this.
    pub fn commands(&self, start: &str) -> Vec<&str> {
        self.commands.iter().map(String::as_str).filter(|c| c.starts_with(start)).collect()
    }

    /// Runs the first `gw serve --dev` on a free port.
    pub fn serve(&self, more: &[&str]) -> (Dev, SocketAddr) {
        let serve = self.commands("gw serve --dev")[0];
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listen = addr.to_string();
        let mut args: Vec<&str> = serve.split(' ').skip(1).collect();
        args.extend(["--listen", &listen, "--listen-tls", "127.0.0.1:0"]);
        args.extend(more);
        (Dev::run(&args), addr)
    }

    /// Runs the first `curl` with all `parts` in it against a gateway.
    pub fn curl(&self, addr: SocketAddr, parts: &[&str], more: &str) -> Message {
        let all = self.commands("curl ");
        let found = all.iter().find(|c| parts.iter().all(|p| c.contains(p)));
        let command = found.unwrap_or_else(|| panic!("no command with {parts:?}"));
        let command = command.replace("127.0.0.1:8000", &addr.to_string());
        let out = bash(&command, &format!("-sS --noproxy '*' {more}"));
        let mut from = out.as_bytes();
        let mut answer = Message::read_head(&mut from).expect("a response");
        answer.read_body(&mut from, true).expect("a body");
        answer
    }
}
