//! One request at a time: an HTTP/1.1 connection, or a stream of an HTTP/2 connection.
//!
//! A slot takes the next request of the common schedule, waits until it is due, sends it, and counts how it ended.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2;
use tokio::time::Sleep;

use crate::connection::{Body, Driver, Opened, Sender, drive, failure};
use crate::plan::Share;
use crate::tally::{End, Failure, Sample, ns};
use crate::template::{consumer_number, target_number};
use crate::worker::{InFlight, Worker};

/// A connection that several slots share.
pub struct H2Group(tokio::sync::Mutex<Option<http2::SendRequest<Body>>>);

impl H2Group {
    /// A connection that is not open yet.
    pub fn new() -> Rc<Self> {
        Rc::new(Self(tokio::sync::Mutex::new(None)))
    }
}

/// Tells that a limit is nearly used up.
const WARNING: &str = "x-ratelimit-warning";
/// Where connections are refused, a closed loop must not spin.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// A request that certainly was not sent is tried so often.
const ATTEMPTS: usize = 3;

/// See the module's documentation.
pub struct Slot {
    worker: Rc<Worker>,
    index: usize,
    sender: Option<Sender>,
    driver: Option<Driver>,
    group: Option<Rc<H2Group>>,
    /// Goes off at the earliest time at which a request can time out. It is not set anew for every request.
    alarm: Pin<Box<Sleep>>,
}

impl Slot {
    /// A slot without a connection; with a group it is a stream of the group's.
    pub fn new(worker: Rc<Worker>, index: usize, group: Option<Rc<H2Group>>) -> Self {
        let alarm = Box::pin(tokio::time::sleep(worker.shared.plan.timeout));
        Self { worker, index, sender: None, driver: None, group, alarm }
    }

    /// The slot with its connection, if the server grants one.
    pub async fn opened(mut self) -> Self {
        // A failure here is met again, and counted, by the first request.
        let _ = self.ensure().await;
        self
    }

    /// Sends requests until there are no more.
    pub async fn run(mut self) {
        let worker = Rc::clone(&self.worker);
        let mut now = Instant::now();
        loop {
            let Some(job) = worker.shared.schedule.claim(worker.since_start(now)) else { return };
            let due = match job.due {
                None => now,
                Some(due) => {
                    let due = worker.start.get() + due;
                    self.wait(due).await;
                    due
                }
            };
            if job.due.is_some() && worker.is_over(worker.since_start(Instant::now())) {
                return;
            }
            let share = worker.templates.draw(job.phase, job.index);
            now = self.perform(share, due).await;
        }
    }

    /// Waits until a request is due. Only who really waits can be late.
    async fn wait(&mut self, due: Instant) {
        if Instant::now() >= due {
            return;
        }
        drive(&mut self.driver, self.worker.pacer.until(due)).await;
        let late = Instant::now().saturating_duration_since(due);
        self.worker.tally.borrow_mut().lag.record(ns(late));
    }

    /// One request from beginning to end; returns when it ended.
    async fn perform(&mut self, share: Share, due: Instant) -> Instant {
        let worker = Rc::clone(&self.worker);
        let mut sent = Instant::now();
        let mut outcome = Err(Failure::Reset);
        for _ in 0..ATTEMPTS {
            if let Err((failure, text)) = self.ensure().await {
                worker.tally.borrow_mut().example(failure, text);
                tokio::time::sleep(RETRY_PAUSE).await;
                outcome = Err(failure);
                break;
            }
            sent = Instant::now();
            let flight = InFlight {
                consumer: consumer_number(share),
                target: target_number(share),
                due: worker.since_start(due),
                sent: worker.since_start(sent),
            };
            worker.in_flight[self.index].set(Some(flight));
            match self.exchange(share, sent).await {
                Step::Done(done) => {
                    outcome = done;
                    break;
                }
                // The server had closed the idle connection; nothing of the request was sent.
                Step::NotSent => self.disconnect(),
            }
        }
        worker.in_flight[self.index].set(None);
        let received = Instant::now();
        if outcome.is_err() && self.group.is_none() {
            self.disconnect();
        }
        let (end, bytes) = match outcome {
            Ok((status, bytes)) => (End::Status(status), bytes),
            Err(failure) => (End::Failed(failure), 0),
        };
        worker.record(&Sample {
            consumer: consumer_number(share),
            target: target_number(share),
            due: worker.since_start(due),
            sent: worker.since_start(sent),
            received: worker.since_start(received),
            end,
            bytes,
        });
        received
    }

    fn disconnect(&mut self) {
        self.sender = None;
        self.driver = None;
    }

    /// Sees to an open connection.
    async fn ensure(&mut self) -> Result<(), (Failure, String)> {
        if self.sender.as_ref().is_some_and(|s| !s.is_closed()) {
            return Ok(());
        }
        self.disconnect();
        let Some(group) = self.group.clone() else {
            let opened = self.open().await?;
            self.sender = Some(opened.sender);
            self.driver = opened.driver;
            return Ok(());
        };
        let mut shared = group.0.lock().await;
        let usable = shared.as_ref().filter(|s| !s.is_closed()).cloned();
        let sender = match usable {
            Some(sender) => sender,
            None => match self.open().await?.sender {
                Sender::H2(sender) => shared.insert(sender).clone(),
                other @ Sender::H1(_) => {
                    self.sender = Some(other);
                    return Ok(());
                }
            },
        };
        self.sender = Some(Sender::H2(sender));
        Ok(())
    }

    async fn open(&self) -> Result<Opened, (Failure, String)> {
        let timeout = self.worker.shared.plan.timeout;
        let opened = tokio::time::timeout(timeout, self.worker.connector.open()).await;
        let opened = opened.map_err(|_| (Failure::Connect, "no connection in time".to_owned()))??;
        let mut tally = self.worker.tally.borrow_mut();
        tally.connections.opened += 1;
        tally.connections.resumed += u64::from(opened.resumed);
        tally.connections.handshake.get_or_insert_default().record(ns(opened.took));
        Ok(opened)
    }

    /// Sends a request and reads its response to the end, within the time allowed.
    async fn exchange(&mut self, share: Share, sent: Instant) -> Step {
        let worker = Rc::clone(&self.worker);
        let deadline = sent + worker.shared.plan.timeout;
        let Self { sender: Some(sender), driver, alarm, .. } = self else { return Step::NotSent };
        let talk = async {
            if sender.ready().await.is_err() {
                return Step::NotSent;
            }
            let response = match sender.send(worker.templates.request(share)).await {
                Ok(response) => response,
                Err(error) if error.is_canceled() => return Step::NotSent,
                Err(error) => {
                    worker.tally.borrow_mut().example(failure(&error), error.to_string());
                    return Step::Done(Err(failure(&error)));
                }
            };
            let status = response.status().as_u16();
            if response.headers().contains_key(WARNING) {
                worker.tally.borrow_mut().warned += 1;
            }
            Step::Done(read(response.into_body()).await.map(|bytes| (status, bytes)))
        };
        let mut talk = pin!(drive(driver, talk));
        poll_fn(|cx| {
            if let Poll::Ready(step) = talk.as_mut().poll(cx) {
                return Poll::Ready(step);
            }
            while alarm.as_mut().poll(cx).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(Step::Done(Err(Failure::Timeout)));
                }
                alarm.as_mut().reset(deadline.into());
            }
            Poll::Pending
        })
        .await
    }
}

enum Step {
    /// Status and bytes of the body, or what went wrong.
    Done(Result<(u16, u64), Failure>),
    /// The connection was closed before anything was sent.
    NotSent,
}

/// Reads a body to its end and counts its bytes.
async fn read(mut body: Incoming) -> Result<u64, Failure> {
    let mut bytes = 0;
    while !body.is_end_stream() {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => break,
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |d| d.len() as u64),
            Some(Err(_)) => return Err(Failure::Body),
        }
    }
    Ok(bytes)
}
