//! Rules between the fields of a plugin's config, in one wording for all policies.

use std::path::PathBuf;

use super::Cx;
use crate::diag::{Diagnostic, Severity, codes};
use crate::env::unread;
use crate::model::schema::{Record, Val};
use crate::source::Spanned;

/// Whether the config says something in this field: an empty list or text says nothing.
pub fn says(config: &Record, field: &str) -> bool {
    match config.get(field).map(|f| &f.value.value) {
        None | Some(Val::Null) => false,
        Some(Val::List(items)) => !items.is_empty(),
        Some(Val::Map(entries)) => !entries.is_empty(),
        Some(Val::Str(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

impl Cx<'_> {
    /// Reports unless at least one of the fields says something.
    pub fn at_least_one_of(&mut self, config: &Record, fields: &[&str]) -> bool {
        if fields.iter().any(|f| says(config, f)) {
            return true;
        }
        let names = quoted(fields);
        let message = format!("at least one of these fields must be non-empty: {names}");
        self.diags.push(
            Diagnostic::new(&codes::MISSING_ALTERNATIVE, self.place(config), message)
                .help(format!("give {}", names.replace(", ", " or "))),
        );
        false
    }

    /// Reports unless exactly one of the fields says something.
    pub fn exactly_one_of(&mut self, config: &Record, fields: &[&str]) -> bool {
        let given: Vec<&str> = fields.iter().copied().filter(|f| says(config, f)).collect();
        if given.len() == 1 {
            return true;
        }
        let message = format!("exactly one of these fields must be non-empty: {}", quoted(fields));
        let diagnostic = match given[..] {
            [first, second, ..] => {
                Diagnostic::new(&codes::CONFLICTING_FIELDS, config.span_of(second), message)
                    .also(config.span_of(first), "this one is given already")
                    .help(format!("remove `{first}` or `{second}`"))
            }
            _ => Diagnostic::new(&codes::MISSING_ALTERNATIVE, self.place(config), message),
        };
        self.diags.push(diagnostic);
        false
    }

    /// Reports fields that exclude each other; tells whether it did.
    pub fn conflict(&mut self, config: &Record, field: &str, other: &str, message: &str) -> bool {
        if !(says(config, field) && says(config, other)) {
            return false;
        }
        self.diags.push(
            Diagnostic::new(&codes::CONFLICTING_FIELDS, config.span_of(other), message)
                .also(config.span_of(field), "conflicts with this")
                .help(format!("remove `{other}` or `{field}`")),
        );
        true
    }

    /// The file of at most `limit` bytes whose path a field has, from where the config's file stands. `None` where no
    /// files are read in this run, or this one may be missing: then the policy can do nothing but refuse.
    ///
    /// # Errors
    /// It cannot be read, which was reported.
    pub fn file(
        &mut self,
        field: &str,
        path: &Spanned<String>,
        limit: u64,
    ) -> Result<Option<NamedFile>, Reported> {
        let files = &self.model.files;
        if !files.are_read() {
            return Ok(None);
        }
        let shown = self.model.shown(path).to_owned();
        let found = files.locate(path.span.file, path);
        match files.read(&found, limit) {
            Ok(text) => Ok(Some(NamedFile { path: found, shown, text })),
            Err(error) => {
                let message = format!("`{field}`: cannot read `{shown}`: {}", unread(&error));
                let mut diagnostic = Diagnostic::new(&codes::INVALID_VALUE, path.span, message)
                    .help("the path is taken from where the config file stands");
                let optional = files.are_optional();
                if optional {
                    diagnostic.severity = Severity::Warning;
                }
                self.diags.push(diagnostic);
                if optional { Ok(None) } else { Err(Reported) }
            }
        }
    }

    /// The config's place, or the plugin's where it has no config.
    fn place(&self, config: &Record) -> crate::source::Span {
        if config.span.end > config.span.start { config.span } else { self.plugin.span }
    }
}

fn quoted(fields: &[&str]) -> String {
    fields.iter().map(|f| format!("`{f}`")).collect::<Vec<_>>().join(", ")
}

/// A file that a config names.
#[derive(Debug)]
pub struct NamedFile {
    pub path: PathBuf,
    /// The path as a message may show it.
    pub shown: String,
    pub text: String,
}

/// What is wrong was reported.
#[derive(Debug)]
pub struct Reported;
