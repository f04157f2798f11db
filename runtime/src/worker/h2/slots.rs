//! The futures of a connection's streams, polled by the connection's task as they become ready. A waker is a bit in a
//! word, so that any number of streams which become ready together wake the task once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Which streams are ready.
struct Ready {
    words: Box<[AtomicU64]>,
    /// The task knows, or is at it.
    told: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Ready {
    fn set(&self, slot: usize) {
        let Some(word) = self.words.get(slot / 64) else { return };
        word.fetch_or(1 << (slot % 64), Ordering::AcqRel);
        if !self.told.swap(true, Ordering::AcqRel) {
            let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(task) = &*task {
                task.wake_by_ref();
            }
        }
    }
}

struct SlotWaker {
    ready: Arc<Ready>,
    slot: usize,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.ready.set(self.slot);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.set(self.slot);
    }
}

/// See the module.
pub struct Slots {
    ready: Arc<Ready>,
    tasks: Vec<Option<Task>>,
    wakers: Vec<Waker>,
}

impl Slots {
    /// Places for `most` futures.
    pub fn new(most: usize) -> Self {
        let words = (0..most.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let ready = Ready { words, told: AtomicBool::new(true), task: Mutex::new(None) };
        Self { ready: Arc::new(ready), tasks: Vec::new(), wakers: Vec::new() }
    }

    /// Begins a turn, in which nobody needs to tell the task anything.
    pub fn begin(&self, cx: &Context<'_>) {
        self.ready.told.store(true, Ordering::Release);
        let mut task = self.ready.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.as_ref().is_some_and(|t| t.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Ends it; false where a stream has become ready meanwhile.
    pub fn end(&self) -> bool {
        self.ready.told.store(false, Ordering::Release);
        !self.any()
    }

    /// Whether a stream is ready.
    pub fn any(&self) -> bool {
        self.ready.words.iter().any(|w| w.load(Ordering::Acquire) != 0)
    }

    /// Puts a future into a place, ready to be polled. What was there is dropped.
    pub fn insert(&mut self, slot: u32, task: Task) {
        let slot = slot as usize;
        while self.tasks.len() <= slot {
            let slot = self.wakers.len();
            self.wakers.push(Waker::from(Arc::new(SlotWaker { ready: Arc::clone(&self.ready), slot })));
            self.tasks.push(None);
        }
        self.tasks[slot] = Some(task);
        self.ready.set(slot);
    }

    /// Drops the future in a place.
    pub fn remove(&mut self, slot: u32) {
        if let Some(task) = self.tasks.get_mut(slot as usize) {
            drop(task.take());
        }
    }

    /// Polls those that are ready, and tells `panicked` of each that panics, which is all that the panic ends.
    pub fn run(&mut self, mut panicked: impl FnMut(u32)) {
        for (i, word) in self.ready.words.iter().enumerate() {
            let mut bits = match word.load(Ordering::Acquire) {
                0 => continue,
                _ => word.swap(0, Ordering::AcqRel),
            };
            while bits != 0 {
                let slot = i * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let Some(place) = self.tasks.get_mut(slot) else { continue };
                let Some(task) = place else { continue };
                let mut cx = Context::from_waker(&self.wakers[slot]);
                match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut cx))) {
                    Ok(Poll::Pending) => {}
                    Ok(Poll::Ready(())) => *place = None,
                    Err(_) => {
                        *place = None;
                        panicked(slot as u32);
                    }
                }
            }
        }
    }

    /// Gives back the memory of places while none is in use.
    pub fn rest(&mut self) {
        if self.tasks.iter().all(Option::is_none) {
            (self.tasks, self.wakers) = Default::default();
        }
    }

    /// Drops all futures.
    pub fn clear(&mut self) {
        self.tasks.clear();
        self.wakers.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_that_become_ready_wake_the_task_once() {
        let count = Arc::new(Count(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let mut slots = Slots::new(100);
        slots.begin(&cx);
        let wakers: Rc<std::cell::RefCell<Vec<Waker>>> = Rc::default();
        let polled = Rc::new(Cell::new(0));
        for slot in [0, 1, 70, 99] {
            let (wakers, polled) = (Rc::clone(&wakers), Rc::clone(&polled));
            let task = std::future::poll_fn(move |cx| {
                polled.set(polled.get() + 1);
                if polled.get() > 4 {
                    return Poll::Ready(());
                }
                wakers.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            });
            slots.insert(slot, Box::pin(task));
        }
        slots.run(|_| ());
        assert!(slots.end());
        assert_eq!((polled.get(), count.0.load(Ordering::Relaxed)), (4, 0));
        for waker in wakers.borrow().iter() {
            waker.wake_by_ref();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        slots.begin(&cx);
        slots.run(|_| ());
        assert_eq!(polled.get(), 8);
        slots.rest();
        assert!(slots.tasks.is_empty());
    }
}
