//! One limit and the limits that apply together.

use std::borrow::Cow;
use std::sync::Arc;

use super::window::Period;
use super::{Algorithm, Calendar};

/// Most limits that are decided on in one step.
pub const MAX_RULES: usize = 8;

/// One limit: so many requests a period.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Kong's limits have no name but their period.
    named: Option<Arc<Named>>,
    pub algorithm: Algorithm,
    pub period: Period,
    /// Requests per period. Kong allows fractions.
    pub limit: f64,
    /// Capacity of the bucket, in requests; only [`Algorithm::Bucket`] looks at it.
    pub burst: f64,
    /// Requests beyond the burst that may wait until the bucket has drained; the same.
    pub queue: f64,
    /// Whose days, weeks, months and years count for [`Algorithm::Fixed`]; without it those of UTC.
    pub calendar: Option<Arc<Calendar>>,
    id: u64,
}

/// A limit's name, and the header fields that speak of it.
#[derive(Debug, PartialEq)]
struct Named {
    name: String,
    limit_field: String,
    remaining_field: String,
}

/// The limits that apply together. A request passes only if it passes all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// At most [`MAX_RULES`], no two of them with the same name.
    pub rules: Vec<Rule>,
    /// Whether a refused request counts all the same.
    pub count_rejected: bool,
}

impl Rule {
    /// A limit that its period names, in UTC, with its limit as burst and without a queue.
    pub fn new(algorithm: Algorithm, period: Period, limit: f64) -> Self {
        let id = identity(algorithm, period, period.name());
        Self { named: None, algorithm, period, limit, burst: limit, queue: 0.0, calendar: None, id }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.id = identity(self.algorithm, self.period, name);
        self.named = Some(Arc::new(Named {
            name: name.to_owned(),
            limit_field: format!("X-RateLimit-Limit-{name}"),
            remaining_field: format!("X-RateLimit-Remaining-{name}"),
        }));
        self
    }

    /// The same with another burst and queue.
    #[must_use]
    pub fn with_burst(self, burst: f64, queue: f64) -> Self {
        Self { burst, queue, ..self }
    }

    /// The same by this calendar.
    #[must_use]
    pub fn by_calendar(self, calendar: Calendar) -> Self {
        Self { calendar: Some(Arc::new(calendar)), ..self }
    }

    /// What clients, logs and counters call it.
    pub fn name(&self) -> &str {
        self.named.as_ref().map_or(self.period.name(), |n| &n.name)
    }

    /// The name to keep: one that is a period's costs no memory.
    pub fn label(&self) -> Cow<'static, str> {
        match &self.named {
            Some(n) => Cow::Owned(n.name.clone()),
            None => Cow::Borrowed(self.period.name()),
        }
    }

    /// The header fields for the limit and for what is left of it.
    pub fn fields(&self) -> (&str, &str) {
        match &self.named {
            Some(n) => (&n.limit_field, &n.remaining_field),
            None => titles(self.period),
        }
    }

    /// How many requests may come at once, when none came before.
    pub fn capacity(&self) -> f64 {
        if self.algorithm == Algorithm::Bucket { self.burst } else { self.limit }
    }

    /// In how many seconds [`Rule::capacity`] requests come, rounded up.
    pub fn quota_window_s(&self) -> u64 {
        let seconds = self.period.seconds() as f64;
        if self.algorithm != Algorithm::Bucket {
            return self.period.seconds();
        }
        ((self.burst / self.limit * seconds).ceil() as u64).max(1)
    }

    /// Tells its counters from those of other limits of the same key; equal for the same name, algorithm and period.
    pub fn id(&self) -> u64 {
        self.id
    }
}

/// FNV-1a: the same in every process, as counters are kept on disk under it.
fn identity(algorithm: Algorithm, period: Period, name: &str) -> u64 {
    let parts = [algorithm.name(), "/", period.name(), "/", name];
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    parts.iter().flat_map(|p| p.bytes()).fold(0xcbf2_9ce4_8422_2325, step)
}

const fn titles(period: Period) -> (&'static str, &'static str) {
    match period {
        Period::Second => ("X-RateLimit-Limit-Second", "X-RateLimit-Remaining-Second"),
        Period::Minute => ("X-RateLimit-Limit-Minute", "X-RateLimit-Remaining-Minute"),
        Period::Hour => ("X-RateLimit-Limit-Hour", "X-RateLimit-Remaining-Hour"),
        Period::Day => ("X-RateLimit-Limit-Day", "X-RateLimit-Remaining-Day"),
        Period::Week => ("X-RateLimit-Limit-Week", "X-RateLimit-Remaining-Week"),
        Period::Month => ("X-RateLimit-Limit-Month", "X-RateLimit-Remaining-Month"),
        Period::Year => ("X-RateLimit-Limit-Year", "X-RateLimit-Remaining-Year"),
    }
}
