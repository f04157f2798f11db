//! What the terminal shows at the start: what stands in for what, where the gateway listens, and what to try.

use std::path::PathBuf;

use super::curl::{Places, quote};
use super::examples::{Example, Examples, Limit};
use super::stand_in::StandIn;
use crate::render::count;

/// Everything to show but the examples.
pub struct Banner<'a> {
    pub files: &'a [PathBuf],
    pub stand_ins: &'a [StandIn],
    pub places: &'a Places,
    pub notes: &'a [String],
    pub colour: bool,
}

/// Bold on a terminal.
fn heading(text: &str, colour: bool) -> String {
    if colour { format!("\x1b[1m{text}\x1b[0m\n") } else { format!("{text}\n") }
}

/// Dim on a terminal; the shell takes it for a comment.
fn comment(text: &str, colour: bool) -> String {
    if colour { format!("  \x1b[2m# {text}\x1b[0m\n") } else { format!("  # {text}\n") }
}

/// The table of stand-ins.
pub fn stand_ins(all: &[StandIn], colour: bool) -> String {
    if all.is_empty() {
        return heading("Stand-ins: none, everything that the config names can be reached", colour);
    }
    let width = |of: fn(&StandIn) -> usize| all.iter().map(of).max().unwrap_or(0);
    let (what, why) = (width(|s| s.what.chars().count()), width(|s| s.why.len()));
    let mut out = heading("Stand-ins", colour);
    for s in all {
        out.push_str(&format!(
            "  {:what$}  {:why$}  -> {}\n",
            s.what.escape_debug().to_string(),
            s.why,
            s.with
        ));
    }
    out
}

impl Banner<'_> {
    /// As text.
    pub fn render(&self, examples: &Examples) -> String {
        let mut out = stand_ins(self.stand_ins, self.colour);
        out.push('\n');
        out.push_str(&heading("Listening", self.colour));
        if let Some(addr) = self.places.clear {
            out.push_str(&format!("  http://{addr}\n"));
        }
        if let Some(addr) = self.places.tls {
            let ca = self
                .places
                .ca
                .as_ref()
                .map(|ca| format!("  development certificate, signed by {}", ca.display()));
            out.push_str(&format!("  https://{addr}{}\n", ca.unwrap_or_default()));
        }
        for note in self.notes {
            out.push_str(&format!("  note: {note}\n"));
        }
        out.push('\n');
        if examples.routes.is_empty() {
            out.push_str(&heading(
                "Try: no route of this config takes requests that curl can make",
                self.colour,
            ));
        } else {
            out.push_str(&heading("Try", self.colour));
            self.examples(examples, &mut out);
        }
        out.push_str("\nCtrl-C stops it, SIGHUP or --watch reads the config again. Requests:\n");
        out
    }

    fn examples(&self, examples: &Examples, out: &mut String) {
        for example in &examples.routes {
            self.push(out, &title(example), example.curl.line(self.places, false, true));
        }
        if examples.more > 0 {
            out.push_str(&comment(&format!("{} more not shown", count(examples.more, "route")), self.colour));
        }
        let secured = |e: &&Example| e.caller.required && !e.caller.proof.is_empty();
        if let Some(example) = examples.routes.iter().find(secured) {
            self.push(out, "without credentials: 401", example.curl.line(self.places, false, false));
        }
        if let Some(route) = examples.routes.iter().find_map(|e| e.explained.as_deref()) {
            let line = format!("gw token explain --config {} --route {} TOKEN", self.file(), quote(route));
            self.push(out, "why a token is refused, check by check", Some(line));
        }
        let clear = |e: &&Example| !e.curl.only_tls && e.caller.missing.is_empty();
        if let Some(example) = examples.routes.iter().find(clear).filter(|_| self.places.clear.is_some()) {
            self.push(out, "over TLS", example.curl.line(self.places, true, true));
        }
        let limited = |e: &&Example| e.limit.is_some() && e.caller.missing.is_empty();
        if let Some(example) = examples.routes.iter().find(limited)
            && let Some(limit) = &example.limit
        {
            let title = format!("more than {} requests a {}: 429", limit.count, limit.period);
            self.push(out, &title, self.bench(limit, example));
        }
    }

    fn push(&self, out: &mut String, title: &str, line: Option<String>) {
        if let Some(line) = line {
            out.push_str(&comment(title, self.colour));
            out.push_str(&format!("  {line}\n"));
        }
    }

    fn file(&self) -> String {
        self.files.first().map(|f| quote(&f.display().to_string())).unwrap_or_default()
    }

    fn bench(&self, limit: &Limit, example: &Example) -> Option<String> {
        let curl = &example.curl;
        let url = curl.url(self.places, false, false)?;
        let file = self.file();
        let consumer = example.caller.name.as_ref();
        let consumer = consumer.map(|c| format!(" --consumer {}", quote(c))).unwrap_or_default();
        let requests = limit.count + limit.count.div_ceil(2);
        let mut line = format!("gw bench {} --config {file}{consumer} --requests {requests}", quote(&url));
        if curl.method != "GET" {
            line.push_str(&format!(" -X {}", curl.method));
        }
        if let (true, Some(ca)) = (curl.only_tls, &self.places.ca) {
            line.push_str(&format!(" --cacert {}", quote(&ca.display().to_string())));
        }
        for word in &curl.words {
            line.push_str(&format!(" {word}"));
        }
        Some(line)
    }
}

fn title(example: &Example) -> String {
    let mut text = example.title.clone();
    let caller = &example.caller;
    if let (Some(name), false) = (&caller.name, caller.proof.is_empty()) {
        text.push_str(&format!(", as {name} with {}", caller.proof.join(" and ")));
    }
    if !caller.missing.is_empty() {
        text.push_str(&format!("; still missing: {}", caller.missing.join(", ")));
    }
    // One line, whatever the config's names have in them.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
