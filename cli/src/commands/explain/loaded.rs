//! A config, compiled as `gw serve` compiles it, with the places of everything in it.

use std::path::Path;
use std::sync::Arc;

use gw_runtime::check::Checked;
use gw_runtime::compile;
use gw_runtime::model::Model;
use gw_runtime::snapshot::Snapshot;
use gw_runtime::source::{Sources, Span};

use crate::load;

/// See the module.
pub struct Loaded {
    pub sources: Sources,
    pub model: Checked<Model>,
    pub snapshot: Snapshot,
}

impl Loaded {
    /// Reads and compiles a config; its errors go to stderr.
    pub fn load(file: &Path) -> anyhow::Result<Self> {
        let (model, sources) = load::checked_with_sources(file)?;
        let (snapshot, found) = compile::build(&model, &Arc::default());
        let Some(snapshot) = snapshot else { return Err(load::refused(file, &sources, &model, found)) };
        Ok(Self { sources, model, snapshot })
    }

    /// `FILE:LINE`.
    pub fn place(&self, span: Span) -> String {
        format!("{}:{}", self.sources.file(span.file).name, self.sources.line_col(span).line)
    }
}
