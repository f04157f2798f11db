//! The line that shows how a run goes, on standard error and only where that is a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run::Progress;
use crate::tally::Class;
use crate::units::{show_count, show_rate};

/// A progress line; hidden where there is no terminal.
pub struct Line {
    bar: ProgressBar,
    last: Option<(Duration, u64)>,
}

/// A bar's resolution where the end is a time.
const STEPS: u64 = 1000;

impl Line {
    /// A line. With `quiet` there is none in any case.
    pub fn new(quiet: bool) -> Self {
        let bar = match quiet || !std::io::stderr().is_terminal() {
            true => ProgressBar::hidden(),
            false => ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr_with_hz(10)),
        };
        if let Ok(style) = ProgressStyle::with_template("  {bar:30} {percent:>3}%  {msg}") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        Self { bar, last: None }
    }

    /// Shows how the run goes.
    pub fn show(&mut self, progress: &Progress) {
        let all: u64 = progress.ended.iter().sum();
        let by_time =
            progress.length.map_or(0.0, |l| progress.elapsed.as_secs_f64() / l.as_secs_f64().max(1e-9));
        let by_number = progress.requests.map_or(0.0, |n| all as f64 / n.max(1) as f64);
        self.bar.set_position((by_time.max(by_number).min(1.0) * STEPS as f64) as u64);
        // Over a tenth of a second a rate jumps about.
        let (since, before) = self.last.unwrap_or_default();
        let span = progress.elapsed.saturating_sub(since).as_secs_f64();
        if span < 0.5 {
            return;
        }
        self.last = Some((progress.elapsed, all));
        let mut parts = vec![show_rate(((all - before.min(all)) as f64 / span).round())];
        for class in Class::ALL {
            let n = progress.ended[class as usize];
            if n > 0 {
                parts.push(format!("{} {}", class.name(), show_count(n)));
            }
        }
        self.bar.set_message(parts.join("  "));
    }

    /// Takes the line away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
