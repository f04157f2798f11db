//! One Redis as one worker knows it: the connection, or that there is none.
//!
//! A background task keeps the connection up. Requests never connect: while Redis is down they are told at once.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{connect, script};
use crate::limit::{RedisSettings, StoreError};

/// Pauses between attempts to connect: doubled from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How many requests in a row may go unanswered before the link counts as down.
const FAILURES: u32 = 3;

/// See the module.
pub struct Link {
    settings: Arc<RedisSettings>,
    state: RefCell<State>,
    changed: Rc<Notify>,
    failures: Cell<u32>,
    pause: Cell<Duration>,
}

enum State {
    /// The first attempt is under way; requests may wait for it.
    Connecting,
    Up(MultiplexedConnection),
    Down,
}

impl Link {
    /// A link that connects in the background. Must be called within a `LocalSet`.
    pub fn start(settings: Arc<RedisSettings>) -> Rc<Self> {
        let link = Rc::new(Self {
            settings,
            state: RefCell::new(State::Connecting),
            changed: Rc::new(Notify::new()),
            failures: Cell::new(0),
            pause: Cell::new(FIRST_PAUSE),
        });
        tokio::task::spawn_local(keep_up(Rc::downgrade(&link)));
        link
    }

    /// How long a request may wait.
    pub fn max_wait(&self) -> Duration {
        self.settings.max_wait.min(self.settings.timeout)
    }

    /// The connection; waits for the first one until `deadline`.
    pub async fn connection(&self, deadline: Instant) -> Result<MultiplexedConnection, StoreError> {
        loop {
            let changed = self.changed.notified();
            match &*self.state.borrow() {
                State::Up(connection) => return Ok(connection.clone()),
                State::Down => return Err(StoreError::Down),
                State::Connecting => {}
            }
            if timeout_at(deadline, changed).await.is_err() {
                self.set(State::Down);
                return Err(StoreError::Timeout);
            }
        }
    }

    /// A request was answered.
    pub fn succeeded(&self) {
        self.failures.set(0);
        self.pause.set(FIRST_PAUSE);
    }

    /// A request was not answered. Enough of them in a row, or a broken connection, mean that Redis is down.
    pub fn failed(&self, error: StoreError) {
        self.failures.set(self.failures.get() + 1);
        if error == StoreError::Broken || self.failures.get() >= FAILURES {
            self.failures.set(0);
            self.set(State::Down);
        }
    }

    fn set(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.changed.notify_waiters();
    }

    fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }
}

/// The background task must not keep waiting for a link that nobody holds.
impl Drop for Link {
    fn drop(&mut self) {
        self.changed.notify_waiters();
    }
}

/// Connects, waits until the connection is lost, and starts over; ends with the link.
async fn keep_up(link: Weak<Link>) {
    while let Some(this) = link.upgrade() {
        let (settings, started) = (Arc::clone(&this.settings), Instant::now());
        drop(this);
        let opened = timeout(settings.timeout.min(LAST_PAUSE), open(&settings)).await;
        let Some(this) = link.upgrade() else { return };
        let pause = this.pause.get();
        this.pause.set((pause * 2).min(LAST_PAUSE));
        match opened {
            Ok(Ok((connection, driver))) => {
                this.failures.set(0);
                this.set(State::Up(connection));
                let changed = Rc::clone(&this.changed);
                drop(this);
                drive(&link, &changed, driver).await;
            }
            Ok(Err(_)) | Err(_) => {
                this.set(State::Down);
                drop(this);
            }
        }
        sleep_until(started + pause).await;
    }
}

/// Drives the connection to its end, or until the link has given it up because Redis takes commands and answers none.
/// Dropping the driver closes it.
async fn drive(link: &Weak<Link>, changed: &Notify, mut driver: Driver) {
    while let Some(this) = link.upgrade()
        && this.is_up()
    {
        let change = changed.notified();
        drop(this);
        let lost = tokio::select! {
            () = &mut driver => true,
            () = change => false,
        };
        if lost && let Some(this) = link.upgrade() {
            this.set(State::Down);
        }
    }
}

type Driver = futures_util::future::LocalBoxFuture<'static, ()>;

/// Opens a connection and makes the script known, which also proves that Redis executes commands.
async fn open(settings: &RedisSettings) -> Result<(MultiplexedConnection, Driver), redis::RedisError> {
    let (mut connection, mut driver) = connect::open(settings).await?;
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg(script::SOURCE);
    tokio::select! {
        answer = connection.send_packed_command(&load) => {
            answer?.extract_error()?;
            Ok((connection, driver))
        }
        () = &mut driver => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
    }
}
