//! One stream: what it may still do (RFC 9113 5.1), what came on it, and who waits for it.

use std::collections::VecDeque;
use std::task::Waker;

use super::flow::{ReceiveWindow, SendWindow};
use crate::message::Fields;

/// What a stream's peer may send before the gateway has used any of it.
pub const WINDOW: u32 = 64 * 1024;

/// Names a stream: its place, and its number, since places are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub slot: u32,
    pub id: u32,
}

/// A stream that is not closed.
#[derive(Debug)]
pub struct Stream {
    /// 0 where the place is free.
    pub id: u32,
    /// Of the request's body: what came and was not taken.
    pub body: Vec<u8>,
    /// Of its stated length: what is still to come.
    pub length: Option<u64>,
    pub trailers: Fields,
    /// The client has said all; the gateway has.
    pub remote_closed: bool,
    pub local_closed: bool,
    pub receive: ReceiveWindow,
    pub send: SendWindow,
    /// Who waits for more of the body, and who for room to send.
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
    /// Waits for room that all streams share; and may take some of it.
    pub queued: bool,
    pub granted: bool,
    /// Carries bytes both ways, and tells its end itself.
    pub tunnel: bool,
    /// The client has taken it back.
    pub reset: bool,
}

impl Stream {
    /// A stream that was just opened.
    pub fn open(id: u32, window: u32, length: Option<u64>, remote_closed: bool, body: Vec<u8>) -> Self {
        Self {
            id,
            body,
            length,
            trailers: Fields::default(),
            remote_closed,
            local_closed: false,
            receive: ReceiveWindow::new(WINDOW),
            send: SendWindow::new(window),
            reader: None,
            writer: None,
            queued: false,
            granted: false,
            tunnel: false,
            reset: false,
        }
    }

    /// Tells who waits for the body that there is news.
    pub fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    /// Tells who waits for room that there is some.
    pub fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

/// Keeps the waker of the one who asks.
pub fn remember(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|w| w.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

/// How a stream came to be closed, which decides what a late frame on it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Both sides have said all.
    Done,
    /// The gateway took it back; the client may not know yet.
    ByUs,
    /// The client took it back.
    ByPeer,
}

/// How many closed streams are remembered.
const REMEMBERED: usize = 128;

/// The streams that were closed last.
#[derive(Debug, Default)]
pub struct Graves(VecDeque<(u32, Closed)>);

impl Graves {
    /// A stream was closed.
    pub fn add(&mut self, id: u32, how: Closed) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((id, how));
    }

    /// How a stream was closed, if that is remembered.
    pub fn how(&self, id: u32) -> Option<Closed> {
        self.0.iter().rev().find(|(i, _)| *i == id).map(|(_, how)| *how)
    }
}
