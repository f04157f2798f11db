//! The report as one page that needs nothing else: no network, no scripts.

use std::fmt::Write as _;

use super::lines::{self, Line, Tone};
use super::{QUANTILES, Report, json, quantile, svg};
use crate::histogram::Latencies;
use crate::tally::{Class, Failure};
use crate::units::{show_count, show_duration, show_ns, show_rate};

const STYLE: &str = "
:root { color-scheme: light dark; --ok: #2a8f57; --redirect: #3c7fc0; --limited: #d99a1c; --client: #b7622c;
  --server: #b8323a; --failed: #7d1d6b; --ink: #1d2126; --soft: #69707a; --edge: #d9dde2; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3ad; --edge: #343a42; --paper: #16191d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 920px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.soft, small { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--edge); text-align: right; }
th:first-child, td:first-child, td.word, th.word { text-align: left; }
td.who { padding-top: .9rem; }
.bar { display: inline-block; width: 6em; height: .7em; background: var(--edge); }
.bar span { display: block; height: 100%; background: var(--ok); } .bar.over span { background: var(--server); }
.box { border-left: 4px solid var(--edge); padding: .4rem .9rem; margin: 1rem 0; }
.box.good { border-color: var(--ok); } .box.bad { border-color: var(--server); } .box.note { border-color: var(--limited); }
.sentence::first-letter { text-transform: uppercase; }
.good { color: var(--ok); } .bad { color: var(--server); font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--soft); }
svg .grid { stroke: var(--edge); } svg .line { fill: none; stroke-width: 2; }
svg .sent { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 4 3; } svg .heat { fill: var(--redirect); }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }
";

/// The page.
pub fn render(report: &Report) -> String {
    let plan = &report.plan;
    let mut out = String::new();
    let title = format!("{} {}", plan.targets[0].method, plan.targets[0].uri);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>gw bench: {0}</title>\n\
         <style>{STYLE}{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
        escape(&title),
        class_colors()
    );
    summary(&mut out, report);
    latency(&mut out, report);
    pictures(&mut out, report);
    limits(&mut out, report);
    assertions(&mut out, report);
    // `<` is written as an escape, so that no value can end the element.
    let data = json::render(report).to_string().replace('<', "\\u003c");
    let _ =
        write!(out, "<script type=\"application/json\" id=\"gw-bench\">{data}</script>\n</body>\n</html>\n");
    out
}

fn class_colors() -> String {
    let rule = |class: Class| {
        let name = svg::css(class);
        format!(
            "svg rect.{name}, .key.{name} {{ fill: var(--{name}); background: var(--{name}); }} svg .line.{name} {{ stroke: var(--{name}); }}\n"
        )
    };
    Class::ALL.into_iter().map(rule).collect()
}

fn summary(out: &mut String, report: &Report) {
    let (outcome, tally) = (&report.outcome, &report.outcome.tally);
    let model = if report.plan.is_open() { "open loop" } else { "closed loop" };
    let protocol = if report.plan.http2 { "HTTP/2" } else { "HTTP/1.1" };
    let _ = writeln!(
        out,
        "<p class=\"soft\">{model}, {}, {} connections, {protocol}, started {} UTC</p>",
        show_duration(outcome.duration),
        show_count(report.plan.connections as u64),
        started(outcome.started_unix_ns / 1_000_000)
    );
    if report.validity.is_valid() {
        let _ = writeln!(
            out,
            "<div class=\"box good\">Valid: {} of {} offered requests were sent, {} answered ({}).</div>",
            show_count(tally.sent),
            show_count(outcome.offered),
            show_count(tally.answered()),
            show_rate(report.per_second(tally.answered()))
        );
    } else {
        let reasons: Vec<_> = report.validity.reasons.iter().map(|r| escape(r)).collect();
        let _ = writeln!(
            out,
            "<div class=\"box bad\"><span class=\"bad\">Invalid.</span> These numbers mean nothing: {}</div>",
            reasons.join("; ")
        );
    }
    for warning in &report.validity.warnings {
        let _ = writeln!(out, "<div class=\"box note\">{}</div>", escape(warning));
    }
}

/// With the date: a page is kept.
fn started(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn latency(out: &mut String, report: &Report) {
    let tally = &report.outcome.tally;
    let names: String = QUANTILES.iter().map(|(name, _)| format!("<th>{name}</th>")).collect();
    let basis =
        if report.plan.is_open() { "from when a request was due" } else { "from when a request was sent" };
    let _ = writeln!(
        out,
        "<h2>Latency, {basis}</h2>\n<table><tr><th>class</th><th>count</th><th>share</th>{names}<th>max</th></tr>"
    );
    for class in Class::ALL {
        let of_class = tally.class(class);
        if of_class.count > 0 {
            let share = of_class.count as f64 / tally.sent.max(1) as f64 * 100.0;
            let cells = of_class.response.as_deref().map_or(String::new(), cells);
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{share:.1} %</td>{cells}</tr>",
                class.name(),
                show_count(of_class.count)
            );
        }
    }
    out.push_str("</table>\n");
    let failed = Failure::ALL.into_iter().filter(|f| tally.failures[*f as usize] > 0);
    for failure in failed {
        let example = tally.examples[failure as usize].as_deref().unwrap_or("");
        let count = show_count(tally.failures[failure as usize]);
        let _ = writeln!(
            out,
            "<p><span class=\"bad\">{}</span> {count} <small>{}</small></p>",
            failure.name(),
            escape(example)
        );
    }
}

fn cells(latencies: &Latencies) -> String {
    let cell = |ns: Option<u64>| format!("<td>{}</td>", ns.map_or("–".to_owned(), show_ns));
    let mut out: String = QUANTILES.iter().map(|(_, q)| cell(quantile(latencies, *q))).collect();
    out.push_str(&cell(latencies.max()));
    out
}

fn pictures(out: &mut String, report: &Report) {
    let tally = &report.outcome.tally;
    let with_samples = |class: Class| tally.class(class).response.as_deref().map(|l| (class, l));
    let curves: Vec<_> = Class::ALL.into_iter().filter_map(with_samples).collect();
    if curves.is_empty() {
        return;
    }
    out.push_str("<p>");
    for (class, _) in &curves {
        let _ = write!(out, "<span class=\"key {}\"></span>{}", svg::css(*class), class.name());
    }
    out.push_str("</p>\n");
    out.push_str(&svg::percentiles(&curves));
    // Of one or two seconds a picture over time says nothing.
    if tally.timeline.len() < 3 {
        return;
    }
    // More columns than this cannot be told apart.
    const MOST_COLUMNS: usize = 600;
    let ticks = &tally.timeline[..tally.timeline.len().min(MOST_COLUMNS)];
    out.push_str("<h2>Requests each second</h2>\n");
    out.push_str(&svg::per_second(ticks));
    let heat = svg::heat(ticks);
    if !heat.is_empty() {
        out.push_str("<h2>Latency of 2xx answers over time</h2>\n");
        out.push_str(&heat);
    }
}

fn limits(out: &mut String, report: &Report) {
    let sections = lines::sections(report);
    if sections.is_empty() {
        return;
    }
    out.push_str("<h2>Limits</h2>\n");
    if let Some((tone, text)) = lines::conclusion(report) {
        let class = match tone {
            Tone::Good => "good",
            Tone::Bad => "bad",
            Tone::Plain | Tone::Doubtful => "note",
        };
        let _ = writeln!(out, "<div class=\"box {class} sentence\">{}.</div>", escape(&text));
    }
    out.push_str(
        "<table><tr><th>window (UTC)</th><th>offered</th><th>refused</th><th>unclear</th><th>admitted</th><th>allowed</th>\
         <th class=\"word\">used</th><th class=\"word\">verdict</th></tr>\n",
    );
    for section in &sections {
        let _ = writeln!(
            out,
            "<tr><td class=\"word who\" colspan=\"8\"><b>{}</b> <small>{}</small></td></tr>",
            escape(&section.who),
            escape(&section.what).replace('`', "")
        );
        section.lines.iter().for_each(|line| limit_row(out, line));
    }
    out.push_str("</table>\n");
    if sections.iter().flat_map(|s| &s.lines).any(|l| l.row.partial) {
        let _ = writeln!(out, "<p class=\"soft\">{}</p>", lines::PARTIAL_NOTE);
    }
}

fn limit_row(out: &mut String, line: &Line) {
    let row = &line.row;
    let class = match line.tone {
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Plain | Tone::Doubtful => "",
    };
    // The bar ends at the limit; what is beyond has a colour of its own.
    let bar = format!(
        "<span class=\"bar{}\"><span style=\"width: {:.0}%\"></span></span>",
        if line.share > 1.0 { " over" } else { "" },
        line.share.min(1.0) * 100.0
    );
    let _ = writeln!(
        out,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"word\">{bar}</td>\
         <td class=\"word {class}\">{}{}</td></tr>",
        line.window,
        show_count(row.offered),
        show_count(row.rejected),
        show_count(row.unknown),
        line.admitted,
        show_count(row.allowed),
        escape(&line.verdict),
        if row.partial { lines::PARTIAL } else { "" }
    );
}

fn assertions(out: &mut String, report: &Report) {
    if report.assertions.is_empty() {
        return;
    }
    out.push_str("<h2>Assertions</h2>\n<table>\n");
    for a in &report.assertions {
        let mark =
            if a.pass { "<span class=\"good\">ok</span>" } else { "<span class=\"bad\">failed</span>" };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"word\">{}</td><td class=\"word\">{mark}</td></tr>",
            escape(&a.text),
            escape(&a.value)
        );
    }
    out.push_str("</table>\n");
}

/// Text within an element or an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
