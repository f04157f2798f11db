//! `gw token mint`.

use std::path::PathBuf;

use gw_runtime::check::Checked;
use gw_runtime::clock;
use gw_runtime::model::Model;
use gw_runtime::token::Algorithm;
use gw_runtime::token::mint::{self, Broken, MintRequest};
use serde_json::Value;

use super::{judge, print, read, seconds};
use crate::exit::Code;

/// Arguments of `gw token mint`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The token has the claim that names the credential, `sub`, `iat`, `exp`, and `nbf` where the config verifies it.
A credential or issuer with public keys needs a private one: `--key-file`. With --issuer the token is that issuer's, for \
the subject that --consumer names, with the audience, scopes and claims that the config asks for.

--broken makes a token that must be refused, and says so where the config would let it in: \
expired, nbf, aud, iss, sig, alg-none, hs-confusion, kid, typ, crit, no-exp.")]
pub struct Args {
    /// The config whose `jwt` plugin shall accept the token; `-` is standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Username or id of the consumer
    #[arg(long, value_name = "NAME", required_unless_present = "issuer")]
    consumer: Option<String>,
    /// Make a token of this issuer of the config, instead of a consumer's credential
    #[arg(long, value_name = "ISS")]
    issuer: Option<String>,
    /// Name or id of the route that shall accept it; otherwise every route with a `jwt` plugin
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// How long it is good, such as `15m`; an hour, or less where the config says so
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    exp: Option<u64>,
    /// A further claim; VALUE is JSON if it reads as such, else text; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// Use the credential or key of this algorithm
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    alg: Option<Algorithm>,
    /// Use the credential with this key; for an issuer, the `kid` to name
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The private key in PEM, for a credential that has the public one
    #[arg(long, value_name = "PEM")]
    key_file: Option<PathBuf>,
    /// Make a token that must be refused, for this reason
    #[arg(long, value_name = "KIND", value_parser = broken)]
    broken: Option<Broken>,
    /// How many tokens, each with a `jti` of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// One token a line, or CSV with the columns `consumer` and `token`
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
}

/// How tokens are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Lines,
    Csv,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let private_key = args.key_file.as_deref().map(read).transpose()?;
    let model = crate::load::checked(&args.config)?;
    let mut request = MintRequest {
        consumer: args.consumer.unwrap_or_default(),
        issuer: args.issuer,
        route: args.route,
        lifetime: args.exp,
        claims: args.claims,
        algorithm: args.alg,
        key: args.key,
        private_key,
        broken: args.broken,
    };
    if args.format == Format::Csv {
        print("consumer,token\n")?;
    }
    let claims = request.claims.clone();
    for _ in 0..args.count {
        if args.count > 1 {
            request.claims = claims.clone();
            request.claims.push(("jti".into(), uuid::Uuid::new_v4().to_string().into()));
        }
        let token = mint::mint(&model, &request, clock::unix_s())?;
        print(&match args.format {
            Format::Lines => format!("{token}\n"),
            Format::Csv => format!("{},{token}\n", csv(&request.consumer)),
        })?;
        if request.broken.is_some() {
            warn_if_accepted(&model, request.route.as_deref(), &token);
        }
    }
    Ok(Code::Ok)
}

/// A broken token that the config lets in is a finding about the config.
fn warn_if_accepted(model: &Checked<Model>, route: Option<&str>, token: &str) {
    let question = judge::Question { token, route, now: clock::unix_s(), offline: false };
    if let Ok(judged) = judge::judge(model, &question)
        && judged.reply.is_none()
        && !judged.anonymous
    {
        eprintln!(
            "warning: route `{}` lets this broken token in, because the config does not ask",
            judged.route
        );
    }
}

/// A field of CSV (RFC 4180).
fn csv(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn broken(text: &str) -> Result<Broken, String> {
    let found = Broken::ALL.iter().find(|(name, _)| *name == text).map(|(_, how)| *how);
    found.ok_or_else(|| {
        let names: Vec<&str> = Broken::ALL.iter().map(|(name, _)| *name).collect();
        format!("the kinds are {}", names.join(", "))
    })
}

/// An algorithm by name.
pub fn algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::parse(&text.to_ascii_uppercase())
        .or_else(|| text.eq_ignore_ascii_case("eddsa").then_some(Algorithm::EdDSA))
        .ok_or_else(|| {
            let names: Vec<&str> = Algorithm::ALL.iter().map(|a| a.name()).collect();
            format!("the algorithms are {}", names.join(", "))
        })
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("a claim is written NAME=VALUE")?;
    if name.is_empty() {
        return Err("a claim is written NAME=VALUE".into());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_json_or_text() {
        for (text, want) in [
            ("a=b", Some(("a", json!("b")))),
            ("a=1", Some(("a", json!(1)))),
            ("a=true", Some(("a", json!(true)))),
            ("a=[\"x\"]", Some(("a", json!(["x"])))),
            ("a=\"1\"", Some(("a", json!("1")))),
            ("a=007", Some(("a", json!("007")))),
            ("a=b=c", Some(("a", json!("b=c")))),
            ("a=", Some(("a", json!("")))),
            ("a", None),
            ("=b", None),
        ] {
            assert_eq!(claim(text).ok(), want.map(|(n, v)| (n.to_owned(), v)), "{text}");
        }
    }

    #[test]
    fn algorithms_are_found_in_any_case() {
        assert_eq!(algorithm("es256").ok(), Some(Algorithm::ES256));
        assert_eq!(algorithm("EDDSA").ok(), Some(Algorithm::EdDSA));
        assert!(algorithm("none").is_err());
    }
}
