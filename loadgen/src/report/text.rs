//! The report for people at a terminal.

use std::fmt::Write as _;

use super::lines::{self, Line, Tone};
use super::{QUANTILES, Report, quantile};
use crate::histogram::Latencies;
use crate::schedule::Pace;
use crate::tally::{Class, Failure, Tick};
use crate::units::{show_bytes, show_count, show_duration, show_ns, show_rate};

/// Whether to use colours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    pub color: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn title(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn doubtful(self, text: &str) -> String {
        self.paint("33", text)
    }
}

/// The whole report, with a line feed at its end.
pub fn render(report: &Report, style: Style) -> String {
    let mut out = String::new();
    head(&mut out, report, style);
    validity(&mut out, report, style);
    latency(&mut out, report, style);
    failures(&mut out, report, style);
    timeline(&mut out, report, style);
    limits(&mut out, report, style);
    assertions(&mut out, report, style);
    out
}

/// Writes a line. Writing to a `String` cannot fail.
macro_rules! line {
    ($out:expr) => { $out.push('\n') };
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

fn head(out: &mut String, report: &Report, style: Style) {
    let plan = &report.plan;
    let first = &plan.targets[0];
    let more = match plan.targets.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    line!(out, "{}  {} {}{more}", style.title("gw bench"), first.method, first.uri);
    let pace: Vec<_> = plan.phases.iter().map(|p| pace(p.pace, p.duration)).collect();
    let model = if plan.is_open() { "open loop" } else { "closed loop" };
    let requests = plan.requests.map_or(String::new(), |n| format!(" for {} requests", show_count(n)));
    line!(out, "  {model}{}{requests}", pace.join(", then"));
    let protocol = match (plan.http2, plan.origin().tls) {
        (false, false) => "HTTP/1.1",
        (false, true) => "HTTP/1.1 over TLS",
        (true, false) => "HTTP/2",
        (true, true) => "HTTP/2 over TLS",
    };
    let streams =
        if plan.http2 { format!(" of {}", plural(plan.streams as u64, "stream")) } else { String::new() };
    let mut facts = vec![
        format!("{}{streams}", plural(plan.connections as u64, "connection")),
        protocol.to_owned(),
        plural(plan.threads as u64, "thread"),
    ];
    if plan.consumers.len() + plan.targets.len() > 2 {
        facts.push(format!("seed {}", plan.seed));
    }
    line!(out, "  {}", facts.join(", "));
    line!(out);
}

fn pace(pace: Pace, duration: Option<std::time::Duration>) -> String {
    let time = duration.map_or(String::new(), |d| format!(" for {}", show_duration(d)));
    match pace {
        Pace::Closed => time,
        Pace::Rate { from, to } if from == to => format!(" {}{time}", show_rate(from)),
        Pace::Rate { from, to } => format!(" {} to {}{time}", show_rate(from), show_rate(to)),
    }
}

fn validity(out: &mut String, report: &Report, style: Style) {
    let (outcome, tally) = (&report.outcome, &report.outcome.tally);
    if !report.validity.is_valid() {
        line!(out, "  {}  these numbers mean nothing:", style.bad("INVALID"));
        report.validity.reasons.iter().for_each(|r| line!(out, "    {r}"));
        line!(out);
    }
    let rate = |n: u64| format!("{} ({})", show_count(n), show_rate(report.per_second(n)));
    let label = |text: &str| style.title(&format!("{text:<10}"));
    if report.plan.is_open() {
        line!(out, "  {}{}", label("offered"), rate(outcome.offered));
        line!(out, "  {}{}", label("sent"), rate(tally.sent));
    }
    line!(out, "  {}{} in {}", label("answered"), rate(tally.answered()), show_duration(outcome.duration));
    let per_second = tally.bytes as f64 / outcome.duration.as_secs_f64().max(1e-9);
    line!(
        out,
        "  {}{} of bodies ({}/s)",
        label("received"),
        show_bytes(tally.bytes as f64),
        show_bytes(per_second)
    );
    for warning in &report.validity.warnings {
        line!(out, "  {} {warning}", style.doubtful("note:"));
    }
    line!(out);
}

fn latency(out: &mut String, report: &Report, style: Style) {
    let tally = &report.outcome.tally;
    let columns: String = QUANTILES.iter().map(|(name, _)| format!("{name:>10}")).collect();
    let basis = if report.plan.is_open() { "from due to done" } else { "from sent to done" };
    line!(
        out,
        "  {}{:>12}{:>9}{columns}{:>10}",
        style.title(&format!("{basis:<18}")),
        "count",
        "share",
        "max"
    );
    let shown =
        |class: Class| tally.class(class).count > 0 || matches!(class, Class::Success | Class::Failed);
    for class in Class::ALL.into_iter().filter(|c| shown(*c)) {
        let of_class = tally.class(class);
        let share = if tally.sent == 0 { 0.0 } else { of_class.count as f64 / tally.sent as f64 * 100.0 };
        let times = of_class.response.as_deref().map_or(String::new(), times);
        line!(out, "  {:<18}{:>12}{share:>7.1} %{times}", class.name(), show_count(of_class.count));
    }
    if report.plan.is_open() {
        let indent = " ".repeat(21);
        line!(out);
        for class in [Class::Success, Class::Limited] {
            if let Some(service) = &tally.class(class).service {
                line!(out, "  {:<18}{indent}{}", format!("{} from sent", class.name()), times(service));
            }
        }
        if tally.queue.count() > 0 {
            line!(out, "  {:<18}{indent}{}", "wait to be sent", times(&tally.queue));
        }
    }
    if too_few(report) {
        line!(out, "  {}", style.doubtful("–: too few samples for this percentile"));
    }
    line!(out);
}

fn too_few(report: &Report) -> bool {
    let of_class = |class| report.outcome.tally.class(class).response.as_deref();
    Class::ALL.into_iter().filter_map(of_class).any(|l| QUANTILES.iter().any(|(_, q)| !l.supports(*q)))
}

fn times(latencies: &Latencies) -> String {
    let cell = |ns: Option<u64>| format!("{:>10}", ns.map_or("–".to_owned(), show_ns));
    let mut out: String = QUANTILES.iter().map(|(_, q)| cell(quantile(latencies, *q))).collect();
    out.push_str(&cell(latencies.max()));
    out
}

fn failures(out: &mut String, report: &Report, style: Style) {
    let tally = &report.outcome.tally;
    let statuses = tally.statuses.iter().enumerate().filter(|(_, n)| **n > 0);
    let statuses: Vec<_> = statuses.map(|(status, n)| format!("{status}: {}", show_count(*n))).collect();
    if !statuses.is_empty() {
        line!(out, "  {}{}", style.title("statuses  "), statuses.join("   "));
    }
    if tally.warned > 0 {
        let count = show_count(tally.warned);
        line!(out, "  {}{count} answers said that a limit is nearly used up", style.title("warned    "));
    }
    for failure in Failure::ALL {
        let count = tally.failures[failure as usize];
        if count == 0 {
            continue;
        }
        let example = tally.examples[failure as usize].as_deref().unwrap_or(explain(failure));
        line!(out, "  {}{}: {}  {example}", style.bad("errors    "), failure.name(), show_count(count));
    }
    let connections = &tally.connections;
    let handshake = connections.handshake.as_deref().and_then(|l| l.quantile(0.5));
    let handshake = handshake.map_or(String::new(), |ns| format!(", half of them within {}", show_ns(ns)));
    let resumed = match report.plan.origin().tls {
        true => format!(", {} TLS sessions resumed", show_count(connections.resumed)),
        false => String::new(),
    };
    line!(
        out,
        "  {}{} opened{handshake}{resumed}",
        style.title("connected "),
        show_count(connections.opened)
    );
    line!(out);
}

fn explain(failure: Failure) -> &'static str {
    match failure {
        Failure::Connect => "no connection",
        Failure::Tls => "no TLS session",
        Failure::Timeout => "no whole answer within the timeout",
        Failure::Reset => "the connection ended before an answer came",
        Failure::Body => "the connection ended within an answer",
        Failure::Protocol => "the answer is not HTTP",
        Failure::Unresolved => "no answer by the end of the run",
    }
}

/// Columns of a sparkline; longer runs are summed up.
const SPARKS: usize = 60;

fn timeline(out: &mut String, report: &Report, style: Style) {
    let mut ticks: &[Tick] = &report.outcome.tally.timeline;
    // The last second has hardly begun.
    let whole = (report.outcome.duration.as_secs_f64().ceil() as usize).max(1);
    ticks = &ticks[..ticks.len().min(whole)];
    if ticks.len() < 3 {
        return;
    }
    let group = ticks.len().div_ceil(SPARKS);
    let sum = |of: &dyn Fn(&Tick) -> u64| -> Vec<u64> {
        ticks.chunks(group).map(|c| c.iter().map(of).sum()).collect()
    };
    let mut rows = vec![("sent", sum(&|t| t.sent))];
    for class in Class::ALL {
        let values = sum(&|t| t.ended[class as usize]);
        if values.iter().any(|n| *n > 0) {
            rows.push((class.name(), values));
        }
    }
    let each = if group == 1 { "each second".to_owned() } else { format!("each {group} s") };
    line!(out, "  {}", style.title(&each));
    for (name, values) in rows {
        line!(
            out,
            "  {name:<8}{}  most {}",
            sparks(&values),
            show_count(values.iter().copied().max().unwrap_or(0))
        );
    }
    let p99 =
        ticks.chunks(group).map(|c| c.iter().filter_map(|t| t.success.quantile(0.99)).max().unwrap_or(0));
    let p99: Vec<_> = p99.collect();
    if p99.iter().any(|n| *n > 0) {
        line!(
            out,
            "  {:<8}{}  most {}",
            "2xx p99",
            sparks(&p99),
            show_ns(p99.iter().copied().max().unwrap_or(0))
        );
    }
    line!(out);
}

fn sparks(values: &[u64]) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    // Anything that is not nothing is seen.
    values.iter().map(|&v| BARS[(v as f64 / most as f64 * 8.0).ceil() as usize]).collect()
}

fn limits(out: &mut String, report: &Report, style: Style) {
    let sections = lines::sections(report);
    if sections.is_empty() {
        return;
    }
    line!(out, "  {}", style.title("limits"));
    line!(
        out,
        "    {:<24}{:>10}{:>12}{:>10}{:>10}{:>10}  verdict",
        "window (UTC)",
        "offered",
        "admitted",
        "refused",
        "unclear",
        "allowed"
    );
    for section in &sections {
        line!(out, "  {}: {}", style.title(&section.who), section.what);
        limit_rows(out, &section.lines, style);
    }
    line!(out);
    if sections.iter().flat_map(|s| &s.lines).any(|l| l.row.partial) {
        line!(out, "  {}", lines::PARTIAL_NOTE);
    }
    if let Some((tone, text)) = lines::conclusion(report) {
        line!(out, "  {}", toned(style, tone, &text));
    }
    line!(out);
}

fn limit_rows(out: &mut String, lines: &[Line], style: Style) {
    // Hundreds of one-second windows would bury the ones that matter.
    const MOST_ROWS: usize = 24;
    let quiet = |l: &Line| matches!(l.tone, Tone::Good | Tone::Plain);
    let mut hidden = 0;
    for (i, line) in lines.iter().enumerate() {
        if lines.len() > MOST_ROWS && quiet(line) && i >= 4 && i + 4 < lines.len() {
            hidden += 1;
            continue;
        }
        if hidden > 0 {
            line!(out, "    … {hidden} more without a finding");
            hidden = 0;
        }
        let (row, verdict) = (&line.row, toned(style, line.tone, &line.verdict));
        line!(
            out,
            "    {:<24}{:>10}{:>12}{:>10}{:>10}{:>10}  {verdict}{}",
            line.window,
            show_count(row.offered),
            line.admitted,
            show_count(row.rejected),
            show_count(row.unknown),
            show_count(row.allowed),
            if row.partial { lines::PARTIAL } else { "" }
        );
    }
}

fn toned(style: Style, tone: Tone, text: &str) -> String {
    match tone {
        Tone::Good => style.good(text),
        Tone::Plain => text.to_owned(),
        Tone::Doubtful => style.doubtful(text),
        Tone::Bad => style.bad(text),
    }
}

fn assertions(out: &mut String, report: &Report, style: Style) {
    if report.assertions.is_empty() {
        return;
    }
    line!(out, "  {}", style.title("assertions"));
    let width = report.assertions.iter().map(|a| a.text.chars().count()).max().unwrap_or(0);
    for assertion in &report.assertions {
        let mark = if assertion.pass { style.good("ok    ") } else { style.bad("FAILED") };
        line!(out, "    {mark}  {:<width$}  {}", assertion.text, assertion.value);
    }
    line!(out);
}

fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", show_count(n), if n == 1 { "" } else { "s" })
}
