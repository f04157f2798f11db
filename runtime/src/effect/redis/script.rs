//! The server-side step: its text, how it is called, how its answer is read.

use std::sync::LazyLock;

use redis::{Cmd, Value};

use crate::limit::{Algorithm, Cell, Key, Outcome, Period, Rules};

/// The script, with its name in the server's cache.
pub static SCRIPT: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(SOURCE));

/// The script's text.
pub const SOURCE: &str = include_str!("limit.lua");

/// A call of the script by name, or with its text where the server does not know it.
pub fn call(by_name: bool, rules: &Rules, stem: &str, hits: u32, count_rejected: bool) -> Cmd {
    let mut cmd = Cmd::with_capacity(6 + 3 * rules.rules.len(), 256);
    match by_name {
        true => cmd.arg("EVALSHA").arg(SCRIPT.get_hash()),
        false => cmd.arg("EVAL").arg(SOURCE),
    };
    cmd.arg(1).arg(stem).arg(hits).arg(u8::from(count_rejected));
    cmd.arg(match rules.algorithm {
        Algorithm::Fixed => "fixed",
        Algorithm::Sliding => "sliding",
        Algorithm::Bucket => "bucket",
    });
    for rule in &rules.rules {
        cmd.arg(rule.period.name()).arg(rule.limit).arg(rule.burst);
    }
    cmd
}

/// `ratelimit:{SCOPE:IDENTIFIER}`; the braces make every counter of a request hash to one slot of a cluster.
pub fn stem(key: &Key) -> String {
    format!("ratelimit:{{{}}}", key.as_str())
}

/// The states before the request, and the server's clock in ms.
pub struct States {
    cells: [Cell; Period::ALL.len()],
    count: usize,
    pub now_ms: u64,
}

impl States {
    /// Reads the script's answer; `None` if it is none.
    pub fn read(rules: &Rules, answer: &Value) -> Option<Self> {
        let Value::Array(items) = answer else { return None };
        let mut numbers = items.iter().map(number);
        let now_ms = numbers.next()?? as u64;
        let mut cells = [Cell::default(); Period::ALL.len()];
        for (cell, rule) in cells.iter_mut().zip(&rules.rules) {
            let at_ms = rules.algorithm.window_start_ms(rule.period, now_ms);
            let count = numbers.next()??;
            let previous = if rules.algorithm == Algorithm::Sliding { numbers.next()?? } else { 0.0 };
            *cell = Cell { at_ms, count, previous };
        }
        Some(Self { cells, count: rules.rules.len(), now_ms })
    }

    /// The verdict on a request of `hits`.
    pub fn outcome(&self, rules: &Rules, hits: u32) -> Outcome {
        Outcome::of(rules, self.cells.iter().copied(), hits, self.now_ms)
    }

    /// The states after `hits` more.
    pub fn after(mut self, hits: u32) -> Vec<Cell> {
        self.cells.iter_mut().for_each(|c| c.count += f64::from(hits));
        self.cells[..self.count].to_vec()
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
