//! The one entry to the front end: texts become a [`Model`] and all findings about their shape.
//!
//! Passes never fail: what could be made is returned along with everything that was found. What the findings mean for
//! the caller is the caller's business; [`crate::check::run`] comes next.

use std::io::{self, Read as _};
use std::path::Path;

use crate::diag::{self, Diagnostic, Diags, codes};
use crate::env::Env;
use crate::model::{LISTS, Lower, Model, interpolate};
use crate::source::{FileId, Sources, Span};
use crate::yaml::{self, Budget};

/// One text of a config.
#[derive(Clone, Debug)]
pub struct Input {
    /// As the user gave it, for diagnostics.
    pub name: String,
    pub text: String,
}

impl Input {
    /// A text that is already here.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
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
        Ok(Self { name: path.display().to_string(), text })
    }
}

/// How strict to be.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// A plugin that Kong has and gw has not is a warning, and is left out, instead of an error.
    pub allow_unsupported: bool,
    pub budget: Budget,
}

/// Reads all inputs into one model; a later file adds to the earlier ones. Findings are in order of place.
pub fn load(sources: &mut Sources, inputs: &[Input], env: &Env, options: &LoadOptions) -> (Model, Diags) {
    let files: Vec<FileId> = inputs.iter().map(|i| sources.add(&i.name, &i.text)).collect();
    let sources = &*sources;
    let (mut model, mut diags) = (Model::default(), Diags::new());
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
    diags.sort_by_key(|d| (d.primary.span.file.0, d.primary.span.start));
    (model, diags)
}

#[cfg(test)]
mod tests;
