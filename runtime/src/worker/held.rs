//! A request that has no answer yet, on a stream that its client may take back at any moment.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::context::Worker;
use super::respond::{self, Ending};
use crate::exchange::Exchange;

/// The status of a request whose client did not wait for an answer, which only logs and metrics ever see (nginx's and
/// Kong's number).
const CLIENT_LEFT: u16 = 499;
/// The same for a request whose handling panicked.
const PANICKED: u16 = 500;

/// An exchange that is logged even if it is dropped.
pub struct Held {
    worker: Rc<Worker>,
    x: Option<Box<Exchange>>,
}

impl Held {
    /// See the type.
    pub fn new(worker: Rc<Worker>, x: Box<Exchange>) -> Self {
        Self { worker, x: Some(x) }
    }

    /// The exchange, for whoever answers it, and so logs it.
    pub fn release(mut self) -> Box<Exchange> {
        self.x.take().expect("only this and the end take it")
    }
}

impl Deref for Held {
    type Target = Exchange;
    fn deref(&self) -> &Exchange {
        self.x.as_ref().expect("only the end takes it")
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Exchange {
        self.x.as_mut().expect("only the end takes it")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut x) = self.x.take() else { return };
        x.local_response = true;
        x.response.status = if std::thread::panicking() { PANICKED } else { CLIENT_LEFT };
        respond::finish(&self.worker, &mut x, Ending { broken: true, ..Ending::default() });
        self.worker.recycle(x);
    }
}
