//! What limits did to a request, for the log and the metrics.

use crate::exchange::Exchange;

/// What a limit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The request was refused.
    Refused,
    /// It would have been, had this been more than a dry run.
    WouldRefuse,
    /// The client was warned that the limit is nearly used up.
    Warned,
    /// The request waited for its turn.
    Delayed,
    /// The store gave no answer, so that the limit was not applied as configured.
    Unchecked,
}

impl Verdict {
    /// As logs and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::WouldRefuse => "would_refuse",
            Self::Warned => "warned",
            Self::Delayed => "delayed",
            Self::Unchecked => "unchecked",
        }
    }
}

/// One thing that one limit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The limit's name in the config.
    pub limit: String,
    pub verdict: Verdict,
    /// Whole percent of the limit used; at most 100.
    pub used_percent: u8,
}

/// All that limits did to a request worth telling. Requests that just pass have none.
#[derive(Debug, Default)]
pub struct Notes(pub Vec<Note>);

impl Notes {
    /// Adds one to those of the request.
    pub fn add(x: &mut Exchange, limit: &str, verdict: Verdict, used_percent: u8) {
        let note = Note { limit: limit.to_owned(), verdict, used_percent };
        match x.slots.iter_mut().find_map(|s| s.downcast_mut::<Self>()) {
            Some(notes) => notes.0.push(note),
            None => x.keep(Self(vec![note])),
        }
    }
}
