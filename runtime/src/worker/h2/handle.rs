//! What a stream's future holds of its connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::http2::send::{Body, Gone};
use crate::http2::{Code, Connection, Key};
use crate::message::{Fields, ResponseHead};
use crate::worker::context::Worker;
use crate::worker::deadline::Watch;

/// Deadlines that are kept for a connection's next streams.
const WATCHES: usize = 32;

/// What a connection's task and its streams share.
pub struct Shared {
    pub connection: RefCell<Connection>,
    /// The connection's task is at work, and will write what there is to write.
    pub at_work: Cell<bool>,
    pub task: RefCell<Option<Waker>>,
    pub watches: RefCell<Vec<Rc<Watch>>>,
}

impl Shared {
    /// Tells the connection's task that there is something to write, where somebody else has put it there.
    fn tell(&self) {
        if !self.at_work.get()
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
    }
}

/// One stream of a connection.
#[derive(Clone)]
pub struct Handle {
    shared: Rc<Shared>,
    key: Key,
}

impl Handle {
    /// The stream that `key` names.
    pub fn new(shared: Rc<Shared>, key: Key) -> Self {
        Self { shared, key }
    }

    /// A deadline that is not armed.
    pub fn watch(&self, worker: &Worker) -> Rc<Watch> {
        let spare = self.shared.watches.borrow_mut().pop();
        spare.unwrap_or_else(|| Rc::new(worker.deadlines.watch()))
    }

    /// Keeps a deadline for another stream, if nobody else has a hand on it.
    pub fn give_back(&self, watch: Rc<Watch>) {
        let mut watches = self.shared.watches.borrow_mut();
        if Rc::strong_count(&watch) == 1 && watches.len() < WATCHES {
            watch.disarm();
            watches.push(watch);
        }
    }

    /// See [`Connection::head`].
    pub fn head(&self, status: u16, fields: &Fields, length: Option<u64>, end: bool) -> Result<(), Gone> {
        self.shared.connection.borrow_mut().head(self.key, status, fields, length, end)
    }

    /// Sends an interim answer.
    pub fn interim(&self, head: &ResponseHead) {
        // A stream that is gone needs none.
        let _ = self.head(head.status, &head.fields, None, false);
        self.shared.tell();
    }

    /// See [`Connection::trailers`].
    pub fn trailers(&self, fields: &Fields) -> Result<(), Gone> {
        self.shared.connection.borrow_mut().trailers(self.key, fields)
    }

    /// See [`Connection::poll_room`].
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<usize, Gone>> {
        self.shared.connection.borrow_mut().poll_room(self.key, cx)
    }

    /// See [`Connection::data`].
    pub fn data(&self, bytes: &[u8], end: bool) -> Result<(), Gone> {
        self.shared.connection.borrow_mut().data(self.key, bytes, end)
    }

    /// See [`Connection::has_room`].
    pub fn has_room(&self, n: usize) -> bool {
        self.shared.connection.borrow_mut().has_room(self.key, n)
    }

    /// See [`Connection::poll_body`].
    pub fn poll_body(&self, into: &mut Vec<u8>, cx: &Context<'_>) -> Poll<Body> {
        self.shared.connection.borrow_mut().poll_body(self.key, into, cx)
    }

    /// See [`Connection::take_trailers`].
    pub fn take_trailers(&self) -> Fields {
        self.shared.connection.borrow_mut().take_trailers(self.key)
    }

    /// See [`Connection::is_body_over`].
    pub fn is_body_over(&self) -> bool {
        self.shared.connection.borrow_mut().is_body_over(self.key)
    }

    /// See [`Connection::used`].
    pub fn used(&self, n: usize) {
        if n > 0 {
            self.shared.connection.borrow_mut().used(self.key, n);
            self.shared.tell();
        }
    }

    /// See [`Connection::make_tunnel`].
    pub fn make_tunnel(&self) {
        self.shared.connection.borrow_mut().make_tunnel(self.key);
    }

    /// See [`Connection::reset`].
    pub fn reset(&self, code: Code) {
        self.shared.connection.borrow_mut().reset(self.key, code);
    }

    /// See [`Connection::finish`].
    pub fn finish(&self) {
        self.shared.connection.borrow_mut().finish(self.key);
    }
}
