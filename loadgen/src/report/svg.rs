//! The pictures of the page, as inline SVG.

use std::fmt::Write as _;

use crate::histogram::{COARSE_BUCKETS, Coarse, Latencies};
use crate::tally::{Class, Tick};
use crate::units::show_ns;

/// Size of a picture and of the margin that its axes need.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 10.0;

/// The CSS class of each class of answers; the page gives it a colour.
pub fn css(class: Class) -> &'static str {
    match class {
        Class::Success => "ok",
        Class::Redirect => "redirect",
        Class::Limited => "limited",
        Class::ClientError => "client",
        Class::ServerError => "server",
        Class::Failed => "failed",
    }
}

fn picture(title: &str, inner: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{inner}</svg>\n")
}

fn x(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - 10.0)
}

fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
}

/// A logarithmic scale of durations, in whole powers of ten.
struct LogScale {
    low: f64,
    high: f64,
}

impl LogScale {
    fn over(ns: impl Iterator<Item = u64> + Clone) -> Self {
        let least = ns.clone().min().unwrap_or(1).max(1) as f64;
        let most = ns.max().unwrap_or(1).max(1) as f64;
        let low = least.log10().floor();
        Self { low, high: most.log10().ceil().max(low + 1.0) }
    }

    fn share(&self, ns: u64) -> f64 {
        (((ns.max(1) as f64).log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn grid(&self, out: &mut String) {
        let mut power = self.low;
        while power <= self.high {
            let ns = 10f64.powf(power) as u64;
            grid_line(out, y(self.share(ns)), &show_ns(ns));
            power += 1.0;
        }
    }
}

fn grid_line(out: &mut String, y: f64, label: &str) {
    let _ = write!(
        out,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
        LEFT - 6.0,
        y + 4.0
    );
}

fn below(out: &mut String, x: f64, label: &str) {
    let _ = write!(out, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", HEIGHT - 8.0);
}

/// Latency over percentile, with as much room for each further nine.
pub fn percentiles(curves: &[(Class, &Latencies)]) -> String {
    let points: Vec<(Class, Vec<(f64, u64)>)> = curves.iter().map(|(c, l)| (*c, l.curve())).collect();
    let scale = LogScale::over(points.iter().flat_map(|(_, p)| p).map(|(_, ns)| *ns));
    let most = curves.iter().map(|(_, l)| l.count()).max().unwrap_or(1) as f64;
    let nines = most.log10().clamp(1.0, 6.0);
    let at = |q: f64| x((-(1.0 - q).max(10f64.powf(-nines)).log10() / nines).min(1.0));
    let mut out = String::new();
    scale.grid(&mut out);
    for (label, q) in
        [("0", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)]
    {
        if 1.0 - q >= 10f64.powf(-nines) * 0.999 {
            below(&mut out, at(q), label);
        }
    }
    for (class, points) in points {
        let _ = write!(out, "<polyline class=\"line {}\" points=\"", css(class));
        for (q, ns) in points {
            let _ = write!(out, "{:.1},{:.1} ", at(q), y(scale.share(ns)));
        }
        out.push_str("\"/>");
    }
    picture("latency by percentile", &out)
}

/// How many requests ended in each second, by class, over how many were sent.
pub fn per_second(ticks: &[Tick]) -> String {
    let most = ticks.iter().map(|t| t.sent.max(t.ended.iter().sum())).max().unwrap_or(0).max(1) as f64;
    let mut out = String::new();
    for part in [0.0, 0.5, 1.0] {
        grid_line(&mut out, y(part), &crate::units::show_count((most * part).round() as u64));
    }
    let step = (x(1.0) - x(0.0)) / ticks.len().max(1) as f64;
    for (second, tick) in ticks.iter().enumerate() {
        let mut under = 0.0;
        for class in Class::ALL {
            let share = tick.ended[class as usize] as f64 / most;
            if share > 0.0 {
                let (top, height) = (y(under + share), y(under) - y(under + share));
                let left = x(0.0) + step * second as f64;
                let width = (step * 0.92).max(0.3);
                let _ = write!(
                    out,
                    "<rect class=\"{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
                    css(class)
                );
                under += share;
            }
        }
    }
    out.push_str("<polyline class=\"line sent\" points=\"");
    for (second, tick) in ticks.iter().enumerate() {
        let _ =
            write!(out, "{:.1},{:.1} ", x(0.0) + step * (second as f64 + 0.5), y(tick.sent as f64 / most));
    }
    out.push_str("\"/>");
    seconds(&mut out, ticks.len());
    picture("requests each second", &out)
}

/// When which latencies occurred: the darker, the more.
pub fn heat(ticks: &[Tick]) -> String {
    let used = |bucket: usize| ticks.iter().any(|t| t.success.0[bucket] > 0);
    let Some(low) = (0..COARSE_BUCKETS).find(|b| used(*b)) else { return String::new() };
    let high = (low..COARSE_BUCKETS).rev().find(|b| used(*b)).unwrap_or(low);
    let rows = (high - low + 1) as f64;
    let most = ticks.iter().flat_map(|t| t.success.0).max().unwrap_or(1).max(1);
    let step = (x(1.0) - x(0.0)) / ticks.len().max(1) as f64;
    let height = (y(0.0) - y(1.0)) / rows;
    let mut out = String::new();
    for (second, tick) in ticks.iter().enumerate() {
        for bucket in low..=high {
            let n = tick.success.0[bucket];
            if n > 0 {
                let opacity = 0.15 + 0.85 * (f64::from(n).ln_1p() / f64::from(most).ln_1p());
                let (left, top) = (x(0.0) + step * second as f64, y((bucket - low + 1) as f64 / rows));
                let _ = write!(
                    out,
                    "<rect class=\"heat\" opacity=\"{opacity:.2}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{step:.1}\" height=\"{height:.1}\"/>"
                );
            }
        }
    }
    let every = ((high - low) / 6).max(1);
    for bucket in (low..=high).step_by(every) {
        grid_line(&mut out, y((bucket - low + 1) as f64 / rows), &show_ns(Coarse::upper(bucket)));
    }
    seconds(&mut out, ticks.len());
    picture("latencies over time", &out)
}

fn seconds(out: &mut String, count: usize) {
    let every = count.div_ceil(10).max(1);
    for second in (0..=count).step_by(every) {
        below(out, x(second as f64 / count.max(1) as f64), &format!("{second} s"));
    }
}
