//! The task of a connection: reads, runs the streams that are ready, writes, and minds the time.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::handle::{Handle, Shared};
use super::slots::Slots;
use super::stream;
use super::timing::{Timing, Verdict};
use crate::clock;
use crate::exchange::Client;
use crate::http1::Buffer;
use crate::http2::request::Meta;
use crate::http2::{Code, Config, Connection, Event, Key};
use crate::worker::context::Worker;
use crate::worker::deadline::{FRESH, Watch};
use crate::worker::io::Io;

/// Reads before what they brought is answered, and rounds of a turn before other connections have theirs.
const READS: u32 = 4;
const ROUNDS: u32 = 16;
/// Most streams at once, whatever the config says: each has a bit of its own.
const STREAMS_MAX: u32 = 100_000;
/// A header list is never promised more room than this.
const HEADER_LIST_MAX: usize = 64 * 1024;
/// Bytes of a client that is told of its error and does not stop, read away before the connection is closed.
const LINGER_BYTES: usize = 1024 * 1024;

/// A connection and all that it holds.
struct Driver {
    worker: Rc<Worker>,
    io: Io,
    input: Buffer,
    client: Client,
    shared: Rc<Shared>,
    slots: Slots,
    watch: Watch,
    timing: Timing,
    drained: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// What was written is still in the TLS stream.
    held: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The client was told of an error; what is written is written, nothing is read.
    Failed,
    /// Nobody is there.
    Dead,
}

/// Serves a connection, of which `before` was read, until it ends.
pub async fn serve(worker: Rc<Worker>, io: Io, before: Buffer, client: Client) {
    let mut driver = Box::new(Driver::new(worker, io, before, client));
    std::future::poll_fn(|cx| driver.poll(cx)).await;
    driver.end().await;
}

/// The end of accepting streams, once the worker drains.
async fn drained(worker: Rc<Worker>) {
    match worker.draining.get() {
        // The connection began while the worker drains: its first request is likely on its way.
        true => tokio::time::sleep(FRESH).await,
        false => worker.drain.notified().await,
    }
}

impl Driver {
    fn new(worker: Rc<Worker>, io: Io, before: Buffer, client: Client) -> Self {
        let snapshot = worker.snapshot();
        let (limits, timeouts) = (&snapshot.gateway.limits, &snapshot.gateway.timeouts);
        let config = Config {
            header_bytes: limits.header_bytes.min(HEADER_LIST_MAX),
            header_count: limits.header_count,
            uri: limits.uri,
            streams: limits.h2_streams.min(STREAMS_MAX),
            connect_protocol: snapshot.gateway.websocket_over_http2,
        };
        let timing = Timing::new(timeouts, clock::monotonic());
        let slots = Slots::new(config.streams as usize);
        let shared = Rc::new(Shared {
            connection: RefCell::new(Connection::new(config)),
            at_work: Cell::new(false),
            task: RefCell::new(None),
            watches: RefCell::default(),
        });
        let watch = worker.deadlines.watch();
        let drained = Some(Box::pin(drained(Rc::clone(&worker))) as Pin<Box<dyn Future<Output = ()>>>);
        drop(snapshot);
        let (held, state) = (false, State::Open);
        Self { worker, io, input: before, client, shared, slots, watch, timing, drained, held, state }
    }

    /// One turn.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.slots.begin(cx);
        let known = self.shared.task.borrow().as_ref().is_some_and(|t| t.will_wake(cx.waker()));
        if !known {
            *self.shared.task.borrow_mut() = Some(cx.waker().clone());
        }
        self.shared.at_work.set(true);
        let over = self.turn(cx);
        self.shared.at_work.set(false);
        over
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            let came = self.read(cx);
            let shared = &self.shared;
            self.slots.run(|slot| panicked(shared, slot));
            self.write(cx);
            if self.state == State::Dead || self.is_over() {
                return Poll::Ready(());
            }
            if came || self.slots.any() {
                continue;
            }
            if !self.mind_the_time(cx) {
                continue;
            }
            if self.slots.end() {
                self.rest();
                return Poll::Pending;
            }
            self.slots.begin(cx);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        let connection = self.shared.connection.borrow();
        let written = connection.pending().is_empty() && !self.held;
        written && (self.state == State::Failed || connection.is_over())
    }

    /// Takes what the client has sent; tells whether that was anything.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        if !self.input.is_empty() {
            // What was read before is looked at first.
            any = self.take_frames();
        }
        for _ in 0..READS {
            if self.state != State::Open || self.shared.connection.borrow().is_full() {
                return any;
            }
            match self.io.poll_read_into(cx, self.input.spare()) {
                Poll::Ready(Ok(0) | Err(_)) => self.state = State::Dead,
                Poll::Ready(Ok(n)) => {
                    self.input.filled(n);
                    any = true;
                    self.timing.came();
                    self.take_frames();
                }
                Poll::Pending => return any,
            }
        }
        any
    }

    /// Tells whether anything was made of what is there.
    fn take_frames(&mut self) -> bool {
        let before = self.input.len();
        self.lend_buffer();
        while self.state == State::Open {
            let event = self.shared.connection.borrow_mut().next(&mut self.input);
            match event {
                Ok(Some(Event::Request { key, meta })) => self.begin(key, meta),
                Ok(Some(Event::Gone { slot })) => self.slots.remove(slot),
                Ok(None) => break,
                Err(code) => self.fail(code),
            }
        }
        self.input.len() < before
    }

    fn begin(&mut self, key: Key, meta: Meta) {
        self.client.connection_requests += 1;
        let mut x = self.worker.exchange(&self.client);
        std::mem::swap(&mut self.shared.connection.borrow_mut().head, &mut x.request);
        let handle = Handle::new(Rc::clone(&self.shared), key);
        self.slots.insert(key.slot, Box::pin(stream::serve(Rc::clone(&self.worker), handle, x, meta)));
    }

    fn fail(&mut self, code: Code) {
        self.state = State::Failed;
        self.shared.connection.borrow_mut().fail(code);
        self.abandon();
    }

    /// Ends all streams. Tunnels end themselves, since only they know what they have moved.
    fn abandon(&mut self) {
        self.shared.connection.borrow_mut().abandon();
        let shared = &self.shared;
        self.slots.run(|slot| panicked(shared, slot));
        self.slots.clear();
    }

    /// Writes what there is to write.
    fn write(&mut self, cx: &mut Context<'_>) {
        loop {
            let mut connection = self.shared.connection.borrow_mut();
            if connection.pending().is_empty() {
                break;
            }
            match self.io.poll_write_from(cx, connection.pending()) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    connection.wrote(n);
                    self.held = true;
                    self.timing.went();
                }
                Poll::Ready(_) => {
                    self.state = State::Dead;
                    return;
                }
                Poll::Pending => {
                    self.timing.stuck();
                    return;
                }
            }
        }
        if self.held {
            match self.io.poll_flush_all(cx) {
                Poll::Ready(Ok(())) => {
                    self.held = false;
                    self.timing.went();
                }
                Poll::Ready(Err(_)) => self.state = State::Dead,
                Poll::Pending => self.timing.stuck(),
            }
        }
        let mut connection = self.shared.connection.borrow_mut();
        if connection.is_contended() {
            connection.share();
        }
    }

    /// Does what is due; true where nothing was, and the task is woken when something is.
    fn mind_the_time(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(drained) = &mut self.drained
            && drained.as_mut().poll(cx).is_ready()
        {
            self.drained = None;
            self.timing.announced();
            self.shared.connection.borrow_mut().announce_end();
            return false;
        }
        let mut connection = self.shared.connection.borrow_mut();
        match self.timing.look(&mut connection) {
            Verdict::Wait(at) => {
                self.watch.arm_from(at.from, at.after);
                drop(connection);
                !self.watch.poll_over(cx)
            }
            Verdict::Done => false,
            // A client that was told of an error is not told of another.
            Verdict::Fail(code) if self.state == State::Open => {
                drop(connection);
                self.fail(code);
                false
            }
            Verdict::Fail(_) | Verdict::Dead => {
                self.state = State::Dead;
                false
            }
        }
    }

    /// Gives back what an idle connection does not need.
    fn rest(&mut self) {
        let mut connection = self.shared.connection.borrow_mut();
        if connection.open() > 0 || !connection.pending().is_empty() || self.held {
            return;
        }
        self.input.release();
        if !connection.lacks_buffer() {
            give_buffer(connection.rest());
        }
        drop(connection);
        self.slots.rest();
        self.shared.watches.borrow_mut().clear();
    }

    fn lend_buffer(&self) {
        let mut connection = self.shared.connection.borrow_mut();
        if connection.lacks_buffer() {
            connection.lend(take_buffer());
        }
    }

    /// Ends the connection. Closing with unread bytes would reset it, and the client might never see why it ended.
    async fn end(&mut self) {
        self.abandon();
        if self.state == State::Dead {
            return;
        }
        self.watch.arm(std::time::Duration::from_secs(1));
        let mut left = LINGER_BYTES;
        let mut ended = false;
        std::future::poll_fn(|cx| {
            if !ended && self.io.poll_end(cx).is_ready() {
                ended = true;
            }
            loop {
                self.input.consume(self.input.len());
                match self.io.poll_read_into(cx, self.input.spare()) {
                    Poll::Ready(Ok(n)) if n > 0 && left > n => left -= n,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if self.watch.poll_over(cx) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}

/// A stream whose future has panicked is taken back; the others go on.
fn panicked(shared: &Shared, slot: u32) {
    shared.connection.borrow_mut().reset_slot(slot, Code::INTERNAL_ERROR);
}

thread_local! {
    /// Buffers for what goes out, of connections that rest.
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Most buffers kept, and the largest worth keeping.
const KEEP: usize = 64;
const KEEP_BYTES: usize = 64 * 1024;

fn take_buffer() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(4096))
}

fn give_buffer(buffer: Vec<u8>) {
    FREE.with_borrow_mut(|free| {
        if free.len() < KEEP && (1..=KEEP_BYTES).contains(&buffer.capacity()) {
            free.push(buffer);
        }
    });
}
