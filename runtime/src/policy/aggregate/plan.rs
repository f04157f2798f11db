//! What a config says, ready to be run: immutable, shared by the requests that are under way.

use std::time::Duration;

use super::merge::Place;
use super::shape::Shape;
use crate::json::{Json, Pointer};
use crate::message::FieldName;
use crate::policy::call::CallTo;
use crate::policy::when::When;
use crate::template::Template;

/// Everything about one aggregate.
#[derive(Debug)]
pub struct Plan {
    pub parts: Vec<Part>,
    pub deadline: Duration,
    pub variants: Vec<Variant>,
    /// What `?fields=` may choose; empty where it means nothing.
    pub fields: Vec<Pointer>,
    pub response_headers: Vec<HeaderRule>,
    pub status_header: Option<FieldName>,
    pub max_calls: usize,
    /// Of all bodies together.
    pub max_bytes: usize,
    pub max_depth: usize,
    /// Whether a template looks into the request's body.
    pub reads_body: bool,
    /// Fields that `Vary` names because variants look at them.
    pub vary: Vec<FieldName>,
}

/// One call, or one for each item of a list.
#[derive(Debug)]
pub struct Part {
    pub name: String,
    pub to: CallTo,
    /// The service's id, which outlives the config.
    pub service: String,
    pub method: String,
    /// Path and query.
    pub path: Template,
    pub query: Vec<(String, Template)>,
    pub headers: Vec<(FieldName, Template)>,
    /// Fields of the request that it is sent.
    pub forward: Vec<FieldName>,
    pub body: Option<Body>,
    pub timeout: Option<Duration>,
    pub max_bytes: usize,
    pub each: Option<Each>,
    /// Parts that it waits for.
    pub needs: Vec<usize>,
    pub fallback: Fallback,
    /// Seconds for which an answer is given again instead of asking; 0 for none.
    pub cache_for: u64,
    pub pass_status: Vec<u16>,
    pub shape: Shape,
    pub place: Place,
}

/// A part that is asked once for each item.
#[derive(Debug)]
pub struct Each {
    pub list: Template,
    pub max_items: usize,
    pub concurrency: usize,
}

/// What stands for a part that failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Fallback {
    /// Nothing: the request fails.
    Fail,
    Null,
    Omit,
    Value(Json),
    /// The last good answer, for so many seconds.
    Stale(u64),
}

/// A JSON body with templates in its texts.
#[derive(Debug)]
pub enum Body {
    Text(Template),
    Plain(Json),
    List(Vec<Body>),
    Object(Vec<(String, Body)>),
}

/// Another shape of the answer for some clients.
#[derive(Debug)]
pub struct Variant {
    pub when: When,
    pub shape: Shape,
}

/// A header of the answer, from the parts'.
#[derive(Debug)]
pub struct HeaderRule {
    pub name: FieldName,
    /// In order of declaration.
    pub from: Vec<usize>,
    pub combine: Combine,
}

/// See the config's `combine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    First,
    Last,
    Append,
    Min,
    Max,
}

impl Part {
    /// Whether the request fails if the part does.
    pub fn required(&self) -> bool {
        self.fallback == Fallback::Fail
    }

    /// Whether what is merged is a list for certain.
    pub fn is_list(&self) -> bool {
        self.each.is_some() && self.shape.index_by.is_none()
    }
}

impl Plan {
    /// Milliseconds until each part is there at the latest, its waiting for others included, and the longest of them: no
    /// request takes longer for its calls.
    pub fn worst_case(&self) -> (Vec<u128>, u128) {
        let deadline = self.deadline.as_millis();
        let mut ends = vec![None; self.parts.len()];
        for part in 0..self.parts.len() {
            self.end_of(part, deadline, &mut ends);
        }
        let ends: Vec<u128> = ends.into_iter().map(|e| e.unwrap_or(deadline)).collect();
        let longest = ends.iter().copied().max().unwrap_or(0);
        (ends, longest)
    }

    /// The graph has no circles, so this ends.
    fn end_of(&self, part: usize, deadline: u128, ends: &mut [Option<u128>]) -> u128 {
        if let Some(end) = ends[part] {
            return end;
        }
        let this = &self.parts[part];
        let begins = this.needs.iter().map(|n| self.end_of(*n, deadline, ends)).max().unwrap_or(0);
        let once = this.timeout.map_or(deadline, |t| t.as_millis());
        let rounds = this.each.as_ref().map_or(1, |e| e.max_items.div_ceil(e.concurrency) as u128);
        let end = (begins + once * rounds).min(deadline);
        ends[part] = Some(end);
        end
    }
}
