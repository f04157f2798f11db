//! What became of a part: for the status header, for the answer where a required one failed, and for the log.

use std::fmt::Write as _;
use std::time::Duration;

use super::plan::{Fallback, Plan};
use crate::policy::call::CallError;

/// What became of a part.
#[derive(Clone, Debug)]
pub enum Outcome {
    Fine {
        status: u16,
        took: Duration,
    },
    Failed {
        why: Why,
        took: Duration,
    },
    /// Nothing of it would have been in the answer, so nobody asked.
    Skipped,
}

/// Why a part failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    Status(u16),
    Call(CallError),
    /// The deadline for everything passed before it could be asked.
    Deadline,
    /// The answer is no JSON document.
    NotJson(String),
    /// A template has no value, or none that can stand where it stands.
    Value(String),
    TooManyItems(usize),
    TooManyCalls,
    TooManyBytes,
    /// It has not the members that its shape takes.
    Shape(String),
    /// It does not fit in.
    Merge(String),
    /// A required part failed first.
    Cancelled,
}

impl Why {
    /// The answer's status where the part is required.
    pub fn status(&self, pass: &[u16]) -> u16 {
        match self {
            Self::Status(status) if pass.contains(status) => *status,
            Self::Call(CallError::Timeout) | Self::Deadline => 504,
            _ => 502,
        }
    }

    /// The kind of failure: a proxy error type of RFC 9209 where there is one.
    pub fn token(&self) -> &'static str {
        match self {
            Self::Status(_) => "http_status",
            Self::Call(CallError::Timeout) | Self::Deadline => "http_response_timeout",
            Self::Call(CallError::Unreachable | CallError::TargetsDown) => "destination_unavailable",
            Self::Call(CallError::Unresolved) => "dns_error",
            Self::Call(CallError::Broken) => "http_response_incomplete",
            Self::Call(CallError::TooLarge) | Self::TooManyBytes => "http_response_body_size",
            Self::Call(CallError::Private) => "destination_ip_prohibited",
            Self::Call(CallError::Invalid) => "proxy_configuration_error",
            Self::NotJson(_) => "not_json",
            Self::Value(_) => "no_value",
            Self::TooManyItems(_) => "too_many_items",
            Self::TooManyCalls => "too_many_calls",
            Self::Shape(_) => "unexpected_shape",
            Self::Merge(_) => "merge_conflict",
            Self::Cancelled => "cancelled",
        }
    }

    /// What happened, for people.
    pub fn detail(&self) -> String {
        match self {
            Self::Status(status) => format!("it answered {status}"),
            Self::Call(error) => error.to_string(),
            Self::Deadline => "the deadline passed before it could be asked".to_owned(),
            Self::NotJson(what) => format!("its answer is no JSON: {what}"),
            Self::Value(what) | Self::Shape(what) | Self::Merge(what) => what.clone(),
            Self::TooManyItems(most) => format!("there are more than {most} items to ask it for"),
            Self::TooManyCalls => "the request needs more calls than `max_calls`".to_owned(),
            Self::TooManyBytes => "the parts are longer than `max_bytes` together".to_owned(),
            Self::Cancelled => "a required part failed first".to_owned(),
        }
    }
}

/// The status header: a list of RFC 9651 whose items are parts.
pub fn header(plan: &Plan, outcomes: &[Option<Outcome>], stale: &[bool], cached: &[bool]) -> String {
    let mut out = String::new();
    for (i, part) in plan.parts.iter().enumerate() {
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(&part.name);
        // Writing to a text does not fail.
        let _ = match &outcomes[i] {
            Some(Outcome::Fine { status, took }) => {
                let kept = if cached[i] { ";cached" } else { "" };
                write!(out, ";status={status};ms={}{kept}", took.as_millis())
            }
            Some(Outcome::Skipped) => write!(out, ";skipped"),
            Some(Outcome::Failed { why, took }) => {
                let _ = match why {
                    Why::Status(status) => write!(out, ";status={status}"),
                    other => write!(out, ";error={}", other.token()),
                };
                let _ = write!(out, ";ms={}", took.as_millis());
                match (&part.fallback, stale[i]) {
                    (Fallback::Fail, _) => Ok(()),
                    (Fallback::Null, _) => write!(out, ";fallback=null"),
                    (Fallback::Value(_), _) => write!(out, ";fallback=static"),
                    (Fallback::Stale(_), true) => write!(out, ";fallback=stale"),
                    (Fallback::Omit | Fallback::Stale(_), _) => write!(out, ";fallback=omit"),
                }
            }
            None => write!(out, ";error=cancelled"),
        };
    }
    out
}
