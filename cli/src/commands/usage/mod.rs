//! `gw usage`: who has used how much of which limit.

mod admin;
mod render;

use std::path::PathBuf;
use std::sync::Arc;

use gw_runtime::clock;
use gw_runtime::compile;
use gw_runtime::diag::has_errors;
use gw_runtime::limit::{LocalStore, counter_file};
use gw_runtime::snapshot::Snapshot;
use gw_runtime::snapshot::shared::Shared;
use gw_runtime::usage::{self, Filter, Row, Stores};

use crate::exit::{Code, WithCode};
use crate::load;
use crate::output::print;

/// Arguments of `gw usage`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Counters in Redis are read there, those of a single gateway from `gateway.counter_file`, which lags a second behind. A \
running gateway tells what it has in memory, too: ask its admin listener.

Counters by address, header or claim are listed with --keys: no config knows whose they are, so they are searched for, in \
Redis by SCAN. Values of headers that may be credentials are shown as digests.

Examples:
  gw usage kong.yaml
  gw usage kong.yaml --plan free --at-least 80
  gw usage kong.yaml --keys 10
  gw usage --admin 127.0.0.1:8001 --consumer alice --format json

Exit codes: 0 fine; 1 for a config with errors; 2 for wrong usage, such as an unknown consumer; 3 where counters cannot be \
read.")]
pub struct Args {
    /// The config that names consumers and limits; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "admin", conflicts_with = "admin")]
    file: Option<PathBuf>,
    /// Ask the gateway that has its admin listener here
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<String>,
    /// Read the counters of a single gateway from here [default: the config's `gateway.counter_file`]
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    counter_file: Option<PathBuf>,
    /// Only of this consumer, by username, custom id or id (repeatable)
    #[arg(long = "consumer", value_name = "NAME")]
    consumers: Vec<String>,
    /// Only of this plan: a consumer group with limits (repeatable)
    #[arg(long = "plan", value_name = "NAME")]
    plans: Vec<String>,
    /// Only of this route, by name or id (repeatable)
    #[arg(long = "route", value_name = "NAME")]
    routes: Vec<String>,
    /// List so many counters of each limit that are of no consumer, the fullest first: addresses, header values, claims
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    keys: u16,
    /// Only limits of which at least so many percent are used
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    at_least: u32,
    /// How to report
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Formats of the report.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Table,
    Csv,
    Json,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Code> {
    let filter = Filter {
        consumers: args.consumers.clone(),
        plans: args.plans.clone(),
        routes: args.routes.clone(),
        keys: args.keys.into(),
    };
    let rows = match (&args.admin, &args.file) {
        (Some(admin), _) => admin::ask(admin, &filter)?,
        (None, Some(file)) => match of_config(file, args, &filter)? {
            Some(rows) => rows,
            None => return Ok(Code::Findings),
        },
        // clap sees to it that there is one.
        (None, None) => Vec::new(),
    };
    let rows: Vec<Row> = rows.into_iter().filter(|r| r.used_percent >= args.at_least).collect();
    print(&match args.format {
        Format::Table => render::table(&rows),
        Format::Csv => render::csv(&rows),
        Format::Json => format!("{:#}\n", usage::to_json(&rows, clock::unix_ms())),
    })?;
    Ok(Code::Ok)
}

/// What the counters of a config's consumers say; None for a config with errors.
fn of_config(file: &std::path::Path, args: &Args, filter: &Filter) -> anyhow::Result<Option<Vec<Row>>> {
    let checked = load::checked(file)?;
    let (snapshot, findings) = compile::build(&checked, &Arc::<Shared>::default());
    let Some(snapshot) = snapshot.filter(|_| !has_errors(&findings)) else {
        eprintln!("`{}` has errors; `gw validate` shows them", file.display());
        return Ok(None);
    };
    filter.check(&snapshot).map_err(|why| WithCode(Code::Usage, why))?;
    let counters = usage::counters(&snapshot, filter);
    let store = LocalStore::default();
    let searches = filter.keys > 0 && kept_file(args, &snapshot).is_some();
    if searches || counters.iter().any(|c| c.redis.is_none()) {
        let Some(kept) = kept_file(args, &snapshot) else {
            let message = format!(
                "`{}` counts in the gateway's memory: ask it with --admin, or let `gateway.counter_file` keep counters",
                file.display()
            );
            return Err(WithCode(Code::Usage, message).into());
        };
        let unreadable = |e: std::io::Error| {
            WithCode(Code::Environment, format!("cannot read counters from `{}`: {e}", kept.display()))
        };
        counter_file::read(&kept, &store, clock::unix_ms()).map_err(unreadable)?;
    }
    let stores = Stores { local: &store };
    let unread = |e: std::io::Error| WithCode(Code::Environment, format!("cannot read counters: {e}"));
    let mut rows = usage::rows(&counters, stores).map_err(unread)?;
    rows.extend(usage::fullest(&snapshot, filter, &counters, stores).map_err(unread)?);
    Ok(Some(rows))
}

fn kept_file(args: &Args, snapshot: &Snapshot) -> Option<PathBuf> {
    args.counter_file.clone().or_else(|| snapshot.gateway.counter_file.clone())
}
