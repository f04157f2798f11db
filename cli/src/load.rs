//! Loading a config for a command that needs it to be free of errors.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use gw_runtime::check::{self, Checked};
use gw_runtime::diag::{Severity, has_errors};
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
    let input = read(path)?;
    let (mut sources, mut secrets) = (Sources::default(), Secrets::default());
    let options =
        LoadOptions { allow_unsupported: true, allow_missing_files: true, ..LoadOptions::default() };
    let (model, mut diags) = front::load(&mut sources, &[input], &Env::system(), &options);
    secrets.add(&sources, &model);
    let (checked, errors) = check::run(model);
    diags.extend(errors);
    match checked {
        Some(checked) if !has_errors(&diags) => Ok(checked),
        _ => {
            diags.retain(|d| d.severity == Severity::Error);
            render::sort(&mut diags);
            let count = render::count(diags.len(), "error");
            let file = FileOutcome {
                name: path.display().to_string(),
                contents: String::new(),
                findings: diags.len(),
            };
            let report = Report {
                sources: &sources,
                diags: &diags,
                files: &[file],
                secrets: &secrets,
                elapsed: Duration::ZERO,
                colour: render::colour(),
            };
            eprint!("{}", render::render(Format::Concise, &report));
            Err(WithCode(Code::Findings, format!("`{}` has {count}", path.display())).into())
        }
    }
}
