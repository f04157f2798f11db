//! Diagnostics as data. Rendering is the command line's business; this module knows no terminal.

pub mod codes;
pub mod suggest;

use crate::source::Span;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Error,
    Warning,
    /// Worth knowing; nothing is wrong.
    Note,
}

/// One kind of finding: a row of [`codes::ALL`].
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// `GW` and four digits: 1xxx syntax and shape, 2xxx references and semantics, 3xxx unsupported, 4xxx lints.
    pub id: &'static str,
    /// The finding in kebab-case.
    pub name: &'static str,
    /// What the severity is when nobody changes it.
    pub severity: Severity,
    /// Markdown for `gw explain CODE`: what it means, why it matters, an example, what to do.
    pub explain: &'static str,
}

/// A place in a file and what is to be said of it.
#[derive(Clone, Debug)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// Whether a fix may be applied unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applicability {
    Safe,
    Unsafe,
}

/// A change of the text that mends a finding.
#[derive(Clone, Debug)]
pub struct Fix {
    pub span: Span,
    pub replacement: String,
    pub applicability: Applicability,
}

/// One finding. The message states, labels point, `help` says what to do, notes explain.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub code: &'static Code,
    pub severity: Severity,
    pub message: String,
    pub primary: Label,
    pub secondary: Vec<Label>,
    pub help: Option<String>,
    pub notes: Vec<String>,
    pub fix: Option<Fix>,
}

impl Diagnostic {
    /// A finding of `code` at `span`, with the code's own severity.
    pub fn new(code: &'static Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity,
            message: message.into(),
            primary: Label { span, text: String::new() },
            secondary: Vec::new(),
            help: None,
            notes: Vec::new(),
            fix: None,
        }
    }

    /// What stands under the pointed-at place.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.primary.text = text.into();
        self
    }

    /// A second place that belongs to the finding.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.secondary.push(Label { span, text: text.into() });
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// An explanation.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// A change that mends it.
    #[must_use]
    pub fn fix(mut self, span: Span, replacement: impl Into<String>, applicability: Applicability) -> Self {
        self.fix = Some(Fix { span, replacement: replacement.into(), applicability });
        self
    }
}

/// All findings of a run, in the order in which they were made.
pub type Diags = Vec<Diagnostic>;

/// Whether any finding is an error.
pub fn has_errors(diags: &[Diagnostic]) -> bool {
    diags.iter().any(|d| d.severity == Severity::Error)
}
