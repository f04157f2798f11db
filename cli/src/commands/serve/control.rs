//! What can be done to a running gateway from outside: signals, changed files, configs handed in over the admin listener.
//! All of it comes through one loop, so no two reloads meet.

use std::time::Duration;

use gw_runtime::admin::config::{Outcome, Submission};
use gw_runtime::model::Gateway;
use gw_runtime::server::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::Args;
use super::load::{Loaded, Loader};
use crate::render;

/// How often files are looked at with `--watch`. A change counts once it has stopped changing.
const LOOK: Duration = Duration::from_millis(250);

/// The signals, caught from now on.
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// To be called inside a runtime, before anyone is told that the gateway runs.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one that asks for the end.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// A gateway under control.
pub struct Control<'a> {
    pub server: &'a Server,
    pub loader: &'a Loader,
    pub args: &'a Args,
    /// What the process began with; some of it cannot change while it runs.
    pub begun: Gateway,
}

impl Control<'_> {
    /// Does what it is told until that is to end.
    pub async fn run(
        &self,
        signals: &mut Signals,
        mut submissions: mpsc::Receiver<Submission>,
        mut succeeded: Option<mpsc::Receiver<()>>,
    ) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known = self.loader.fingerprint();
        let mut last = known;
        loop {
            tokio::select! {
                _ = signals.term.recv() => return,
                _ = signals.int.recv() => return,
                Some(()) = next(&mut succeeded) => {
                    eprintln!("another gateway has taken over");
                    return;
                }
                _ = signals.hup.recv() => {
                    known = self.loader.fingerprint();
                    self.reload();
                }
                Some(submission) = submissions.recv() => {
                    let Submission { text, check_hash, reply } = submission;
                    // Whoever handed it in may have gone: the config is in force all the same.
                    let _ = reply.send(self.submit(text, check_hash));
                }
                _ = look.tick(), if self.args.watch => {
                    let now = self.loader.fingerprint();
                    // A file that is still being written waits for the next look.
                    if now != known && now == last {
                        known = now;
                        self.reload();
                    }
                    last = now;
                }
            }
        }
    }

    /// Reads the files again. All or nothing: a config with errors leaves the running one in force.
    fn reload(&self) {
        match self.loader.load() {
            Ok(loaded) => {
                self.put_in_force(loaded, "files");
            }
            Err(e) => {
                self.failed(format!("{e:#}"), serde_json::Value::Null);
            }
        }
    }

    fn submit(&self, text: String, check_hash: bool) -> Outcome {
        if check_hash && self.server.common.reloads.state().hash == Loader::hash_of([text.as_str()]) {
            return Outcome::Unchanged;
        }
        match self.loader.load_text(text) {
            Ok(loaded) => self.put_in_force(loaded, "admin"),
            Err(e) => self.failed(format!("{e:#}"), serde_json::Value::Null),
        }
    }

    fn put_in_force(&self, loaded: Loaded, origin: &'static str) -> Outcome {
        let Loaded { snapshot, hash, report } = loaded;
        let Some(snapshot) = snapshot else {
            return self.failed("the config has errors".to_owned(), report);
        };
        self.note_what_stays(&snapshot.gateway);
        let overrides = self.loader.overrides(self.args);
        // Requests of the config that is in force still need its stand-ins, until the new one is.
        self.server.common.resolver.redirect_also(&overrides);
        let generation = self.server.publish(snapshot);
        self.server.common.resolver.redirect(overrides);
        self.server.common.reloads.succeeded(hash.clone(), origin);
        eprintln!("reloaded: config {generation} is in force");
        if let Some(changes) = self.loader.dev.as_ref().and_then(|d| d.changes(render::colour())) {
            eprint!("{changes}");
        }
        Outcome::InForce { generation, hash }
    }

    fn failed(&self, why: String, report: serde_json::Value) -> Outcome {
        eprintln!("not reloaded: {why}; the running config stays in force");
        self.server.common.reloads.failed(why.clone(), report.clone());
        match report.is_null() {
            true => Outcome::Failed(why),
            false => Outcome::Refused(report),
        }
    }

    /// Says which settings of the new config only a restart can put in force.
    fn note_what_stays(&self, new: &Gateway) {
        let old = &self.begun;
        let args = self.args;
        let by_flag = !args.listen.is_empty() || !args.listen_tls.is_empty();
        for (name, changed) in [
            ("listeners", !by_flag && old.listeners != new.listeners),
            ("workers", args.workers.is_none() && old.workers != new.workers),
            ("admin", args.admin.is_none() && old.admin != new.admin),
            ("counter_file", !args.dev && old.counter_file != new.counter_file),
            ("access_log", args.access_log.is_none() && old.access_log != new.access_log),
        ] {
            if changed {
                eprintln!("note: `gateway.{name}` has changed, which takes effect at the next start");
            }
        }
    }
}

/// Waits for a successor, where one can come.
async fn next(succeeded: &mut Option<mpsc::Receiver<()>>) -> Option<()> {
    match succeeded {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}
