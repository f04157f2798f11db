//! The server-side step: its text, how it is called, how its answer is read.

use std::sync::LazyLock;

use redis::{Cmd, Value};

use crate::limit::{Algorithm, Cell, Key, MAX_RULES, Outcome, Rule, Rules};

/// The script, with its name in the server's cache.
pub static SCRIPT: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(SOURCE));

/// The script's text.
pub const SOURCE: &str = include_str!("limit.lua");

/// What to charge.
#[derive(Clone, Copy, Debug, Default)]
pub struct Charge {
    /// All or none of it; below 0 to give back.
    pub hits: i64,
    /// Even what is refused.
    pub count_rejected: bool,
    /// As much of it as there is room for, if `hits` are admitted.
    pub extra: u32,
    /// When what is given back was charged, in ms by the server's clock: windows that began later do not get it.
    pub charged_ms: u64,
}

/// A call of the script by name, or with its text where the server does not know it.
pub fn call(by_name: bool, rules: &Rules, stem: &str, charge: Charge) -> Cmd {
    let mut cmd = Cmd::with_capacity(8 + 7 * rules.rules.len(), 256);
    match by_name {
        true => cmd.arg("EVALSHA").arg(SCRIPT.get_hash()),
        false => cmd.arg("EVAL").arg(SOURCE),
    };
    cmd.arg(1)
        .arg(stem)
        .arg(charge.hits)
        .arg(u8::from(charge.count_rejected))
        .arg(charge.extra)
        .arg(charge.charged_ms);
    for rule in &rules.rules {
        cmd.arg(rule.algorithm.name()).arg(rule.name()).arg(rule.period.name());
        cmd.arg(rule.limit).arg(rule.burst).arg(rule.queue).arg(edges(rule));
    }
    cmd
}

/// Where windows begin that the server cannot reckon by itself: four times around the present, of which it takes those
/// around its own.
fn edges(rule: &Rule) -> String {
    match &rule.calendar {
        Some(calendar) if rule.algorithm == Algorithm::Fixed => {
            let [a, b, c, d] = calendar.edges_s(crate::clock::unix_ms());
            format!("{a} {b} {c} {d}")
        }
        _ => String::new(),
    }
}

/// `ratelimit:{SCOPE:IDENTIFIER}`; the braces make every counter of a request hash to one slot of a cluster.
pub fn stem(key: &Key) -> String {
    format!("ratelimit:{{{}}}", key.as_str())
}

/// The states before the request, and the server's clock in ms.
pub struct States {
    pub cells: [Cell; MAX_RULES],
    pub now_ms: u64,
    /// How much was charged of [`Charge::extra`].
    pub extra: u32,
}

impl States {
    /// Reads the script's answer; `None` if it is none.
    pub fn read(rules: &Rules, answer: &Value) -> Option<Self> {
        let Value::Array(items) = answer else { return None };
        let mut numbers = items.iter().map(number);
        let now_ms = numbers.next()?? as u64;
        let extra = numbers.next()?? as u32;
        let mut cells = [Cell::default(); MAX_RULES];
        for (cell, rule) in cells.iter_mut().zip(&rules.rules) {
            let at_ms = rule.window_start_ms(now_ms);
            let count = numbers.next()??;
            let previous = if rule.algorithm == Algorithm::Sliding { numbers.next()?? } else { 0.0 };
            *cell = Cell { at_ms, count, previous };
        }
        Some(Self { cells, now_ms, extra })
    }

    /// The verdict on a request of `hits`.
    pub fn outcome(&self, rules: &Rules, hits: u32) -> Outcome {
        Outcome::of(rules, self.cells.iter().copied(), hits, self.now_ms)
    }

    /// The states after `hits` more.
    pub fn after(self, rules: &Rules, hits: u32) -> Vec<Cell> {
        rules.rules.iter().zip(self.cells).map(|(r, c)| r.charge(c, f64::from(hits))).collect()
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(n) => Some(*n as f64),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::Double(n) => Some(*n),
        _ => None,
    }
}
