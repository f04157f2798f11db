//! What limits did to a request, for the log and the metrics.

use std::borrow::Cow;

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
    /// The limit's name in the config. A name that is a period's costs no memory.
    pub limit: Cow<'static, str>,
    pub verdict: Verdict,
    /// Whole percent of the limit used; at most 100.
    pub used_percent: u8,
}

/// Tells something of the request that `x` is.
pub fn note(x: &mut Exchange, limit: impl Into<Cow<'static, str>>, verdict: Verdict, used_percent: u8) {
    x.limit_notes.push(Note { limit: limit.into(), verdict, used_percent });
}
