//! The look of rustc: code, place, excerpt with labels, help and notes.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use gw_runtime::diag::{Diagnostic, Fix, Severity};
use gw_runtime::source::{FileId, Span};

use super::{Report, one_line};

/// Lines shown before the first and after the last labelled one.
const CONTEXT: usize = 1;

pub fn render(report: &Report<'_>) -> String {
    let renderer = if report.colour { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for d in report.diags {
        out.push_str(&renderer.render(&groups(report, d)));
        out.push_str("\n\n");
    }
    out + &report.summary()
}

fn groups<'a>(report: &Report<'_>, d: &'a Diagnostic) -> Vec<Group<'a>> {
    let level = match d.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut first = level
        .primary_title(one_line(&d.message))
        .id(d.code.id)
        .elements(Vec::<Snippet<'_, Annotation<'_>>>::new());
    let main = d.primary.span.file;
    for (file, window) in windows(report, d) {
        let excerpt = Excerpt::new(report, file, window);
        let mut snippet = excerpt.snippet();
        if file == main {
            snippet = snippet.annotation(
                AnnotationKind::Primary
                    .span(excerpt.range(&bounds(report, d.primary.span)))
                    .label(label(&d.primary.text)),
            );
        }
        for l in d.secondary.iter().filter(|l| l.span.file == file) {
            snippet = snippet.annotation(
                AnnotationKind::Context.span(excerpt.range(&bounds(report, l.span))).label(label(&l.text)),
            );
        }
        first = first.element(snippet);
    }
    for note in &d.notes {
        first = first.element(Level::NOTE.message(note.clone()));
    }
    match (&d.help, &d.fix) {
        (help, Some(fix)) => {
            let title = help.clone().unwrap_or_else(|| "write this instead".to_owned());
            let patch = patch(report, fix);
            vec![first, Level::HELP.secondary_title(title).element(patch)]
        }
        (Some(help), None) => vec![first.element(Level::HELP.message(help.clone()))],
        (None, None) => vec![first],
    }
}

/// An empty label is none.
fn label(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The labelled stretch of every file that the finding speaks of, the primary one first.
fn windows(report: &Report<'_>, d: &Diagnostic) -> Vec<(FileId, Range<usize>)> {
    let mut out: Vec<(FileId, Range<usize>)> = Vec::new();
    for span in std::iter::once(d.primary.span).chain(d.secondary.iter().map(|l| l.span)) {
        let Range { start, end } = bounds(report, span);
        match out.iter_mut().find(|(file, _)| *file == span.file) {
            Some((_, window)) => *window = window.start.min(start)..window.end.max(end),
            None => out.push((span.file, start..end)),
        }
    }
    out
}

/// The span within its file's text, on character boundaries.
fn bounds(report: &Report<'_>, span: Span) -> Range<usize> {
    let text = &report.sources.file(span.file).text;
    let clip = |offset: u32| {
        let mut offset = (offset as usize).min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    };
    let (start, end) = (clip(span.start), clip(span.end));
    // A block of text ends where the next key begins; pointing at its last word is enough.
    let text = &text[start..end.max(start)];
    start..start + if text.trim_end().is_empty() { text.len() } else { text.trim_end().len() }
}

fn patch(report: &Report<'_>, fix: &Fix) -> Snippet<'static, Patch<'static>> {
    let place = fix.span.start as usize..fix.span.end as usize;
    let excerpt = Excerpt::new(report, fix.span.file, bounds(report, fix.span));
    let range = excerpt.range(&place);
    excerpt.snippet().patch(Patch::new(range, fix.replacement.clone()))
}

/// Some whole lines of a file, secrets blotted out. Only these are handed to the renderer, so that a finding in a
/// large file costs no more than one in a small file.
struct Excerpt {
    name: String,
    text: String,
    first_line: usize,
    /// Where the text begins in the file.
    offset: usize,
}

impl Excerpt {
    fn new(report: &Report<'_>, file: FileId, window: Range<usize>) -> Self {
        let source = report.sources.file(file);
        let text = &*source.text;
        let mut start = text[..window.start].rfind('\n').map_or(0, |i| i + 1);
        let mut end = text[window.end..].find('\n').map_or(text.len(), |i| window.end + i);
        for _ in 0..CONTEXT {
            if start > 0 {
                start = text[..start - 1].rfind('\n').map_or(0, |i| i + 1);
            }
            if end < text.len() {
                end = text[end + 1..].find('\n').map_or(text.len(), |i| end + 1 + i);
            }
        }
        Self {
            name: one_line(&source.name),
            text: report.secrets.redact(file, text, start..end),
            first_line: source.line_col(start).line,
            offset: start,
        }
    }

    fn snippet<T: Clone>(&self) -> Snippet<'static, T> {
        Snippet::source(self.text.clone()).line_start(self.first_line).path(self.name.clone())
    }

    /// A place of the file as the excerpt counts.
    fn range(&self, span: &Range<usize>) -> Range<usize> {
        let clip = |offset: usize| offset.saturating_sub(self.offset).min(self.text.len());
        clip(span.start)..clip(span.end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, tests::sample};

    #[test]
    fn excerpts_point_and_help_mends() {
        let out = sample(Format::Full);
        for part in [
            "error[GW1002]: unknown field `pahts`",
            " --> a b.yaml:3:5",
            "^^^^^ not a field of a route",
            "note: fields are case-sensitive",
            "help: did you mean `paths`?",
            "of this field",
            "1 error, 1 warning in 1 file (14 ms)",
        ] {
            assert!(out.contains(part), "no `{part}` in\n{out}");
        }
    }
}
