//! `gw token explain`: why a token is let in or not, check by check, and what the gateway answers.

use std::fmt::Write as _;
use std::path::PathBuf;

use gw_runtime::clock;
use gw_runtime::policy::Reply;
use gw_runtime::token::trace::{Check, Outcome};
use serde_json::{Value, json};

use super::judge::{Judgement, Question, judge};
use super::print;
use super::source::Source;
use crate::exit::Code;

/// Arguments of `gw token explain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  gw token explain --config kong.yaml --route orders < token.txt

An issuer's keys are fetched as the gateway fetches them.

The exit code is 0 if the token is let in, and 1 if not.")]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// The config whose `jwt` plugin judges
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name or id of the route, where the config has several `jwt` plugins
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Judge as at this moment (seconds since 1970) instead of now
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    /// Ask no issuer for its keys, so that a token of one that publishes them cannot be judged
    #[arg(long)]
    offline: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Code> {
    let model = crate::load::checked(&args.config)?;
    let token = args.source.read()?;
    let question = Question {
        token: &token,
        route: args.route.as_deref(),
        now: args.at.unwrap_or_else(clock::unix_s),
        offline: args.offline,
    };
    let judgement = judge(&model, &question)?;
    print(&if args.json { as_json(&judgement) } else { as_text(&judgement) })?;
    Ok(if judgement.reply.is_none() { Code::Ok } else { Code::Findings })
}

fn as_text(j: &Judgement) -> String {
    let mut out = format!("route `{}`; the token is looked for in {}\n", j.route, j.places);
    let _ = writeln!(out, "{}\n", headline(j));
    for check in &j.checks {
        out.push_str(&line(check));
    }
    for note in &j.notes {
        let _ = writeln!(out, "\nnote: {note}");
    }
    match &j.reply {
        _ if j.undecided => {}
        Some(reply) => {
            let _ = writeln!(out, "\nthe gateway refuses it with\n{}", indented(reply));
        }
        None => {
            let who = match (&j.consumer, j.anonymous) {
                (Some(name), true) => format!("goes on as the anonymous consumer `{name}`"),
                (Some(name), false) => format!("is let in as consumer `{name}`"),
                (None, _) => "is let in; its bearer is none of the config's consumers".into(),
            };
            let _ = writeln!(out, "\nthe request {who}, and the upstream is told");
            for (name, value) in &j.upstream_fields {
                let _ = writeln!(out, "  {name}: {value}");
            }
        }
    }
    out
}

/// The outcome, with what fails first and what to do about it, so that nobody has to read on.
fn headline(j: &Judgement) -> String {
    let failed: Vec<&Check> = j.checks.iter().filter(|c| c.outcome == Outcome::Fail).collect();
    let mut out = match (&j.reply, j.undecided) {
        (_, true) => {
            "undecided: the gateway asks the issuer for its keys, which `--offline` forbids".to_owned()
        }
        (Some(reply), _) => format!("refused with {}", reply.status),
        (None, _) if j.anonymous => "let in, but only as the anonymous consumer".to_owned(),
        (None, _) => return "let in".to_owned(),
    };
    let Some((first, rest)) = failed.split_first() else { return out };
    let Check { name, evidence, note, .. } = first;
    let _ = write!(out, "; `{name}` fails: {}, expected {}", evidence.actual, evidence.expected);
    if !note.is_empty() {
        let _ = write!(out, "\n  {note}");
    }
    if !rest.is_empty() {
        let names: Vec<String> = rest.iter().map(|c| format!("`{}`", c.name)).collect();
        let _ = write!(out, "\n  fails too: {}", names.join(", "));
    }
    out
}

/// A check in one to three lines.
pub fn line(check: &Check) -> String {
    let word = check.outcome.word().to_ascii_uppercase();
    let evidence = &check.evidence;
    match check.outcome {
        Outcome::Skip => format!("{word}  {:<19} {}\n", check.name, check.note),
        Outcome::Pass => {
            format!("{word}  {:<19} {} (expected: {})\n", check.name, evidence.actual, evidence.expected)
        }
        Outcome::Fail => {
            let mut out = format!("{word}  {:<19} {}\n", check.name, evidence.actual);
            let _ = writeln!(out, "{:25} expected: {}", "", evidence.expected);
            if !check.note.is_empty() {
                let _ = writeln!(out, "{:25} help: {}", "", check.note);
            }
            out
        }
    }
}

/// The answer as it is on the wire, without what every answer has (`Date`, `Server`, lengths).
fn indented(reply: &Reply) -> String {
    let mut out = format!("  HTTP {}\n", reply.status);
    for (name, value) in fields(reply) {
        let _ = writeln!(out, "  {name}: {value}");
    }
    for line in String::from_utf8_lossy(&reply.body).lines() {
        let _ = write!(out, "\n  {line}");
    }
    out
}

fn fields(reply: &Reply) -> Vec<(String, String)> {
    let mut fields = gw_runtime::message::Fields::default();
    reply.write_fields(&mut fields);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn as_json(j: &Judgement) -> String {
    let pairs = |list: &[(String, String)]| -> Value {
        list.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
    };
    let response = j.reply.as_ref().filter(|_| !j.undecided).map(|reply| {
        json!({
            "status": reply.status,
            "headers": pairs(&fields(reply)),
            "body": String::from_utf8_lossy(&reply.body),
        })
    });
    let value = json!({
        "schema": "gw.token.explanation",
        "version": 1,
        "route": j.route,
        "accepted": (!j.undecided).then_some(j.reply.is_none()),
        "anonymous": j.anonymous,
        "consumer": j.consumer,
        "checks": j.checks.iter().map(check_json).collect::<Vec<_>>(),
        "response": response,
        "upstream_headers": j.reply.is_none().then(|| pairs(&j.upstream_fields)),
        "notes": j.notes,
    });
    format!("{value:#}\n")
}

/// A check as data.
pub fn check_json(check: &Check) -> Value {
    let mut value = json!({"check": check.name, "result": check.outcome.word()});
    let texts =
        [("actual", &check.evidence.actual), ("expected", &check.evidence.expected), ("note", &check.note)];
    for (name, text) in texts {
        if !text.is_empty() {
            value[name] = text.as_str().into();
        }
    }
    value
}
