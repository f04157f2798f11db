//! `gw token verify`: whether a token is good, by a config or by an issuer's key set.

use std::path::PathBuf;

use gw_runtime::clock;
use gw_runtime::token::claims::Times;
use gw_runtime::token::issuer::Issuer;
use gw_runtime::token::jwk::JwkSet;
use gw_runtime::token::parse::parse_traced;
use gw_runtime::token::trace::{Check, Outcome, Report};
use gw_runtime::token::{MAX_TOKEN, check, issuer, parse};
use serde_json::json;

use super::source::Source;
use super::{explain, judge, print};
use crate::exit::{Code, WithCode};

/// Arguments of `gw token verify`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
With --config the gateway's own policy judges; `gw token explain` shows every check of it. \
With --jwks the signature alone would say little, so --issuer and --audience are asked for too.

The exit code is 0 if the token is good, and 1 if not.")]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// The config whose `jwt` plugin judges
    #[arg(long, value_name = "FILE", required_unless_present = "jwks")]
    config: Option<PathBuf>,
    /// Name or id of the route, where the config has several `jwt` plugins
    #[arg(long, value_name = "NAME", requires = "config")]
    route: Option<String>,
    /// The key set (RFC 7517) that judges, instead of a config
    #[arg(long, value_name = "FILE", conflicts_with = "config", requires = "issuer")]
    jwks: Option<PathBuf>,
    /// What `iss` must be
    #[arg(long, value_name = "ISS", requires = "jwks")]
    issuer: Option<String>,
    /// What `aud` must have; may be repeated, one is enough
    #[arg(long = "audience", value_name = "AUD", requires = "jwks", required_unless_present_any = ["config", "any_audience"])]
    audiences: Vec<String>,
    /// Do not look at `aud`: a token for another service passes too
    #[arg(long, requires = "jwks", conflicts_with = "audiences")]
    any_audience: bool,
    /// Judge as at this moment (seconds since 1970) instead of now
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    /// Ask no issuer for its keys
    #[arg(long, requires = "config")]
    offline: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Code> {
    let now = args.at.unwrap_or_else(clock::unix_s);
    let (checks, good, who) = match (&args.jwks, &args.config) {
        (Some(_), _) => by_jwks(args, now)?,
        (None, Some(config)) => {
            let model = crate::load::checked(config)?;
            let token = args.source.read()?;
            let route = args.route.as_deref();
            let question = judge::Question { token: &token, route, now, offline: args.offline };
            let judged = judge::judge(&model, &question)?;
            let who = judged.consumer.map(|name| format!(" as consumer `{name}`")).unwrap_or_default();
            (judged.checks, judged.reply.is_none() && !judged.anonymous, who)
        }
        (None, None) => return Err(WithCode(Code::Usage, "give `--config` or `--jwks`".into()).into()),
    };
    if args.json {
        let checks: Vec<_> = checks.iter().map(explain::check_json).collect();
        let value = json!({"schema": "gw.token.verdict", "version": 2, "accepted": good, "checks": checks});
        print(&format!("{value:#}\n"))?;
    } else {
        let failed = checks.iter().filter(|c| c.outcome == Outcome::Fail);
        let mut out: String = failed.map(explain::line).collect();
        out.push_str(&if good { format!("accepted{who}\n") } else { "refused\n".to_owned() });
        print(&out)?;
    }
    Ok(if good { Code::Ok } else { Code::Findings })
}

fn by_jwks(args: &Args, now: u64) -> anyhow::Result<(Vec<Check>, bool, String)> {
    let path = args.jwks.as_deref().unwrap_or("-".as_ref());
    let set = JwkSet::parse(super::read(path)?.as_bytes())
        .map_err(|e| WithCode(Code::Usage, format!("`{}`: {e}", path.display())))?;
    let name = args.issuer.clone().unwrap_or_default();
    let issuer = Issuer::for_tool(name, set, args.audiences.clone());
    let token = args.source.read()?;
    let mut report = Report::default();
    let judged = parse_traced(token.as_bytes(), MAX_TOKEN, &mut report).map_err(check::Denial::from);
    let judged = judged.and_then(|token| {
        let signed = issuer.check(&token, &mut report);
        let in_time = issuer.check_times(&Times::of(&token.claims), now, &mut report);
        signed.and(in_time)
    });
    if let Err(denial) = judged {
        report.failed(denial);
    }
    report.fill(parse::CHECKS);
    report.fill(issuer::CHECKS);
    Ok((report.checks, report.denial.is_none(), String::new()))
}
