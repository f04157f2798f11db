//! A request's body on its way from an HTTP/2 client to an HTTP/2 upstream. The upstream's connection reads it, while
//! the exchange keeps a hand on it: to stop it, to count it, to send its beginning again.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::deadline::Watch;
use super::forward::Patience;
use super::h2::H2Body;
use super::source::BodySource as _;
use crate::http1::trailers::may_trail;
use crate::http1::write;
use crate::message::Fields;
use crate::policy::BodyError;

/// How much of a body's beginning is kept for a second attempt.
const KEEP: usize = 64 * 1024;
/// How much of a whole body is handed on at once: how fast the upstream takes it is seen between two pieces.
const PIECE: usize = 64 * 1024;

/// What the exchange and the connection share.
pub struct Source {
    state: RefCell<State>,
    /// Moved on with every piece: the upstream may be silent while the client sends.
    watch: Rc<Watch>,
    patience: Patience,
    turn: Cell<Turn>,
    /// Bytes at most, 0 for any number.
    limit: u64,
    length: Option<u64>,
    sent: Cell<u64>,
    over: Cell<bool>,
    fault: Cell<Option<BodyError>>,
}

/// Whose time runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The client's, who has not sent more.
    Client,
    /// The upstream's, which has not taken what is there.
    Taking,
    /// The upstream's, which has all.
    Answering,
}

struct State {
    feed: Feed,
    kept: Vec<Bytes>,
    /// The next piece of `kept` to be sent.
    at: usize,
    /// More was sent than is kept.
    lost: bool,
    waker: Option<Waker>,
}

/// Where more of a body comes from.
enum Feed {
    /// Nowhere: the whole body is in `kept`.
    Whole,
    /// The client, whose trailers, if there are any, were `told`.
    Client {
        body: H2Body,
        told: bool,
    },
    Pushed(Pushed),
}

/// What was pushed, beside its data.
#[derive(Default)]
struct Pushed {
    over: bool,
    trailers: Option<HeaderMap>,
    /// The trailers were sent.
    told: bool,
    fault: Option<BodyError>,
    /// Whoever pushes, who waits until the upstream has taken what is there.
    waker: Option<Waker>,
}

/// Where a body comes from.
pub enum Origin {
    /// A policy has read or made it.
    Whole(Bytes),
    Client(H2Body),
    /// Whoever has it pushes it piece by piece; its length, where that is known.
    Pushed(Option<u64>),
}

/// The half that a connection reads.
pub struct RequestBody(Rc<Source>);

impl Source {
    /// A body of at most `limit` bytes (0: any), whose progress moves `watch` on by what `patience` grants.
    pub fn new(origin: Origin, limit: u64, watch: Rc<Watch>, patience: Patience) -> Rc<Self> {
        let (feed, kept, length) = match origin {
            Origin::Whole(b) if b.is_empty() => (Feed::Whole, Vec::new(), Some(0)),
            Origin::Whole(b) => {
                let piece = |at| b.slice(at..b.len().min(at + PIECE));
                (Feed::Whole, (0..b.len()).step_by(PIECE).map(piece).collect(), Some(b.len() as u64))
            }
            Origin::Client(i) => {
                let n = i.length();
                (Feed::Client { body: i, told: false }, Vec::new(), n)
            }
            Origin::Pushed(n) => (Feed::Pushed(Pushed::default()), Vec::new(), n),
        };
        let state = RefCell::new(State { feed, kept, at: 0, lost: false, waker: None });
        Rc::new(Self {
            state,
            watch,
            patience,
            turn: Cell::new(Turn::Taking),
            limit,
            length,
            sent: Cell::new(0),
            over: Cell::new(false),
            fault: Cell::new(None),
        })
    }

    /// The body from its beginning, if that is still there.
    pub fn body(self: &Rc<Self>) -> Option<RequestBody> {
        let mut state = self.state.borrow_mut();
        if state.lost {
            return None;
        }
        state.at = 0;
        if let Feed::Pushed(pushed) = &mut state.feed {
            pushed.told = false;
        }
        self.sent.set(0);
        Some(RequestBody(Rc::clone(self)))
    }

    /// Whether the body can be had from its beginning.
    pub fn is_whole(&self) -> bool {
        !self.state.borrow().lost
    }

    /// Bytes sent on.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// How long whoever is to go on with the request may take.
    pub fn patience(&self) -> Duration {
        match self.turn.get() {
            Turn::Client => self.patience.body,
            Turn::Taking => self.patience.write,
            Turn::Answering => self.patience.upstream,
        }
    }

    /// Whether the client is to go on with the request.
    pub fn awaits_client(&self) -> bool {
        self.turn.get() == Turn::Client
    }

    fn give_turn(&self, turn: Turn) {
        if self.turn.replace(turn) != turn || turn == Turn::Taking {
            self.watch.arm(self.patience());
        }
    }

    /// What went wrong on the client's side.
    pub fn fault(&self) -> Option<BodyError> {
        self.fault.get()
    }

    /// The exchange is over: nobody wants the rest.
    pub fn end(&self) {
        self.over.set(true);
        self.wake();
    }

    /// Whether more is to be pushed: the upstream has taken what there was. Else the caller is woken when it is time.
    pub fn wants(&self, cx: &Context<'_>) -> bool {
        let state = &mut *self.state.borrow_mut();
        let Feed::Pushed(pushed) = &mut state.feed else { return false };
        if self.over.get() || pushed.over || pushed.fault.is_some() {
            return false;
        }
        if state.at < state.kept.len() {
            pushed.waker = Some(cx.waker().clone());
            return false;
        }
        true
    }

    /// More of the body.
    pub fn push(&self, piece: Bytes) {
        self.state.borrow_mut().kept.push(piece);
        self.wake();
    }

    /// The body's end, and what comes after it.
    pub fn finish(&self, trailers: Option<HeaderMap>) {
        if let Feed::Pushed(pushed) = &mut self.state.borrow_mut().feed {
            (pushed.over, pushed.trailers) = (true, trailers);
        }
        self.wake();
    }

    /// The body will not come to its end.
    pub fn break_off(&self, fault: BodyError) {
        if let Feed::Pushed(pushed) = &mut self.state.borrow_mut().feed {
            pushed.fault = Some(fault);
        }
        self.wake();
    }

    fn wake(&self) {
        let waker = self.state.borrow_mut().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The beginning will not be needed again.
    pub fn forget(&self) {
        let mut state = self.state.borrow_mut();
        let at = state.at;
        if !matches!(state.feed, Feed::Whole) {
            state.lost = true;
            state.kept.drain(..at);
            state.at = 0;
        }
    }

    fn fail(&self, fault: BodyError) -> Fault {
        self.fault.set(Some(fault));
        Fault(h2::Reason::CANCEL.into())
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.over.get() {
            return Poll::Ready(Some(Err(Fault(h2::Reason::NO_ERROR.into()))));
        }
        let state = &mut *self.state.borrow_mut();
        if let Some(piece) = state.kept.get(state.at) {
            let piece = piece.clone();
            state.at += 1;
            let last = state.at == state.kept.len() && state.feed.is_over();
            self.give_turn(if last { Turn::Answering } else { Turn::Taking });
            self.sent.set(self.sent.get() + piece.len() as u64);
            if let Feed::Pushed(pushed) = &mut state.feed {
                if let Some(waker) = pushed.waker.take() {
                    waker.wake();
                }
                state.keep_at_most(KEEP, self.sent.get());
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let (body, told) = match &mut state.feed {
            Feed::Client { body, told } => (body, told),
            Feed::Pushed(pushed) if !pushed.over => {
                if let Some(fault) = pushed.fault {
                    return Poll::Ready(Some(Err(self.fail(fault))));
                }
                self.give_turn(Turn::Client);
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Feed::Pushed(Pushed { trailers, told, .. }) => {
                self.give_turn(Turn::Answering);
                let trailers = if std::mem::replace(told, true) { None } else { trailers.clone() };
                return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
            }
            Feed::Whole => {
                self.give_turn(Turn::Answering);
                return Poll::Ready(None);
            }
        };
        let data = match body.poll_piece(cx) {
            Poll::Ready(Ok(Some(data))) => data,
            Poll::Ready(Err(e)) => return Poll::Ready(Some(Err(self.fail(e)))),
            Poll::Ready(Ok(None)) => {
                let trailers = body.trailers().filter(|_| !std::mem::replace(told, true));
                // Trailers cannot be asked for again.
                state.lost |= trailers.is_some();
                self.give_turn(Turn::Answering);
                return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(trailers_of(&t)))));
            }
            Poll::Pending => {
                self.give_turn(Turn::Client);
                if !state.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    state.waker = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
        };
        self.give_turn(if body.is_over() { Turn::Answering } else { Turn::Taking });
        let sent = self.sent.get() + data.len() as u64;
        if self.limit > 0 && sent > self.limit {
            return Poll::Ready(Some(Err(self.fail(BodyError::TooLarge))));
        }
        self.sent.set(sent);
        state.kept.push(data.clone());
        state.at = state.kept.len();
        state.keep_at_most(KEEP, sent);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl State {
    /// Lets go of what was sent where that is more than is to be kept for a second attempt.
    fn keep_at_most(&mut self, most: usize, sent: u64) {
        if self.lost || sent > most as u64 {
            self.lost = true;
            self.kept.drain(..self.at);
            self.at = 0;
        }
    }
}

impl Feed {
    /// Whether nothing comes beyond what is kept.
    fn is_over(&self) -> bool {
        match self {
            Self::Whole => true,
            Self::Client { body, told } => body.is_over() && (*told || !body.has_trailers()),
            Self::Pushed(pushed) => pushed.over && pushed.trailers.is_none(),
        }
    }
}

/// Fields as trailers.
pub fn trailers_of(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (tag, name, value) in fields.iter_tagged() {
        if !may_trail(tag, name) {
            continue;
        }
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(name), http::HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// The fields of a head as HTTP/2 takes them, without those of one connection.
pub fn headers_of(fields: &Fields, map: &mut HeaderMap) {
    for (tag, name, value) in fields.iter_tagged() {
        if write::hop_by_hop(tag) {
            continue;
        }
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(name), http::HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
}

/// Why the body ends early; its cause is what the upstream's stream is reset with.
#[derive(Debug)]
pub struct Fault(h2::Error);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request's body ended early")
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.0.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state.borrow();
        state.at >= state.kept.len() && state.feed.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.length {
            Some(n) => SizeHint::with_exact(n.saturating_sub(self.0.sent.get())),
            None => SizeHint::default(),
        }
    }
}
