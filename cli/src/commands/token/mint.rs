//! `gw token mint`.

use std::path::PathBuf;

use gw_runtime::clock;
use gw_runtime::token::Algorithm;
use gw_runtime::token::mint::{self, MintRequest};
use serde_json::Value;

use super::{print, read, seconds};
use crate::exit::Code;

/// Arguments of `gw token mint`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The token has the claim that names the credential, `sub`, `iat`, `exp`, and `nbf` where the config verifies it.
A credential with a public key needs the private one: `--key-file`.")]
pub struct Args {
    /// The config whose `jwt` plugin shall accept the token; `-` is standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Username or id of the consumer
    #[arg(long, value_name = "NAME")]
    consumer: String,
    /// Name or id of the route that shall accept it; otherwise every route with a `jwt` plugin
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// How long it is good, such as `15m`; an hour, or less where the config says so
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    exp: Option<u64>,
    /// A further claim; VALUE is JSON if it reads as such, else text; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// Use the consumer's credential of this algorithm
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    alg: Option<Algorithm>,
    /// Use the consumer's credential with this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The private key in PEM, for a credential that has the public one
    #[arg(long, value_name = "PEM")]
    key_file: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let private_key = args.key_file.as_deref().map(read).transpose()?;
    let model = crate::load::checked(&args.config)?;
    let request = MintRequest {
        consumer: args.consumer,
        route: args.route,
        lifetime: args.exp,
        claims: args.claims,
        algorithm: args.alg,
        key: args.key,
        private_key,
    };
    let token = mint::mint(&model, &request, clock::unix_s())?;
    print(&format!("{token}\n"))?;
    Ok(Code::Ok)
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
