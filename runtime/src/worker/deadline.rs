//! Deadlines for very many connections, cheaper than a timer each.
//!
//! Arming a deadline stores a number. One task per worker looks through all of them, as seldom as the nearest one
//! allows, and wakes the tasks whose time is over. Deadlines are late by at most [`STEP`].

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock;

/// How late a deadline may fire.
pub const STEP: Duration = Duration::from_millis(20);
/// How long the task sleeps at most while there are deadlines.
const LONGEST: u64 = 1000;
const NEVER: u64 = u64::MAX;

/// All deadlines of a worker.
pub struct Deadlines {
    start: Instant,
    entries: RefCell<Vec<Weak<Entry>>>,
    /// When the task will look next, in ms since `start`.
    next_look: Cell<u64>,
    sooner: Notify,
}

struct Entry {
    at: Cell<u64>,
    over: Cell<bool>,
    idle: Cell<Idle>,
    waker: RefCell<Option<Waker>>,
}

/// What a task waits for, as far as draining is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Idle {
    /// Something that is under way.
    No,
    /// A request that may never come: draining ends the wait.
    Yes,
    /// The first request of a new connection, which is likely on its way: draining gives it a moment.
    Fresh,
}

/// How long a connection that was just opened may still send its first request once draining has begun.
pub const FRESH: Duration = Duration::from_secs(1);

/// One deadline, belonging to one task.
pub struct Watch {
    all: Rc<Deadlines>,
    entry: Rc<Entry>,
}

impl Deadlines {
    /// No deadlines yet.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            start: clock::monotonic(),
            entries: RefCell::default(),
            next_look: Cell::new(NEVER),
            sooner: Notify::new(),
        })
    }

    /// A deadline that is not armed.
    pub fn watch(self: &Rc<Self>) -> Watch {
        let entry = Rc::new(Entry {
            at: Cell::new(NEVER),
            over: Cell::new(false),
            idle: Cell::new(Idle::No),
            waker: RefCell::new(None),
        });
        self.entries.borrow_mut().push(Rc::downgrade(&entry));
        Watch { all: Rc::clone(self), entry }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Wakes what is over and says how long to sleep, if anything is armed.
    fn look(&self) -> Option<Duration> {
        let now = self.now();
        let mut nearest = NEVER;
        self.entries.borrow_mut().retain(|weak| {
            let Some(entry) = weak.upgrade() else { return false };
            let at = entry.at.get();
            if at <= now {
                entry.at.set(NEVER);
                entry.over.set(true);
                if let Some(waker) = entry.waker.borrow_mut().take() {
                    waker.wake();
                }
            } else {
                nearest = nearest.min(at);
            }
            true
        });
        if nearest == NEVER && self.entries.borrow().is_empty() {
            self.next_look.set(NEVER);
            return None;
        }
        let sleep = (nearest.saturating_sub(now)).clamp(STEP.as_millis() as u64, LONGEST);
        self.next_look.set(now + sleep);
        Some(Duration::from_millis(sleep))
    }

    /// Ends every idle wait, those for a first request soon.
    pub fn end_idle(&self) {
        let soon = self.now() + FRESH.as_millis() as u64;
        for entry in self.entries.borrow().iter().filter_map(Weak::upgrade) {
            match entry.idle.get() {
                Idle::No => {}
                Idle::Fresh => entry.at.set(entry.at.get().min(soon)),
                Idle::Yes => {
                    entry.over.set(true);
                    if let Some(waker) = entry.waker.borrow_mut().take() {
                        waker.wake();
                    }
                }
            }
        }
        self.sooner.notify_one();
    }

    /// Runs for the worker's life.
    pub async fn run(self: Rc<Self>) {
        loop {
            match self.look() {
                Some(sleep) => {
                    tokio::select! {
                        () = tokio::time::sleep(sleep) => {}
                        () = self.sooner.notified() => {}
                    }
                }
                None => self.sooner.notified().await,
            }
        }
    }
}

impl Watch {
    /// Sets the deadline to `after` from `now`.
    pub fn arm_from(&self, now: Instant, after: Duration) {
        let at = now.duration_since(self.all.start).saturating_add(after).as_millis() as u64;
        self.entry.at.set(at);
        self.entry.over.set(false);
        self.entry.idle.set(Idle::No);
        if at < self.all.next_look.get() {
            self.all.next_look.set(at);
            self.all.sooner.notify_one();
        }
    }

    /// Sets the deadline to `after` from the present.
    pub fn arm(&self, after: Duration) {
        self.arm_from(clock::monotonic(), after);
    }

    /// Sets the deadline for an idle wait, which draining ends at once.
    pub fn arm_idle_from(&self, now: Instant, after: Duration) {
        self.arm_from(now, after);
        self.entry.idle.set(Idle::Yes);
    }

    /// Sets the deadline for a connection's first request, which draining shortens.
    pub fn arm_fresh(&self, after: Duration) {
        self.arm(after);
        self.entry.idle.set(Idle::Fresh);
    }

    /// Whether the time is over.
    pub fn is_over(&self) -> bool {
        self.entry.over.get()
    }

    /// No deadline.
    pub fn disarm(&self) {
        self.entry.at.set(NEVER);
        self.entry.over.set(false);
    }

    /// Whether the time is over; if not, the task is woken when it is. To be called when the task is about to wait.
    pub fn poll_over(&self, cx: &Context<'_>) -> bool {
        if self.entry.over.get() {
            return true;
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_wakes_its_task_and_can_be_moved() {
        let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        tokio::task::LocalSet::new().block_on(&rt, async {
            let all = Deadlines::new();
            tokio::task::spawn_local(Rc::clone(&all).run());
            let watch = all.watch();
            let begin = Instant::now();
            watch.arm(Duration::from_secs(30));
            tokio::task::yield_now().await;
            watch.arm(Duration::from_millis(60));
            std::future::poll_fn(|cx| match watch.poll_over(cx) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            })
            .await;
            let took = begin.elapsed();
            assert!(took >= Duration::from_millis(59) && took < Duration::from_millis(500), "{took:?}");
        });
    }
}
