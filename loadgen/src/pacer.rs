//! Waking up on time. The runtime's own timers tick in milliseconds, which would add up to one to every latency; the
//! kernel's do not.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The alarm clock of one worker.
pub struct Pacer {
    waiting: RefCell<BinaryHeap<Reverse<Entry>>>,
    /// Tells the ticking task that an earlier time has come in.
    earlier: Notify,
}

struct Entry {
    at: Instant,
    waker: Waker,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Pacer {
    /// A clock that rings while [`Pacer::tick`] runs.
    pub fn new() -> Rc<Self> {
        Rc::new(Self { waiting: RefCell::default(), earlier: Notify::new() })
    }

    /// Waits until `at`.
    pub async fn until(&self, at: Instant) {
        let mut registered = false;
        poll_fn(|cx| {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            if !registered {
                registered = true;
                let mut waiting = self.waiting.borrow_mut();
                let first = waiting.peek().is_none_or(|Reverse(e)| at < e.at);
                waiting.push(Reverse(Entry { at, waker: cx.waker().clone() }));
                if first {
                    self.earlier.notify_one();
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Rings for whoever waits, for ever.
    pub async fn tick(&self) -> io::Result<()> {
        let alarm = Alarm::new()?;
        loop {
            let next = self.ring(Instant::now());
            match next {
                None => self.earlier.notified().await,
                Some(wait) => {
                    tokio::select! {
                        r = alarm.after(wait) => r?,
                        () = self.earlier.notified() => {}
                    }
                }
            }
        }
    }

    /// Wakes all that are due; says how long until the next one is.
    fn ring(&self, now: Instant) -> Option<Duration> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(Reverse(entry)) = waiting.peek() {
            if entry.at > now {
                return Some(entry.at - now);
            }
            if let Some(Reverse(entry)) = waiting.pop() {
                entry.waker.wake();
            }
        }
        None
    }
}

/// One alarm of the kernel's.
#[cfg(target_os = "linux")]
struct Alarm(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Alarm {
    #[expect(
        deprecated,
        reason = "the successor is unsafe for types that may change their descriptor; an `OwnedFd` cannot"
    )]
    fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(tokio::io::unix::AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)?))
    }

    async fn after(&self, wait: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would disarm it.
        let wait = wait.max(Duration::from_nanos(1));
        let at = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        timerfd_settime(
            self.0.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: zero, it_value: at },
        )?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0u8; 8])?));
            match read {
                Ok(result) => return result.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

/// Elsewhere the runtime's timers must do.
#[cfg(not(target_os = "linux"))]
struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn after(&self, wait: Duration) -> io::Result<()> {
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_in_order_and_never_early() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let pacer = Pacer::new();
            let ticking = Rc::clone(&pacer);
            tokio::task::spawn_local(async move { ticking.tick().await });
            let order = Rc::new(RefCell::new(Vec::new()));
            let start = Instant::now();
            let tasks: Vec<_> = [30u64, 10, 20, 10]
                .map(|ms| {
                    let (pacer, order) = (Rc::clone(&pacer), Rc::clone(&order));
                    tokio::task::spawn_local(async move {
                        let at = start + Duration::from_millis(ms);
                        pacer.until(at).await;
                        assert!(Instant::now() >= at);
                        order.borrow_mut().push(ms);
                    })
                })
                .into();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*order.borrow(), [10, 10, 20, 30]);
        });
    }
}
