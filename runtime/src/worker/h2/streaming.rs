//! Answers whose body goes to the client as it comes.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Handle;
use crate::exchange::Exchange;
use crate::http2::Code;
use crate::message::Fields;
use crate::policy::representation::is_of_bytes;
use crate::worker::context::Worker;
use crate::worker::deadline::Watch;
use crate::worker::filtering::{Filtering, Pieces};
use crate::worker::forward::{Failure, Forward};
use crate::worker::h2::H2Body;
use crate::worker::relay::service_read_timeout;
use crate::worker::respond::{self, Ending};

/// How the client is told that an answer breaks off.
pub enum Broken {
    Reset(Code),
    /// In the words of what it speaks.
    Trailers(Fields),
}

/// An upstream's answer.
pub trait Source: Pieces {
    /// Whether `n` bytes, which are here, are the last, and nothing comes after them.
    fn is_last(&self, n: usize) -> bool;
    /// What came after the body.
    fn take_trailers(&mut self) -> Option<Fields>;
    /// Moves the request on while the client takes nothing of the answer.
    ///
    /// # Errors
    /// The exchange has failed.
    fn poll_request(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Result<(), Failure>;
    /// Bytes of request body sent on.
    fn request_bytes(&self) -> u64;
    /// What a failure means for the client.
    fn broken(&mut self, x: &mut Exchange, failure: Failure) -> Broken;
    /// The exchange is over.
    fn end(self, worker: &Worker);
}

impl Source for Box<Forward<H2Body>> {
    fn is_last(&self, n: usize) -> bool {
        self.ends_with(n)
    }

    fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers()
    }

    fn poll_request(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Result<(), Failure> {
        self.pump_on(cx, watch)
    }

    fn request_bytes(&self) -> u64 {
        Forward::request_bytes(self)
    }

    fn broken(&mut self, _: &mut Exchange, _: Failure) -> Broken {
        Broken::Reset(Code::INTERNAL_ERROR)
    }

    fn end(self, worker: &Worker) {
        if let (_, Some(conn)) = self.finish() {
            worker.pool.put(conn);
        }
    }
}

impl Pieces for Box<Forward<H2Body>> {
    fn poll_data(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Result<usize, Failure>> {
        Forward::poll_data(self, cx, watch)
    }

    fn data(&self) -> &[u8] {
        Forward::data(self)
    }

    fn consume_data(&mut self, n: usize) {
        Forward::consume_data(self, n);
    }
}

/// An answer under way. One that is dropped was left by its client.
struct Streaming<S: Source> {
    worker: Rc<Worker>,
    handle: Handle,
    x: Option<Box<Exchange>>,
    from: Option<S>,
    filter: Option<Filtering>,
    /// Of what the filter has given out: how much is sent.
    filtered: usize,
    watch: Rc<Watch>,
    sent: u64,
    /// The client takes nothing at the moment, which it may do for so long.
    blocked: bool,
    patience: Duration,
    read_timeout: Duration,
}

impl<S: Source> Streaming<S> {
    fn end(&mut self, broken: bool) {
        let (Some(from), Some(mut x)) = (self.from.take(), self.x.take()) else { return };
        let ending = Ending { request_bytes: from.request_bytes(), response_bytes: self.sent, broken };
        respond::finish(&self.worker, &mut x, ending);
        from.end(&self.worker);
        self.worker.recycle(x);
    }

    fn fail(&mut self, failure: Failure) {
        let broken = match (&mut self.from, &mut self.x) {
            (Some(from), Some(x)) => from.broken(x, failure),
            _ => Broken::Reset(Code::INTERNAL_ERROR),
        };
        match broken {
            Broken::Reset(code) => self.handle.reset(code),
            // A stream that is gone needs none.
            Broken::Trailers(fields) => drop(self.handle.trailers(&fields)),
        }
        self.end(true);
    }

    /// Sends what there is; ready when all is said.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.from.is_some() {
            match std::task::ready!(self.poll_some(cx)) {
                Ok(true) => self.end(false),
                Ok(false) => {}
                Err(Some(failure)) => self.fail(failure),
                // The client has gone.
                Err(None) => self.end(true),
            }
        }
        Poll::Ready(())
    }

    /// Sends one piece; true at the end.
    fn poll_some(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Option<Failure>>> {
        let room = match self.handle.poll_room(cx) {
            Poll::Ready(Ok(room)) => room,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(None)),
            Poll::Pending => return self.poll_blocked(cx),
        };
        if std::mem::take(&mut self.blocked) {
            self.watch.arm(self.read_timeout);
        }
        let Some(from) = &mut self.from else { return Poll::Ready(Err(None)) };
        if let Some(filter) = &mut self.filter {
            if self.filtered == filter.out().len() && !filter.is_over() {
                self.filtered = 0;
                std::task::ready!(filter.poll(from, cx, &self.watch)).map_err(Some)?;
            }
            let piece = &filter.out()[self.filtered..];
            let n = piece.len().min(room);
            if n > 0 {
                self.filtered += n;
                self.sent += n as u64;
                return Poll::Ready(self.handle.data(&piece[..n], false).map(|()| false).map_err(|_| None));
            }
            if !filter.is_over() {
                return Poll::Ready(Ok(false));
            }
            let trailers = from.take_trailers().map(without_digests);
            return Poll::Ready(self.close(trailers));
        }
        let n = std::task::ready!(from.poll_data(cx, &self.watch)).map_err(Some)?;
        if n == 0 {
            let trailers = from.take_trailers();
            return Poll::Ready(self.close(trailers));
        }
        let n = n.min(room);
        let last = from.is_last(n);
        if self.handle.data(&from.data()[..n], last).is_err() {
            return Poll::Ready(Err(None));
        }
        from.consume_data(n);
        self.sent += n as u64;
        if !last {
            self.watch.arm(self.read_timeout);
        }
        Poll::Ready(Ok(last))
    }

    fn close(&mut self, trailers: Option<Fields>) -> Result<bool, Option<Failure>> {
        let closed = match trailers {
            Some(trailers) => self.handle.trailers(&trailers),
            None => self.handle.data(&[], true),
        };
        closed.map(|()| true).map_err(|_| None)
    }

    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Option<Failure>>> {
        if !std::mem::replace(&mut self.blocked, true) {
            self.watch.arm(self.patience);
        }
        if let Some(from) = &mut self.from {
            from.poll_request(cx, &self.watch).map_err(Some)?;
        }
        match self.watch.poll_over(cx) {
            true => {
                self.handle.reset(Code::CANCEL);
                Poll::Ready(Err(None))
            }
            false => Poll::Pending,
        }
    }
}

impl<S: Source> Drop for Streaming<S> {
    fn drop(&mut self) {
        self.end(true);
    }
}

/// Trailers of a body that was changed, without what they say of the bytes that it had.
pub fn without_digests(mut trailers: Fields) -> Fields {
    trailers.retain(|_, name, _| !is_of_bytes(name));
    trailers
}

/// How an answer goes to the client.
pub struct Manner {
    pub filter: Option<Filtering>,
    /// What the head says of the body's length.
    pub length: Option<u64>,
    /// How long the client may take nothing.
    pub patience: Duration,
}

/// Sends an answer, whose head is in `x.response`, to its end.
pub async fn stream<S: Source>(
    worker: Rc<Worker>,
    handle: Handle,
    x: Box<Exchange>,
    from: S,
    watch: Rc<Watch>,
    manner: Manner,
) {
    let Manner { filter, length, patience } = manner;
    let read_timeout = service_read_timeout(&x);
    let sent = handle.head(x.response.status, &x.response.fields, length, false);
    let mut streaming = Streaming {
        worker,
        handle,
        x: Some(x),
        from: Some(from),
        filter,
        filtered: 0,
        watch,
        sent: 0,
        blocked: false,
        patience,
        read_timeout,
    };
    if sent.is_ok() {
        std::future::poll_fn(|cx| streaming.poll(cx)).await;
    }
}
