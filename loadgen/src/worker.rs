//! One thread of the generator: a single-threaded runtime and the worker's share of the connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};

use crate::connection::Connector;
use crate::pacer::Pacer;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::slot::{H2Group, Slot};
use crate::tally::{Class, End, Failure, Sample, Tally};
use crate::template::Templates;

/// What all workers of a run share.
pub struct Shared {
    pub plan: Plan,
    pub schedule: Schedule,
    /// Set to end the run early.
    pub stop: Arc<AtomicBool>,
    /// Counts for the progress line, one block a worker.
    pub live: Vec<Live>,
    /// Workers wait here for each other before the first request.
    pub ready: Barrier,
    pub start: OnceLock<Instant>,
}

/// Counts by class. Only their worker writes them; a cache line pair of their own keeps workers apart.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live([AtomicU64; Class::ALL.len()]);

impl Live {
    /// Counts one. Not an atomic addition: there is only one writer.
    pub fn count(&self, class: Class) {
        let counter = &self.0[class as usize];
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The count of a class.
    pub fn of(&self, class: Class) -> u64 {
        self.0[class as usize].load(Ordering::Relaxed)
    }
}

/// What is left after the end of the schedule for requests that were due but waited for a connection.
const BACKLOG_GRACE: Duration = Duration::from_secs(1);
/// How often a worker looks whether it shall stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// A request that is on its way. Times are since the start of the run.
#[derive(Clone, Copy)]
pub struct InFlight {
    pub consumer: u32,
    pub target: u16,
    pub due: Duration,
    pub sent: Duration,
}

/// What the slots of a worker share.
pub struct Worker {
    pub shared: Arc<Shared>,
    pub number: usize,
    pub connector: Connector,
    pub pacer: Rc<Pacer>,
    pub templates: Templates,
    pub tally: RefCell<Tally>,
    /// By slot.
    pub in_flight: Vec<Cell<Option<InFlight>>>,
    pub start: Cell<Instant>,
}

impl Worker {
    /// Time since the start of the run.
    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start.get())
    }

    /// Whether it is too late to send what is still waiting.
    pub fn is_over(&self, elapsed: Duration) -> bool {
        self.shared.schedule.end().is_some_and(|end| elapsed > end + BACKLOG_GRACE)
    }

    /// Counts a request that ended.
    pub fn record(&self, sample: &Sample) {
        self.tally.borrow_mut().record(sample);
        self.shared.live[self.number].count(sample.end.class());
    }
}

/// Runs worker `number` with `connections` of its own to the end of the run.
pub fn run(
    shared: &Arc<Shared>,
    number: usize,
    connections: usize,
    connector: Connector,
) -> std::io::Result<Tally> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // Passed on every path, or the other workers would wait for ever.
            meet(shared);
            return Err(error);
        }
    };
    let slots = connections * shared.plan.streams;
    let worker = Rc::new(Worker {
        shared: Arc::clone(shared),
        number,
        connector,
        pacer: Pacer::new(),
        templates: Templates::new(&shared.plan),
        tally: RefCell::new(Tally::new(!shared.plan.limits.is_empty()).refused_by(&shared.plan.refusals)),
        in_flight: (0..slots).map(|_| Cell::new(None)).collect(),
        start: Cell::new(Instant::now()),
    });
    LocalSet::new().block_on(&runtime, work(&worker, connections));
    let tally = worker.tally.replace(Tally::new(false));
    Ok(tally)
}

async fn work(worker: &Rc<Worker>, connections: usize) {
    let pacer = Rc::clone(&worker.pacer);
    let pacing = tokio::task::spawn_local(async move { pacer.tick().await });
    let slots = open_all(worker, connections).await;
    worker.start.set(meet(&worker.shared));
    let cpu = thread_cpu();

    let mut running = JoinSet::new();
    for slot in slots {
        running.spawn_local(slot.run());
    }
    tokio::select! {
        () = async { while running.join_next().await.is_some() {} } => {}
        () = end_of_run(worker) => {}
    }
    running.abort_all();
    while running.join_next().await.is_some() {}
    pacing.abort();
    worker.tally.borrow_mut().cpu = thread_cpu().saturating_sub(cpu);
    let now = worker.since_start(Instant::now());
    for left in worker.in_flight.iter().filter_map(Cell::take) {
        let InFlight { consumer, target, due, sent } = left;
        let end = End::Failed(Failure::Unresolved);
        worker.record(&Sample { consumer, target, due, sent, received: now, end, bytes: 0 });
    }
}

/// All slots, their connections open as far as the server lets them: the run shall measure requests, not its own start.
async fn open_all(worker: &Rc<Worker>, connections: usize) -> Vec<Slot> {
    let streams = worker.shared.plan.streams;
    let mut opening = JoinSet::new();
    for connection in 0..connections {
        let group = worker.shared.plan.http2.then(H2Group::new);
        for stream in 0..streams {
            let slot = Slot::new(Rc::clone(worker), connection * streams + stream, group.clone());
            opening.spawn_local(slot.opened());
        }
    }
    let mut slots = Vec::with_capacity(connections * streams);
    while let Some(slot) = opening.join_next().await {
        slots.extend(slot);
    }
    slots
}

/// Waits for the other workers and returns the start that is common to all.
fn meet(shared: &Shared) -> Instant {
    shared.ready.wait();
    *shared.start.get_or_init(Instant::now)
}

/// Returns when nothing is worth waiting for any more.
async fn end_of_run(worker: &Worker) {
    let longest = worker.shared.schedule.end().map(|end| end + BACKLOG_GRACE + worker.shared.plan.timeout);
    loop {
        tokio::time::sleep(STOP_CHECK).await;
        let elapsed = worker.since_start(Instant::now());
        if worker.shared.stop.load(Ordering::Relaxed) || longest.is_some_and(|l| elapsed > l) {
            return;
        }
    }
}

/// Processor time that this thread has used.
#[cfg(target_os = "linux")]
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Unknown elsewhere.
#[cfg(not(target_os = "linux"))]
fn thread_cpu() -> Duration {
    Duration::ZERO
}
