//! What an authorization server said of a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Settings;
use crate::policy::call::{CallError, CallResponse};
use crate::policy::verdicts::{Asking, Kind};
use crate::token::claims::{Moment, Times};
use crate::token::json;

/// What is known of a token.
#[derive(Clone, Debug)]
pub enum Verdict {
    Active(Arc<Active>),
    Inactive,
    /// The server could not tell.
    Unknown,
}

/// An active token.
#[derive(Debug)]
pub struct Active {
    /// The whole answer.
    pub claims: Value,
    times: Times,
}

impl Active {
    /// Whether `exp` and `nbf`, where they are given, allow the token at `now` (seconds since 1970).
    pub fn is_in_time(&self, now: u64) -> bool {
        let ends = match self.times.exp {
            Moment::At(exp) => exp > now as f64,
            Moment::Missing => true,
            Moment::Malformed => false,
        };
        let began = match self.times.nbf {
            Moment::At(nbf) => nbf <= now as f64,
            Moment::Missing => true,
            Moment::Malformed => false,
        };
        ends && began
    }

    /// Seconds from `now` until it ends.
    fn rest(&self, now: u64) -> Option<f64> {
        match self.times.exp {
            Moment::At(exp) => Some((exp - now as f64).max(0.0)),
            _ => None,
        }
    }
}

/// Reads an answer and tells it to all who wait for it. `now` is in seconds since 1970.
pub fn read(
    asking: Asking<Verdict>,
    result: &Result<CallResponse, CallError>,
    now: u64,
    instant: Instant,
    settings: &Settings,
) -> Verdict {
    let (verdict, size) = match result {
        Ok(answer) if answer.status == 200 => (judge(&answer.body), answer.body.len()),
        // What a client sends must not make it look as if the server were down.
        Ok(answer) if answer.status < 500 => {
            asking.answer(Verdict::Unknown, None, 0);
            return Verdict::Unknown;
        }
        _ => (Verdict::Unknown, 0),
    };
    let keep = |kind, time: Duration| (!time.is_zero()).then(|| (kind, instant + time));
    match &verdict {
        Verdict::Unknown => asking.fail(verdict.clone(), instant),
        Verdict::Inactive => asking.answer(verdict.clone(), keep(Kind::Bad, settings.negative_ttl), 0),
        Verdict::Active(active) if !active.is_in_time(now) => {
            asking.answer(verdict.clone(), keep(Kind::Bad, settings.negative_ttl), size);
        }
        Verdict::Active(active) => {
            let rest = active
                .rest(now)
                .map_or(settings.ttl, |s| Duration::try_from_secs_f64(s).unwrap_or(settings.ttl));
            asking.answer(verdict.clone(), keep(Kind::Good, settings.ttl.min(rest)), size * 4);
        }
    }
    verdict
}

fn judge(body: &[u8]) -> Verdict {
    let Ok(claims) = json::parse(body) else { return Verdict::Unknown };
    match claims.get("active") {
        Some(Value::Bool(true)) => {
            let times = Times::of(&claims);
            Verdict::Active(Arc::new(Active { claims, times }))
        }
        Some(Value::Bool(false)) => Verdict::Inactive,
        _ => Verdict::Unknown,
    }
}
