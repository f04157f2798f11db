//! The one entry to the front end: texts become a [`Model`] and all findings about their shape.
//!
//! Passes never fail: what could be made is returned along with everything that was found. What the findings mean for
//! the caller is the caller's business; [`crate::check::run`] comes next.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use crate::diag::{self, Diagnostic, Diags, Severity, codes};
use crate::env::{self, Env, Files};
use crate::model::{LISTS, Lower, Model, interpolate};
use crate::source::{FileId, Sources, Span};
use crate::yaml::{self, Budget};

/// One text of a config.
#[derive(Clone, Debug)]
pub struct Input {
    /// As the user gave it, for diagnostics.
    pub name: String,
    pub text: Arc<str>,
}

impl Input {
    /// A text that is already here.
    pub fn text(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Reads a file, or standard input for `-`. A file that is not UTF-8 is an error of kind `InvalidData`.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = if path.as_os_str() == "-" {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text)?;
            text
        } else {
            std::fs::read_to_string(path)?
        };
        Ok(Self { name: path.display().to_string(), text: text.into() })
    }
}

/// How strict to be.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// A plugin that Kong has and gw has not is a warning, and is left out, instead of an error.
    pub allow_unsupported: bool,
    /// A file that the config names and that cannot be read is a warning, and is done without, instead of an error.
    pub allow_missing_files: bool,
    pub budget: Budget,
}

/// Reads all inputs into one model; a later file adds to the earlier ones. Findings are in order of place.
pub fn load(sources: &mut Sources, inputs: &[Input], env: &Env, options: &LoadOptions) -> (Model, Diags) {
    let files: Vec<FileId> = inputs.iter().map(|i| sources.add(&i.name, Arc::clone(&i.text))).collect();
    let sources = &*sources;
    let (mut model, mut diags) = (Model::default(), Diags::new());
    model.files = Files::new(env, options.allow_missing_files);
    for (file, input) in files.iter().zip(inputs) {
        model.files.add(*file, &input.name);
    }
    let mut gateway = None;
    for file in files {
        let yaml::Parsed { tree, diags: found, dropped } = yaml::parse(sources, file, &options.budget);
        model.hidden.extend(dropped);
        let broken = diag::has_errors(&found);
        diags.extend(found);
        let Some(mut tree) = tree else {
            model.unreadable.extend(LISTS);
            model.unparsed.push(file);
            if !broken {
                let message = "expected an object: the file is empty";
                diags.push(Diagnostic::new(&codes::WRONG_TYPE, Span::new(file, 0, 0), message));
            }
            continue;
        };
        interpolate::run(&mut tree, sources, env, &mut model.masked, &mut diags);
        let mut lower = Lower::new(sources, &mut diags, &mut model, options, gateway);
        lower.file(&tree);
        gateway = lower.gateway();
    }
    read_authorities(&mut model, env, options, &mut diags);
    diags.sort_by_key(|d| (d.primary.span.file.0, d.primary.span.start));
    (model, diags)
}

/// Reads the files of `gateway.tls.upstream_ca` and `gateway.acme.ca`, where files are read at all.
fn read_authorities(model: &mut Model, surroundings: &Env, options: &LoadOptions, diags: &mut Diags) {
    let gateway = &mut model.gateway;
    let acme = gateway.acme.as_mut().and_then(|a| a.ca.as_mut()).map(|f| ("acme.ca", f));
    let upstream = gateway.tls.upstream_ca.as_mut().map(|f| ("tls.upstream_ca", f));
    for (field, file) in upstream.into_iter().chain(acme).filter(|_| surroundings.has_files()) {
        match surroundings.read(&file.path) {
            Ok(bytes) => file.pem = Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => {
                let span = file.path.span;
                let name =
                    model.masked.get(&span).cloned().unwrap_or_else(|| file.path.display().to_string());
                let why = env::unread(&error);
                let message = format!("`gateway.{field}`: cannot read `{name}`: {why}");
                let mut diagnostic = Diagnostic::new(&codes::BAD_CERTIFICATE, span, message).help(
                    "name a PEM file with the authorities' certificates, from where gw is started or from `/`",
                );
                if options.allow_missing_files {
                    diagnostic.severity = Severity::Warning;
                }
                diags.push(diagnostic);
            }
        }
    }
}

#[cfg(test)]
mod tests;
