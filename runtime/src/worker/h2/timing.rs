//! How long a connection may take for what: to begin, to finish what it has begun, to read, to show that it is there.

use std::time::{Duration, Instant};

use crate::clock;
use crate::http2::connection::Ending;
use crate::http2::{Code, Connection};
use crate::model::gateway::Timeouts;

/// A client with open streams that is silent for so long is asked whether it is there, and has so long to answer.
const SILENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);
/// How long a client may leave the gateway's SETTINGS without an acknowledgement.
const SETTINGS: Duration = Duration::from_secs(30);
/// How long a client that is told of the end may take to show that it has read that.
const NOTICE: Duration = Duration::from_secs(1);

/// When something is to be looked at.
pub struct Due {
    pub from: Instant,
    pub after: Duration,
}

/// What a look has found.
pub enum Verdict {
    /// Nothing to be done before then.
    Wait(Due),
    /// Something was done, and is to be written.
    Done,
    Fail(Code),
    Dead,
}

/// See the module.
pub struct Timing {
    header: Duration,
    write: Duration,
    keep_alive: Duration,
    began: Instant,
    /// The last bytes came; something came since the last look.
    last: Instant,
    came: bool,
    /// Nothing can be written since.
    stuck: Option<Instant>,
    /// A block of fields is not finished since.
    amid: Option<Instant>,
    asked: Option<Instant>,
    told: Option<Instant>,
    /// No stream is open since.
    idle: Option<Instant>,
}

impl Timing {
    /// Of a connection that begins.
    pub fn new(timeouts: &Timeouts, now: Instant) -> Self {
        Self {
            header: timeouts.header,
            write: timeouts.write,
            keep_alive: timeouts.keep_alive,
            began: now,
            last: now,
            came: false,
            stuck: None,
            amid: None,
            asked: None,
            told: None,
            idle: None,
        }
    }

    /// Bytes came.
    pub fn came(&mut self) {
        self.came = true;
    }

    /// Bytes went.
    pub fn went(&mut self) {
        self.stuck = None;
    }

    /// None can go.
    pub fn stuck(&mut self) {
        self.stuck.get_or_insert_with(clock::monotonic);
    }

    /// The client was told that the connection ends.
    pub fn announced(&mut self) {
        self.told = Some(clock::monotonic());
    }

    /// Does what is due.
    pub fn look(&mut self, connection: &mut Connection) -> Verdict {
        let now = clock::monotonic();
        connection.tick(now);
        if std::mem::take(&mut self.came) {
            self.last = now;
            self.asked = None;
        }
        let open = connection.open() > 0;
        keep_since(&mut self.amid, connection.is_amid(), now);
        keep_since(&mut self.idle, !open, now);
        let mut next: Option<Duration> = None;
        let mut over = |since: Instant, after: Duration| {
            let left = (since + after).saturating_duration_since(now);
            if !left.is_zero() {
                next = Some(next.map_or(left, |n| n.min(left)));
            }
            left.is_zero()
        };
        if !connection.is_settled() && over(self.began, self.header) {
            return Verdict::Fail(Code::SETTINGS_TIMEOUT);
        }
        if let Some(since) = self.amid
            && over(since, self.header)
        {
            return Verdict::Fail(Code::ENHANCE_YOUR_CALM);
        }
        if let Some(since) = self.stuck
            && over(since, self.write)
        {
            return Verdict::Dead;
        }
        if !connection.is_acknowledged() && over(self.began, SETTINGS) {
            return Verdict::Fail(Code::SETTINGS_TIMEOUT);
        }
        if let Some(told) = self.told
            && connection.ending() == Ending::Announced
            && over(told, NOTICE)
        {
            connection.end_last();
            return Verdict::Done;
        }
        if let Some(asked) = self.asked
            && over(asked, ANSWER)
        {
            return Verdict::Dead;
        }
        if open && self.asked.is_none() && over(self.last, SILENCE) {
            self.asked = Some(now);
            connection.ping();
            return Verdict::Done;
        }
        if let Some(idle) = self.idle
            && connection.ending() == Ending::Open
            && over(idle, self.keep_alive)
        {
            self.told = Some(now);
            connection.announce_end();
            return Verdict::Done;
        }
        // While nothing of this runs, something else does: a stream, or the end.
        Verdict::Wait(Due { from: now, after: next.unwrap_or(SILENCE) })
    }
}

fn keep_since(since: &mut Option<Instant>, holds: bool, now: Instant) {
    match holds {
        true => drop(since.get_or_insert(now)),
        false => *since = None,
    }
}
