//! `gw explain`: what a diagnostic code means, what becomes of a request, and which settings are in force.

pub mod code;
mod config;
mod loaded;
mod parts;
mod request;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::exit::{Code, WithCode};
use crate::output;
use loaded::Loaded;

/// Arguments of `gw explain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gw explain GW2001                                         what a finding means
  gw explain GET /orders/7 --config kong.yaml               which route, why, which plugins, which service
  gw explain GET https://api.test/orders/7 --config kong.yaml --header 'x-client: mobile' --consumer alice
  gw explain config --config kong.yaml -- --workers 2       every setting in force, and who says so")]
pub struct Args {
    /// A code or its name (GW1002, unknown-field), a request's method, or the word `config`
    #[arg(value_name = "CODE|METHOD|config", required_unless_present = "list")]
    what: Option<String>,
    /// The request's URL or path
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// The config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A header of the request, `Name: value` (repeatable)
    #[arg(long, short = 'H', value_name = "HEADER", requires = "url")]
    header: Vec<String>,
    /// The consumer that the request turns out to come from, by username or id
    #[arg(long, value_name = "NAME", requires = "url")]
    consumer: Option<String>,
    /// List every code
    #[arg(long, conflicts_with = "what")]
    list: bool,
    /// With `config`: flags of `gw serve`, which win over the file
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let text = match (&args.what, &args.url) {
        (None, _) => code::list(),
        (Some(word), None) if word == "config" => {
            let file = wanted(args.config, "gw explain config")?;
            config::render(&Loaded::load(&file)?, &config::flags(&file, &args.flags)?)
        }
        (Some(text), None) => code::page(code::find(text)?),
        (Some(method), Some(url)) => {
            let file = wanted(args.config, "gw explain METHOD URL")?;
            let asked = request::Asked::new(method, url, &args.header, args.consumer)?;
            request::render(&Loaded::load(&file)?, &asked)?
        }
    };
    output::print(&text)?;
    Ok(Code::Ok)
}

fn wanted(config: Option<PathBuf>, what: &str) -> Result<PathBuf, WithCode> {
    config.ok_or_else(|| WithCode(Code::Usage, format!("`{what}` needs `--config FILE`")))
}
