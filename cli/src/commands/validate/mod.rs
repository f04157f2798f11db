//! `gw validate`: every mistake and every risk of a config, in one run.

mod fix;
mod levels;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use gw_runtime::diag::{Diags, Severity, has_errors};
use gw_runtime::env::Env;
use gw_runtime::front::{self, Input, LoadOptions};
use gw_runtime::model::Model;
use gw_runtime::source::Sources;
use gw_runtime::{check, compile, lint};

use crate::exit::Code;
use crate::load::read;
use crate::output;
use crate::render::{self, FileOutcome, Format, Report, Secrets};
use levels::Levels;

/// Arguments of `gw validate`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit codes: 0 without errors, 1 with errors, 2 for wrong usage or a file that cannot be read. \
Each file is a config of its own. `gw explain CODE` says more about a finding.")]
pub struct Args {
    /// Configs to check; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How findings are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    levels: levels::LevelArgs,
    /// Warn about plugins of Kong that gw does not have, instead of refusing them
    #[arg(long)]
    allow_unsupported: bool,
    /// Apply the fixes that are safe, then check again
    #[arg(long)]
    fix: bool,
    /// Use no files besides the configs, and no environment variables
    #[arg(long)]
    offline: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let started = Instant::now();
    let levels = Levels::new(&args.levels)?;
    let inputs = args.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let env = if args.offline { Env::empty() } else { Env::system() };
    let options = LoadOptions { allow_unsupported: args.allow_unsupported, ..LoadOptions::default() };

    let mut run = Run { levels, env, options, sources: Sources::default(), secrets: Secrets::default() };
    let (mut diags, mut files) = (Diags::new(), Vec::new());
    for (path, input) in args.files.iter().zip(inputs) {
        let (found, contents) = if args.fix { run.fixed(path, input)? } else { run.validate(&input) };
        files.push(FileOutcome { name: path.display().to_string(), contents, findings: found.len() });
        diags.extend(found);
    }

    let report = Report {
        sources: &run.sources,
        diags: &diags,
        files: &files,
        secrets: &run.secrets,
        elapsed: started.elapsed(),
        colour: render::colour(),
    };
    output::print(&render::render(args.format, &report))?;
    Ok(if has_errors(&diags) { Code::Findings } else { Code::Ok })
}

/// What all files of a run share.
struct Run {
    levels: Levels,
    env: Env,
    options: LoadOptions,
    sources: Sources,
    secrets: Secrets,
}

impl Run {
    /// All findings of one config in the order of their places, and what the config holds.
    fn validate(&mut self, input: &Input) -> (Diags, String) {
        let (model, mut diags) =
            front::load(&mut self.sources, std::slice::from_ref(input), &self.env, &self.options);
        self.secrets.add(&self.sources, &model);
        let contents = contents(&model);
        let mut advice =
            lint::run(&model, &self.sources, !has_errors(&diags), &|code| self.levels.wants(code));
        let shared = Arc::default();
        let by_itself = compile::plugins::findings(&model, &diags, &shared);
        let (checked, errors) = check::run(model);
        diags.extend(errors);
        match checked.filter(|_| !has_errors(&diags)) {
            Some(checked) => diags.extend(compile::build(&checked, &shared).1),
            None => diags.extend(by_itself),
        }
        if has_errors(&diags) {
            advice.retain(|d| !lint::needs_whole(d.code));
        }
        diags.append(&mut advice);
        diags.retain(|d| d.severity == Severity::Error || !lint::is_silenced(&self.sources, d));
        self.levels.apply(&mut diags);
        render::sort(&mut diags);
        diags.dedup_by(|a, b| {
            a.code.id == b.code.id && a.primary.span == b.primary.span && a.message == b.message
        });
        (diags, contents)
    }

    /// The same, after safe fixes were written to the file.
    fn fixed(&mut self, path: &Path, mut input: Input) -> anyhow::Result<(Diags, String)> {
        // A fix may uncover another finding; each round must leave fewer fixable ones.
        let mut fixable = usize::MAX;
        loop {
            let (diags, contents) = self.validate(&input);
            let patch = fix::patch(&self.sources, &self.secrets, &input.text, &diags);
            if patch.changes.is_empty() || patch.changes.len() >= fixable {
                return Ok((diags, contents));
            }
            fixable = patch.changes.len();
            fix::store(path, &patch.text)?;
            for change in &patch.changes {
                eprintln!("fixed {change}");
            }
            input.text = patch.text.into();
        }
    }
}

/// `1 service, 2 routes`: what a config holds, without what it has none of.
fn contents(model: &Model) -> String {
    let counts = [
        (model.services.len(), "service"),
        (model.routes.len(), "route"),
        (model.consumers.len(), "consumer"),
        (model.consumer_groups.len(), "consumer group"),
        (model.plugins.len(), "plugin"),
        (model.upstreams.len(), "upstream"),
        (model.certificates.len(), "certificate"),
    ];
    let parts: Vec<String> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| render::count(*n, noun)).collect();
    if parts.is_empty() { "empty".to_owned() } else { parts.join(", ") }
}
