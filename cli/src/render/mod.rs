//! One file an output format: diagnostics to text. Nothing here decides what is a finding.

mod concise;
mod full;
mod github;
mod json;
mod redact;
mod sarif;

use std::io::IsTerminal as _;
use std::time::Duration;

use gw_runtime::diag::{Applicability, Diagnostic, Severity};
use gw_runtime::source::{LineCol, Sources, Span};

pub use redact::Secrets;

/// How findings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Excerpts with labels, for people
    #[default]
    Full,
    /// One finding a line: PATH:LINE:COL: error[CODE]: message
    Concise,
    /// One JSON document
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Workflow commands, which GitHub shows beside the changed lines
    Github,
}

/// Everything that one run found.
pub struct Report<'a> {
    pub sources: &'a Sources,
    /// In the order of [`sort`].
    pub diags: &'a [Diagnostic],
    pub files: &'a [FileOutcome],
    /// Values that excerpts must not show.
    pub secrets: &'a Secrets,
    pub elapsed: Duration,
    pub colour: bool,
}

/// What became of one file.
pub struct FileOutcome {
    /// As the user named it.
    pub name: String,
    /// `1 service, 2 routes`: what a file without findings holds.
    pub contents: String,
    pub findings: usize,
}

/// The report in one of the formats, with a line feed at the end.
pub fn render(format: Format, report: &Report<'_>) -> String {
    match format {
        Format::Full => full::render(report),
        Format::Concise => concise::render(report),
        Format::Json => json::render(report),
        Format::Sarif => sarif::render(report),
        Format::Github => github::render(report),
    }
}

/// Puts findings in the order of files and places; at one place errors come first.
pub fn sort(diags: &mut [Diagnostic]) {
    diags.sort_by_key(|d| (d.primary.span.file.0, d.primary.span.start, d.severity, d.code.id));
}

/// Whether stdout is a terminal that wants colour (<https://no-color.org>).
pub fn colour() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    std::io::stdout().is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// `error`, `warning` or `note`.
fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// Where a span starts and ends.
fn places(sources: &Sources, span: Span) -> (LineCol, LineCol) {
    let file = sources.file(span.file);
    (file.line_col(span.start as usize), file.line_col(span.end as usize))
}

/// Text that stays on its line and cannot steer a terminal.
fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// `2 errors`, `1 route`.
pub fn count(n: usize, noun: &str) -> String {
    let plural = match noun.strip_suffix('y') {
        Some(stem) if n != 1 => format!("{stem}ies"),
        _ if n == 1 => noun.to_owned(),
        _ => format!("{noun}s"),
    };
    format!("{n} {plural}")
}

impl Report<'_> {
    fn number_of(&self, severity: Severity) -> usize {
        self.diags.iter().filter(|d| d.severity == severity).count()
    }

    /// The closing lines: what is fine, and how many findings there are.
    fn summary(&self) -> String {
        let mut out = String::new();
        for file in self.files.iter().filter(|f| f.findings == 0) {
            out.push_str(&one_line(&file.name));
            out.push_str(": ok");
            if !file.contents.is_empty() {
                out.push_str(&format!(" ({})", file.contents));
            }
            out.push('\n');
        }
        let kinds = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
        let kinds = kinds.map(|(severity, noun)| (self.number_of(severity), noun));
        let parts: Vec<String> =
            kinds.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| count(*n, noun)).collect();
        if !parts.is_empty() {
            let files = self.files.iter().filter(|f| f.findings > 0).count();
            let (parts, files) = (parts.join(", "), count(files, "file"));
            out.push_str(&format!("{parts} in {files} ({} ms)", self.elapsed.as_millis()));
            let safe =
                |d: &&Diagnostic| d.fix.as_ref().is_some_and(|f| f.applicability == Applicability::Safe);
            match self.diags.iter().filter(safe).count() {
                0 => {}
                n => out.push_str(&format!("; {n} can be fixed with `--fix`")),
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use gw_runtime::diag::codes;

    /// Renders two findings about a small file.
    pub fn sample(format: Format) -> String {
        let mut sources = Sources::default();
        let text = "_format_version: \"3.0\"\nroutes:\n  - pahts: [/a]\n    name: é \"x\"\n";
        let file = sources.add("a b.yaml", text);
        let at = |what: &str| {
            let start = text.find(what).expect("the text is right above");
            Span::new(file, start, start + what.len())
        };
        let mut diags = vec![
            Diagnostic::new(codes::find("GW1003").expect("exists"), at("\"x\""), "expected a list\nof text")
                .label("this is text")
                .also(at("name"), "of this field"),
            Diagnostic::new(codes::find("GW1002").expect("exists"), at("pahts"), "unknown field `pahts`")
                .label("not a field of a route")
                .help("did you mean `paths`?")
                .note("fields are case-sensitive")
                .fix(at("pahts"), "paths", Applicability::Safe),
        ];
        diags[0].severity = Severity::Warning;
        sort(&mut diags);
        let files = [
            FileOutcome { name: "a b.yaml".into(), contents: String::new(), findings: 2 },
            FileOutcome { name: "c.yaml".into(), contents: "1 service".into(), findings: 0 },
        ];
        let report = Report {
            sources: &sources,
            diags: &diags,
            files: &files,
            secrets: &Secrets::default(),
            elapsed: Duration::from_millis(14),
            colour: false,
        };
        render(format, &report)
    }

    #[test]
    fn numbers_agree_with_their_nouns() {
        for (n, noun, want) in [
            (1, "route", "1 route"),
            (0, "route", "0 routes"),
            (2, "entity", "2 entities"),
            (1, "entity", "1 entity"),
        ] {
            assert_eq!(count(n, noun), want);
        }
    }

    #[test]
    fn text_from_a_file_cannot_steer_the_terminal() {
        assert_eq!(one_line("a\u{1b}[31m\nb"), "a\\u{1b}[31m b");
    }
}
