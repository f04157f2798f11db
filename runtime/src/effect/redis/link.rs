//! One Redis server as one worker knows it: the connection, or that there is none.
//!
//! What requests ask in one turn of the event loop goes out as one pipeline with one deadline. A pipeline that is not
//! answered in time opens the circuit: from then on requests are told at once that Redis is down, and a single probe at a
//! time, after a pause, finds out when it is quick enough again. Requests never connect.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Fuse, FusedFuture as _, FutureExt as _, LocalBoxFuture};
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::backoff::Backoff;
use super::connect::{self, Place};
use crate::limit::{RedisSettings, StoreError};

/// How many questions may wait to be written, which happens only before the first connection stands.
const QUEUE: usize = 8192;

/// See the module.
pub struct Link {
    shared: Rc<Shared>,
}

struct Shared {
    settings: Arc<RedisSettings>,
    place: Place,
    state: RefCell<State>,
    queue: RefCell<Vec<Job>>,
    /// The task has something to do: questions came, or the link is no longer held.
    work: Notify,
    /// The state changed.
    changed: Notify,
    closed: Cell<bool>,
}

enum State {
    /// The first attempt is under way; requests may wait for it.
    Connecting,
    Up(MultiplexedConnection),
    /// Not connected, or connected and too slow.
    Down,
}

/// A question and who asked it.
struct Job {
    cmd: Cmd,
    reply: oneshot::Sender<Result<Value, StoreError>>,
}

impl Link {
    /// A link that connects in the background. Must be called within a `LocalSet`.
    pub fn start(settings: Arc<RedisSettings>, place: Place) -> Rc<Self> {
        let shared = Rc::new(Shared {
            settings,
            place,
            state: RefCell::new(State::Connecting),
            queue: RefCell::default(),
            work: Notify::new(),
            changed: Notify::new(),
            closed: Cell::new(false),
        });
        tokio::task::spawn_local(keep_up(Rc::clone(&shared)));
        Rc::new(Self { shared })
    }

    /// Asks, with what others ask in the same turn. Errors of the server are values. Waits for `max_wait` at most, which
    /// ends at `deadline`.
    pub async fn ask(&self, cmd: Cmd, deadline: Instant) -> Result<Value, StoreError> {
        let (reply, answer) = oneshot::channel();
        let connecting = match &*self.shared.state.borrow() {
            State::Connecting => true,
            State::Up(_) => false,
            State::Down => return Err(StoreError::Down),
        };
        {
            let mut queue = self.shared.queue.borrow_mut();
            if queue.len() >= QUEUE {
                return Err(StoreError::Timeout);
            }
            queue.push(Job { cmd, reply });
            if queue.len() == 1 {
                self.shared.work.notify_one();
            }
        }
        // Once connected, the pipeline's deadline is that of all its questions: they came in the same turn.
        let answer = match connecting {
            true => timeout_at(deadline, answer).await.map_err(|_| StoreError::Timeout)?,
            false => answer.await,
        };
        answer.unwrap_or(Err(StoreError::Broken))
    }

    /// Asks apart from everyone else, by a deadline of its own: to follow a redirection, or to try again.
    pub async fn ask_alone(&self, cmds: &Pipeline, deadline: Instant) -> Result<Value, StoreError> {
        let mut connection =
            timeout_at(deadline, self.connection()).await.map_err(|_| StoreError::Timeout)??;
        let count = cmds.len();
        match timeout_at(deadline, connection.send_packed_commands(cmds, 0, count)).await {
            Err(_) => Err(StoreError::Timeout),
            Ok(Err(_)) => Err(StoreError::Broken),
            Ok(Ok(mut values)) => values.pop().ok_or(StoreError::Broken),
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        loop {
            let changed = self.shared.changed.notified();
            match &*self.shared.state.borrow() {
                State::Up(connection) => return Ok(connection.clone()),
                State::Down => return Err(StoreError::Down),
                State::Connecting => {}
            }
            changed.await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closed.set(true);
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn set(&self, state: State) {
        if matches!(state, State::Down) {
            for job in self.queue.borrow_mut().drain(..) {
                let _ = job.reply.send(Err(StoreError::Down));
            }
        }
        *self.state.borrow_mut() = state;
        self.changed.notify_waiters();
    }

    /// Ends when the link is no longer held; a question may or may not have come meanwhile.
    async fn closed(&self) {
        while !self.closed.get() {
            self.work.notified().await;
        }
    }
}

/// Connects, serves until the connection is lost, and starts over; ends with the link.
async fn keep_up(shared: Rc<Shared>) {
    let backoff = Backoff::new();
    while !shared.closed.get() {
        let opened = timeout(shared.settings.timeout, connect::open(&shared.settings, &shared.place)).await;
        if let Ok(Ok((connection, driver))) = opened {
            serve(&shared, connection, driver, &backoff).await;
        }
        shared.set(State::Down);
        backoff.down(Instant::now());
        tokio::select! {
            () = backoff.wait() => {}
            () = shared.closed() => return,
        }
    }
}

/// What became of a pipeline.
enum End {
    Answered,
    /// Not in time.
    Late,
    /// The server answers that it cannot serve: it loads its data, runs a script that does not end, or was demoted.
    Unfit,
    Broken,
}

/// Serves requests over a connection until it is lost or given up.
async fn serve(
    shared: &Shared,
    connection: MultiplexedConnection,
    mut driver: LocalBoxFuture<'static, ()>,
    backoff: &Backoff,
) {
    let up = || {
        backoff.up(Instant::now());
        shared.set(State::Up(connection.clone()));
        if !shared.queue.borrow().is_empty() {
            shared.work.notify_one();
        }
    };
    up();
    let mut pipelines = FuturesUnordered::new();
    let mut probe = std::pin::pin!(Fuse::terminated());
    while !shared.closed.get() {
        tokio::select! {
            biased;
            // The driver reads first, so that a stall of this process is not taken for one of the server.
            () = &mut driver => return,
            Some(end) = pipelines.next(), if !pipelines.is_empty() => match end {
                End::Answered => {}
                End::Broken => return,
                End::Late | End::Unfit if !probe.is_terminated() => {}
                End::Unfit if shared.place.may_move() => return,
                End::Late | End::Unfit => {
                    shared.set(State::Down);
                    backoff.down(Instant::now());
                    probe.set(recovered(&shared.settings, connection.clone(), backoff).fuse());
                }
            },
            alive = &mut probe, if !probe.is_terminated() => match alive {
                true => up(),
                false => return,
            },
            () = shared.work.notified() => {
                let jobs = std::mem::take(&mut *shared.queue.borrow_mut());
                if !jobs.is_empty() {
                    pipelines.push(run(connection.clone(), jobs, shared.settings.max_wait()));
                }
            }
        }
    }
}

/// Writes the questions in one go and hands out the answers.
async fn run(mut connection: MultiplexedConnection, jobs: Vec<Job>, max_wait: Duration) -> End {
    let mut pipeline = Pipeline::with_capacity(jobs.len());
    let mut waiting = Vec::with_capacity(jobs.len());
    for Job { cmd, reply } in jobs {
        pipeline.add_command(cmd);
        waiting.push(reply);
    }
    let deadline = Instant::now() + max_wait;
    let mut asked = std::pin::pin!(connection.send_packed_commands(&pipeline, 0, waiting.len()));
    let answers = match timeout_at(deadline, asked.as_mut()).await {
        Ok(answers) => answers,
        Err(_) => {
            // The answer may be here already, if it was this thread that was held up: let the driver read once.
            tokio::task::yield_now().await;
            match asked.now_or_never() {
                Some(answers) => answers,
                None => {
                    waiting.into_iter().for_each(|reply| drop(reply.send(Err(StoreError::Timeout))));
                    return End::Late;
                }
            }
        }
    };
    let Ok(answers) = answers else { return End::Broken };
    let unfit = answers.iter().any(|a| matches!(a, Value::ServerError(e) if is_unfit(e.code())));
    for (reply, answer) in waiting.into_iter().zip(answers) {
        let _ = reply.send(Ok(answer));
    }
    if unfit { End::Unfit } else { End::Answered }
}

fn is_unfit(code: &str) -> bool {
    matches!(code, "LOADING" | "BUSY" | "MASTERDOWN" | "READONLY" | "NOREPLICAS")
}

/// Asks after pauses, one probe at a time, until an answer comes within the time that a request may wait. False if the
/// server gives no answer at all, so that the connection is better made anew.
async fn recovered(
    settings: &RedisSettings,
    mut connection: MultiplexedConnection,
    backoff: &Backoff,
) -> bool {
    let ping = redis::cmd("PING");
    loop {
        backoff.wait().await;
        let asked = Instant::now();
        match timeout(settings.timeout, connection.send_packed_command(&ping)).await {
            Ok(Ok(Value::ServerError(_))) => {}
            Ok(Ok(_)) if asked.elapsed() <= settings.max_wait() => return true,
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}
