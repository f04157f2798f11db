//! Ordering certificates: one thread for the process, so that no request waits for it. It looks once a second at what
//! the config asks for, what the storage holds and what is due, and has one order under way at a time.

mod client;
mod order;
mod storage;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::acme::Acme;
use crate::acme::certificate::Ours;
use crate::acme::state::Pending;
use crate::clock;
use crate::telemetry::Sink;
use crate::telemetry::access_log::timestamp;
use crate::worker::context::{Common, Worker};
use client::Failure;
use order::Ordering;
use storage::{LOCK, Lock, Storage};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long the process waits at its start for what the storage holds.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// For a whole order; shorter than its lock lasts.
const ORDER: Duration = Duration::from_secs(300);
/// How long an order that was given up may take to give its lock back.
const END: Duration = Duration::from_secs(2);
/// When a lock that another has is asked for again.
const LOCKED: Duration = Duration::from_secs(3);

/// Starts the thread, and waits a moment for the certificates that the storage holds, so that none is missing when the
/// first client comes. It ends with the process's workers.
pub fn spawn(common: Arc<Common>, stop: watch::Receiver<bool>) -> io::Result<JoinHandle<()>> {
    let wanted = common.publisher.current().acme.is_some();
    let (ready, looked) = sync_channel(1);
    let thread = std::thread::Builder::new().name("gw-acme".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        match runtime {
            Ok(runtime) => {
                tokio::task::LocalSet::new().block_on(&runtime, run(common, stop, ready));
                runtime.shutdown_background();
            }
            Err(e) => eprintln!("warning: acme: no certificates are ordered: {e}"),
        }
    })?;
    if wanted && looked.recv_timeout(FIRST_LOOK) == Err(RecvTimeoutError::Timeout) {
        eprintln!("warning: acme: the storage does not answer; certificates are served once it does");
    }
    Ok(thread)
}

async fn run(common: Arc<Common>, mut stop: watch::Receiver<bool>, ready: SyncSender<()>) {
    // It asks over connections of its own, by a worker's rules, but counts in no metrics of requests.
    let worker = Worker::new(Arc::clone(&common), Sink { metrics: Arc::default(), log: None });
    tokio::task::spawn_local(Rc::clone(&worker.deadlines).run());
    let mut manager: Option<Rc<Manager>> = None;
    let mut ordering = None;
    let mut unusable = None;
    loop {
        let wanted = common.publisher.current().acme.clone();
        let same = match (&manager, &wanted) {
            (Some(now), Some(wanted)) => now.acme.is_same(wanted),
            (None, None) => true,
            _ => false,
        };
        if !same {
            if let Some(old) = &manager {
                old.retired.notify_one();
            }
            manager = None;
            match wanted.map(Manager::open).transpose() {
                Ok(opened) => (manager, unusable) = (opened, None),
                // It is tried again, but said once.
                Err(why) if unusable.as_ref() == Some(&why) => {}
                Err(why) => {
                    eprintln!("warning: acme: {why}; nothing is ordered");
                    unusable = Some(why);
                }
            }
        }
        if let Some(manager) = &manager
            && let Some((domain, lock)) = manager.look().await
        {
            let (manager, worker, stop) = (Rc::clone(manager), Rc::clone(&worker), stop.clone());
            ordering = Some(tokio::task::spawn_local(manager.order(worker, domain, lock, stop)));
        }
        // An old config must not stay in memory for want of something to ask.
        drop(worker.snapshot());
        worker.pool.sweep(Duration::from_secs(30));
        let _ = ready.try_send(());
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = stop.wait_for(|s| *s) => break,
        }
    }
    if let Some(ordering) = ordering {
        let _ = tokio::time::timeout(END, ordering).await;
    }
}

/// Keeps the certificates of one config.
struct Manager {
    acme: Arc<Acme>,
    storage: Storage,
    ours: RefCell<HashMap<String, Arc<Ours>>>,
    /// Whether the storage has been read: before that nothing is known to be due.
    read: Cell<bool>,
    /// Names whose certificates are not in the storage yet.
    unsaved: RefCell<Vec<String>>,
    attempts: RefCell<HashMap<String, Attempts>>,
    ordering: Cell<bool>,
    /// Another config is in force: an order of this one ends.
    retired: Notify,
    own: RefCell<Option<Pending>>,
    others: RefCell<Vec<Pending>>,
    /// What the storage last held against us.
    trouble: RefCell<Option<String>>,
}

/// What was tried for a name.
#[derive(Clone, Copy)]
struct Attempts {
    /// Failures in a row.
    failed: u32,
    next: Instant,
}

impl Manager {
    fn open(acme: Arc<Acme>) -> Result<Rc<Self>, String> {
        acme.certificates.keep(&acme.domains);
        let storage = Storage::open(&acme)?;
        // What did not change goes on being served until the storage has been read.
        let mut ours = acme.certificates.all().as_ref().clone();
        ours.retain(|domain, _| acme.domains.contains(domain));
        Ok(Rc::new(Self {
            acme,
            storage,
            ours: RefCell::new(ours),
            read: Cell::new(false),
            unsaved: RefCell::default(),
            attempts: RefCell::default(),
            ordering: Cell::new(false),
            retired: Notify::new(),
            own: RefCell::default(),
            others: RefCell::default(),
            trouble: RefCell::default(),
        }))
    }

    /// Takes in what is new; says what to order next, with the right to do so.
    async fn look(&self) -> Option<(String, Lock)> {
        match self.take_in().await {
            Ok(()) => *self.trouble.borrow_mut() = None,
            Err(why) => {
                if self.trouble.borrow().as_deref() != Some(&why) {
                    eprintln!("warning: acme: the storage: {why}; what is there goes on being served");
                }
                *self.trouble.borrow_mut() = Some(why);
                return None;
            }
        }
        if self.ordering.get() {
            return None;
        }
        for domain in &self.acme.domains {
            if !self.is_due(domain) {
                continue;
            }
            match self.storage.lock(domain).await {
                Ok(Some(lock)) => return Some((domain.clone(), lock)),
                Ok(None) => self.put_off(domain, LOCKED),
                Err(_) => return None,
            }
        }
        None
    }

    async fn take_in(&self) -> Result<(), String> {
        let unsaved = self.unsaved.take();
        for (at, domain) in unsaved.iter().enumerate() {
            let pem = self.ours.borrow().get(domain).map(|o| o.pem.clone());
            if let Some(pem) = pem
                && let Err(why) = self.storage.keep_certificate(domain, &pem).await
            {
                self.unsaved.borrow_mut().extend_from_slice(&unsaved[at..]);
                return Err(why);
            }
        }
        let news = self.storage.look().await?;
        if let Some(pending) = news.pending {
            *self.others.borrow_mut() = pending;
            self.prove();
        }
        if news.certificates || !self.read.get() {
            for domain in &self.acme.domains {
                let kept = self.storage.certificate(domain).await?;
                self.take(domain, kept.as_deref());
            }
            self.read.set(true);
            self.serve();
        }
        Ok(())
    }

    /// Takes what the storage holds for a name.
    fn take(&self, domain: &str, kept: Option<&str>) {
        let Some(pem) = kept else { return };
        if self.ours.borrow().get(domain).is_some_and(|o| o.pem == pem) {
            return;
        }
        match Ours::read(pem, domain) {
            Ok(ours) => {
                self.ours.borrow_mut().insert(domain.to_owned(), Arc::new(ours));
                self.attempts.borrow_mut().remove(domain);
            }
            Err(why) => eprintln!("warning: acme: what the storage holds for `{domain}` is no use: {why}"),
        }
    }

    fn serve(&self) {
        let all = self.ours.borrow().clone();
        for (domain, ours) in &all {
            let next_order = ours.renew_at(self.acme.renew_before);
            self.acme.certificates.note(domain, |r| r.next_order = next_order);
        }
        self.acme.certificates.serve(all);
    }

    fn prove(&self) {
        let mut all = self.others.borrow().clone();
        if let Some(own) = &*self.own.borrow()
            && !all.contains(own)
        {
            all.push(own.clone());
        }
        self.acme.certificates.prove(all);
    }

    fn is_due(&self, domain: &str) -> bool {
        let rests = self.attempts.borrow().get(domain).is_some_and(|a| a.next > clock::monotonic());
        !rests && !self.is_fresh(domain)
    }

    fn is_fresh(&self, domain: &str) -> bool {
        let ours = self.ours.borrow();
        ours.get(domain).is_some_and(|o| o.renew_at(self.acme.renew_before) > clock::unix_s())
    }

    /// Leaves a name alone for a while.
    fn put_off(&self, domain: &str, rest: Duration) {
        let next = clock::monotonic() + rest;
        let mut attempts = self.attempts.borrow_mut();
        attempts
            .entry(domain.to_owned())
            .and_modify(|a| a.next = next)
            .or_insert(Attempts { failed: 0, next });
    }

    /// Orders a certificate, unless another gateway has done so meanwhile.
    async fn order(
        self: Rc<Self>,
        worker: Rc<Worker>,
        domain: String,
        lock: Lock,
        mut stop: watch::Receiver<bool>,
    ) {
        self.ordering.set(true);
        // A panic in reading what a server said must not end ordering for good.
        let _over = Over(&self.ordering);
        if let Ok(kept) = self.storage.certificate(&domain).await {
            self.take(&domain, kept.as_deref());
        }
        if self.is_fresh(&domain) {
            self.serve();
            return self.storage.unlock(lock, None).await;
        }
        let Acme { server, certificates, .. } = &*self.acme;
        eprintln!("acme: ordering a certificate for `{domain}` from {server}");
        self.put_off(&domain, LOCK);
        let prove = |pending| {
            *self.own.borrow_mut() = pending;
            self.prove();
        };
        let ordering = Ordering { worker: &worker, acme: &self.acme, storage: &self.storage, prove: &prove };
        let ordered = tokio::select! {
            ordered = tokio::time::timeout(ORDER, ordering.run(&domain)) => ordered,
            () = self.retired.notified() => return self.storage.unlock(lock, None).await,
            _ = stop.wait_for(|s| *s) => return self.storage.unlock(lock, None).await,
        };
        match ordered.unwrap_or_else(|_| Err(Failure::of("it took too long"))) {
            Ok(ours) => {
                let until = timestamp(ours.not_after * 1000);
                let renewed = timestamp(ours.renew_at(self.acme.renew_before) * 1000);
                eprintln!(
                    "acme: `{domain}` has a new certificate until {until}; it is renewed from {renewed}"
                );
                if let Err(why) = self.storage.keep_certificate(&domain, &ours.pem).await {
                    eprintln!(
                        "warning: acme: the certificate for `{domain}` is served, but not kept yet: {why}"
                    );
                    self.unsaved.borrow_mut().push(domain.clone());
                }
                self.ours.borrow_mut().insert(domain.clone(), Arc::new(ours));
                self.attempts.borrow_mut().remove(&domain);
                certificates.note(&domain, |r| (r.ordered, r.last_error) = (r.ordered + 1, None));
                self.serve();
                self.storage.unlock(lock, None).await;
            }
            Err(failure) => {
                let rest = self.failed(&domain, &failure);
                self.storage.unlock(lock, Some(rest)).await;
            }
        }
    }

    fn failed(&self, domain: &str, failure: &Failure) -> Duration {
        let failed = self.attempts.borrow().get(domain).map_or(0, |a| a.failed) + 1;
        let rest = rest(failure, failed, random());
        self.attempts
            .borrow_mut()
            .insert(domain.to_owned(), Attempts { failed, next: clock::monotonic() + rest });
        let why = &failure.message;
        eprintln!(
            "warning: acme: no certificate for `{domain}`: {why}; the next attempt is in {} s",
            rest.as_secs().max(1)
        );
        self.acme.certificates.note(domain, |r| {
            r.failed += 1;
            r.next_order = clock::unix_s() + rest.as_secs();
            r.last_error = Some(why.clone());
        });
        rest
    }
}

/// Ends what it was under way.
struct Over<'a>(&'a Cell<bool>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// How long to wait after the `failed`th failure in a row: twice as long each time, and never shorter than the server
/// asks. A server that is not there may be back soon; one that refuses counts refusals. `random` spreads gateways.
fn rest(failure: &Failure, failed: u32, random: u8) -> Duration {
    let (first, most) = match failure.refused {
        true => (Duration::from_secs(60), Duration::from_secs(6 * 3600)),
        false => (Duration::from_secs(2), Duration::from_secs(3600)),
    };
    let doubled = first.saturating_mul(1 << failed.saturating_sub(1).min(20)).min(most);
    let spread = 0.75 + 0.5 * f64::from(random) / 255.0;
    doubled.mul_f64(spread).max(failure.rest.unwrap_or(Duration::ZERO))
}

fn random() -> u8 {
    let mut byte = [128];
    // Without randomness nothing is spread, and nothing else is worse.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_never_fall_short_of_what_the_server_asks() {
        let check = |refused, asked: Option<u64>, failed, random, want_ms: u64| {
            let failure = Failure { refused, rest: asked.map(Duration::from_secs), ..Failure::of("") };
            assert_eq!(
                rest(&failure, failed, random),
                Duration::from_millis(want_ms),
                "{failure:?} {failed}"
            );
        };
        check(false, None, 1, 0, 1_500);
        check(false, None, 1, 255, 2_500);
        check(false, None, 3, 255, 10_000);
        check(false, None, 1000, 255, 4_500_000);
        check(true, None, 1, 0, 45_000);
        check(true, None, 100, 0, 16_200_000);
        check(true, Some(3600), 1, 0, 3_600_000);
        check(true, Some(1), 1, 0, 45_000);
    }
}
