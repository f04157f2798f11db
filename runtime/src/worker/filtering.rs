//! An upstream's body on its way through a policy's filter.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::deadline::Watch;
use super::forward::{Failure, Forward};
use super::sender::SMALL;
use super::source::BodySource;
use crate::http1::Reject;
use crate::overload;
use crate::policy::filter::FilterError;
use crate::policy::{BodyError, BodyFilter};

/// How long an upstream may pause before what the filter holds is sent. Filters such as compressors do worse the more
/// often they are emptied, and bytes that are on their way already arrive sooner than this.
const IDLE: Duration = Duration::from_millis(5);

/// An answer's body as it comes.
pub trait Pieces {
    /// Waits for data: how much [`Pieces::data`] begins with; 0 at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Result<usize, Failure>>;
    /// The data that arrived.
    fn data(&self) -> &[u8];
    /// Uses up data.
    fn consume_data(&mut self, n: usize);
}

/// Reads a body whole, of at most `limit` bytes.
pub async fn collect(from: &mut impl Pieces, watch: &Watch, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    loop {
        let n = std::future::poll_fn(|cx| from.poll_data(cx, watch)).await?;
        if n == 0 {
            return Ok(all);
        }
        if all.len() + n > limit {
            return Err(Failure::Malformed(Reject::bad("the body is larger than a policy may hold")));
        }
        if overload::is_full() {
            return Err(Failure::Body(BodyError::NoRoom));
        }
        all.extend_from_slice(&from.data()[..n]);
        from.consume_data(n);
    }
}

impl<B: BodySource> Pieces for Forward<B> {
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

/// See the module.
pub struct Filtering {
    filter: Box<dyn BodyFilter>,
    out: Vec<u8>,
    /// The filter may hold something that was not given out.
    holds: bool,
    /// When the pause is too long; the timer is made only for bodies that pause.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    pausing: bool,
    over: bool,
}

impl Filtering {
    /// A body for which `filter` was made.
    pub fn new(filter: Box<dyn BodyFilter>) -> Self {
        Self { filter, out: Vec::new(), holds: false, pause: None, pausing: false, over: false }
    }

    /// Waits for more of the filtered body, which is then in [`Filtering::out`] until the next call; `false` at its end.
    pub fn poll(
        &mut self,
        from: &mut impl Pieces,
        cx: &mut Context<'_>,
        watch: &Watch,
    ) -> Poll<Result<bool, Failure>> {
        self.out.clear();
        while self.out.len() < SMALL && !self.over {
            match from.poll_data(cx, watch) {
                Poll::Ready(Ok(0)) => self.over = self.filter.finish(&mut self.out).map_err(broken)?,
                Poll::Ready(Ok(n)) => {
                    let piece = &from.data()[..n.min(SMALL)];
                    let taken = self.filter.push(piece, &mut self.out).map_err(broken)?;
                    from.consume_data(taken);
                    (self.holds, self.pausing) = (true, false);
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending if !self.holds => return Poll::Pending,
                Poll::Pending if !self.out.is_empty() => break,
                Poll::Pending => {
                    ready!(self.poll_pause(cx));
                    self.filter.flush(&mut self.out).map_err(broken)?;
                    self.holds = false;
                    if self.out.is_empty() {
                        return Poll::Pending;
                    }
                    break;
                }
            }
        }
        Poll::Ready(Ok(!self.out.is_empty()))
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE)));
        if !self.pausing {
            self.pausing = true;
            timer.set(tokio::time::sleep(IDLE));
        }
        ready!(timer.as_mut().poll(cx));
        self.pausing = false;
        Poll::Ready(())
    }

    /// What came of the last [`Filtering::poll`].
    pub fn out(&self) -> &[u8] {
        &self.out
    }

    /// Whether all of the filtered body was given out.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

fn broken(error: FilterError) -> Failure {
    Failure::Malformed(Reject::bad(error.0))
}
