//! Loading a config for a command that needs it to be free of errors.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use gw_runtime::check::{self, Checked};
use gw_runtime::diag::{Diags, Severity, has_errors};
use gw_runtime::env::Env;
use gw_runtime::front::{self, Input, LoadOptions};
use gw_runtime::model::Model;
use gw_runtime::source::Sources;

use crate::exit::{Code, WithCode};
use crate::render::{self, FileOutcome, Format, Report, Secrets};

/// Reads a config's text; `-` is standard input.
pub fn read(path: &Path) -> Result<Input, WithCode> {
    Input::read(path)
        .map_err(|e| WithCode(Code::Usage, format!("cannot read `{}`: {}", path.display(), reason(&e))))
}

/// What the system said, without its number.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads and checks a config. Its errors go to stderr; warnings are `gw validate`'s business.
pub fn checked(path: &Path) -> anyhow::Result<Checked<Model>> {
    Ok(checked_with_sources(path)?.0)
}

/// The same, with the texts that spans of the model point into.
pub fn checked_with_sources(path: &Path) -> anyhow::Result<(Checked<Model>, Sources)> {
    let input = read(path)?;
    let (mut sources, mut secrets) = (Sources::default(), Secrets::default());
    let options =
        LoadOptions { allow_unsupported: true, allow_missing_files: true, ..LoadOptions::default() };
    let (model, mut diags) = front::load(&mut sources, &[input], &Env::system(), &options);
    secrets.add(&sources, &model);
    let (checked, errors) = check::run(model);
    diags.extend(errors);
    match checked {
        Some(checked) if !has_errors(&diags) => Ok((checked, sources)),
        _ => Err(report(path, &sources, &secrets, diags)),
    }
}

/// What is said of a config that does not compile.
pub fn refused(path: &Path, sources: &Sources, model: &Checked<Model>, diags: Diags) -> anyhow::Error {
    let mut secrets = Secrets::default();
    secrets.add(sources, model);
    report(path, sources, &secrets, diags)
}

fn report(path: &Path, sources: &Sources, secrets: &Secrets, mut diags: Diags) -> anyhow::Error {
    diags.retain(|d| d.severity == Severity::Error);
    render::sort(&mut diags);
    let count = render::count(diags.len(), "error");
    let file =
        FileOutcome { name: path.display().to_string(), contents: String::new(), findings: diags.len() };
    let report = Report {
        sources,
        diags: &diags,
        files: &[file],
        secrets,
        elapsed: Duration::ZERO,
        colour: render::colour(),
    };
    eprint!("{}", render::render(Format::Concise, &report));
    WithCode(Code::Findings, format!("`{}` has {count}", path.display())).into()
}
