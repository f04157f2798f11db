//! `gw token verify`: the gateway's own checks, one by one.

use std::fmt::Write as _;
use std::path::PathBuf;

use gw_runtime::check::Checked;
use gw_runtime::clock;
use gw_runtime::model::Model;
use gw_runtime::token::check::{Denial, Rules, Signed, Step};
use gw_runtime::token::config;
use serde_json::{Value, json};

use super::print;
use crate::exit::{Code, WithCode};

/// Arguments of `gw token verify`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The token; `-` reads it from standard input
    #[arg(value_name = "TOKEN")]
    token: String,
    /// The config whose `jwt` plugin judges
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name or id of the route, where the config has several `jwt` plugins
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Judge as at this moment (seconds since 1970) instead of now
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// The checks and what people call them.
const STEPS: &[(Step, &str)] = &[
    (Step::Decode, "decode"),
    (Step::KeyClaim, "key claim"),
    (Step::Credential, "credential"),
    (Step::Algorithm, "algorithm"),
    (Step::Signature, "signature"),
    (Step::Times, "exp and nbf"),
    (Step::MaximumExpiration, "maximum expiration"),
];

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Code> {
    let token = super::token(&args.token)?;
    let model = crate::load::checked(&args.config)?;
    let rules = rules(&model, args.route.as_deref())?;
    let verdict = judge(&model, &rules, &token, args.at.unwrap_or_else(clock::unix_s));
    print(&if args.json { verdict.as_json(&rules) } else { verdict.as_text(&rules) })?;
    Ok(if verdict.denial.is_none() { Code::Ok } else { Code::Findings })
}

fn rules(model: &Checked<Model>, route: Option<&str>) -> anyhow::Result<Rules> {
    let usage = |text: String| WithCode(Code::Usage, text);
    if let Some(name) = route {
        let route = config::route(model, name).ok_or_else(|| usage(format!("there is no route `{name}`")))?;
        let plugin = config::plugin_of_route(model, route);
        let plugin = plugin.ok_or_else(|| usage(format!("route `{name}` has no enabled `jwt` plugin")))?;
        return Ok(Rules::of(&plugin.config));
    }
    let mut all: Vec<Rules> = config::plugins(model).map(|p| Rules::of(&p.config)).collect();
    all.dedup();
    match all.len() {
        0 => Err(usage("this config has no enabled `jwt` plugin".into()).into()),
        1 => Ok(all.remove(0)),
        n => {
            Err(usage(format!("this config has {n} different `jwt` plugins; name the route (`--route`)"))
                .into())
        }
    }
}

/// What came of the checks.
struct Verdict {
    denial: Option<Denial>,
    /// Whose token it is and the credential's key, once that is proven.
    owner: Option<(String, String)>,
}

fn judge(model: &Checked<Model>, rules: &Rules, token: &str, now: u64) -> Verdict {
    let find = |key: &str| {
        let credential = config::credentials(model).find(|c| c.key == Some(key))?;
        Some((credential.consumer, credential.verifier().ok()?))
    };
    match rules.check_signature(token.as_bytes(), find) {
        Err(denial) => Verdict { denial: Some(denial), owner: None },
        Ok(signed) => {
            let denial = rules.check_times(&signed.times, now).err();
            Verdict { denial, owner: Some(owner(model, signed)) }
        }
    }
}

fn owner(model: &Model, signed: Signed<usize>) -> (String, String) {
    let consumer = &model.consumers[signed.credential];
    let name = consumer.username.as_ref().map_or(&consumer.id, |u| &u.value);
    (name.clone(), signed.key)
}

impl Verdict {
    /// `PASS`, `FAIL` or `SKIP`, and a word on it.
    fn line(&self, step: Step, rules: &Rules) -> (&'static str, String) {
        let skipped = match step {
            Step::Times => !(rules.verify_exp || rules.verify_nbf),
            Step::MaximumExpiration => rules.maximum_expiration.is_none(),
            _ => false,
        };
        match &self.denial {
            Some(denial) if denial.step == step => ("FAIL", denial.reason.body()),
            Some(denial) if denial.step < step => ("SKIP", "not reached".into()),
            _ if skipped => ("SKIP", "the config does not ask for it".into()),
            _ => ("PASS", String::new()),
        }
    }

    fn as_text(&self, rules: &Rules) -> String {
        let mut out = String::new();
        for (step, name) in STEPS {
            let (word, remark) = self.line(*step, rules);
            let _ = writeln!(out, "{}", format!("{word}  {name:<18}  {remark}").trim_end());
        }
        let _ = match (&self.denial, &self.owner) {
            (Some(denial), _) => writeln!(out, "the gateway refuses it: 401 {}", denial.reason.body()),
            (None, Some((name, key))) => {
                writeln!(out, "the gateway accepts it as consumer `{name}` (credential `{key}`)")
            }
            (None, None) => Ok(()),
        };
        out
    }

    fn as_json(&self, rules: &Rules) -> String {
        let checks: Vec<Value> = STEPS
            .iter()
            .map(|(step, name)| {
                let (word, remark) = self.line(*step, rules);
                json!({ "check": name, "result": word.to_ascii_lowercase(), "remark": remark })
            })
            .collect();
        let value = json!({
            "schema": "gw.token.verdict",
            "version": 1,
            "accepted": self.denial.is_none(),
            "consumer": self.owner.as_ref().map(|(name, _)| name),
            "credential": self.owner.as_ref().map(|(_, key)| key),
            "checks": checks,
            "answer": self.denial.as_ref().map(|d| json!({ "status": 401, "body": d.reason.body() })),
        });
        format!("{value:#}\n")
    }
}
