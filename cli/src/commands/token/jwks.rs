//! `gw token jwks` and `gw token rotate`: key sets as issuers publish them.

use std::path::{Path, PathBuf};

use gw_runtime::token::algorithm::Family;
use gw_runtime::token::{Algorithm, publish};
use serde_json::{Value, json};

use super::mint::algorithm;
use super::{keygen, print, read};
use crate::certs::Pair;
use crate::certs::store::Store;
use crate::exit::{Code, WithCode};

/// Arguments of `gw token jwks`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Only public parts are printed unless --private is given. `kid` is the key's thumbprint (RFC 7638).")]
pub struct Args {
    /// Private or public keys in PEM
    #[arg(value_name = "PEM", required = true)]
    files: Vec<PathBuf>,
    /// The algorithm that the keys are for; otherwise RS256, ES256, ES384, ES512 or EdDSA, by the kind of key
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    alg: Option<Algorithm>,
    /// Print the private parts too
    #[arg(long)]
    private: bool,
}

/// Arguments of `gw token rotate`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A rotation without a refused token takes three steps: publish the set with the new key; sign with the new key once every \
verifier has fetched the set; retire the old key once the last token that it signed has expired.

Example:
  gw token rotate --jwks jwks.json --alg ES256 --out new-key
  gw token rotate --jwks jwks.json --retire OLD_KID")]
pub struct Rotate {
    /// The set, which is rewritten; a new one is begun where there is none
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// The algorithm of the new key
    #[arg(long, value_name = "ALG", value_parser = algorithm, required_unless_present = "retire", requires = "out")]
    alg: Option<Algorithm>,
    /// Path of the new key's files, without ending
    #[arg(long, value_name = "NAME", requires = "alg")]
    out: Option<PathBuf>,
    /// Remove the key with this `kid`; may be repeated
    #[arg(long, value_name = "KID")]
    retire: Vec<String>,
}

/// Prints a set.
pub fn run(args: &Args) -> anyhow::Result<Code> {
    let mut keys = Vec::new();
    for path in &args.files {
        let jwk = of_pem(&read(path)?, args.alg, args.private)
            .map_err(|e| WithCode(Code::Usage, format!("`{}`: {e}", path.display())))?;
        keys.push(jwk);
    }
    print(&format!("{:#}\n", json!({ "keys": keys })))?;
    Ok(Code::Ok)
}

/// The key of a PEM; without an algorithm the first that takes keys of its kind.
pub fn of_pem(pem: &str, algorithm: Option<Algorithm>, private: bool) -> Result<Value, String> {
    use Algorithm::{ES256, ES384, ES512, EdDSA, RS256};
    let candidates = match algorithm {
        Some(one) => vec![one],
        None => vec![RS256, ES256, ES384, ES512, EdDSA],
    };
    let mut last = String::new();
    for algorithm in candidates {
        match publish::jwk(algorithm, pem, private) {
            Ok(jwk) => return Ok(jwk),
            Err(why) => last = why,
        }
    }
    Err(match algorithm {
        Some(_) => last,
        None => "there is no RSA, P-256, P-384, P-521 or Ed25519 key in it".into(),
    })
}

/// Changes a set.
pub fn rotate(args: &Rotate) -> anyhow::Result<Code> {
    let usage = |text: String| WithCode(Code::Usage, text);
    let mut keys = match args.jwks.exists() {
        true => {
            let set: Value = serde_json::from_str(&read(&args.jwks)?)
                .map_err(|e| usage(format!("`{}` is not JSON: {e}", args.jwks.display())))?;
            let keys = set["keys"].as_array().cloned();
            keys.ok_or_else(|| usage(format!("`{}` has no list `keys`", args.jwks.display())))?
        }
        false => Vec::new(),
    };
    if keys.iter().any(|k| k["kty"] == "oct" || k.get("d").is_some()) {
        let text = format!("`{}` holds secrets, so it is no set to publish", args.jwks.display());
        return Err(usage(text).into());
    }
    for kid in &args.retire {
        let before = keys.len();
        keys.retain(|k| k["kid"].as_str() != Some(kid));
        if keys.len() == before {
            let known: Vec<&str> = keys.iter().filter_map(|k| k["kid"].as_str()).collect();
            return Err(usage(format!("there is no key `{kid}`; there are {}", known.join(", "))).into());
        }
    }
    if let (Some(algorithm), Some(out)) = (args.alg, &args.out) {
        if algorithm.family() == Family::Hmac {
            return Err(usage("a secret is not published".into()).into());
        }
        let (private, public) = keygen::key_pair(algorithm)?;
        let jwk = publish::jwk(algorithm, &public, false).map_err(usage)?;
        write_pair(out, Pair { certificate: public, key: private })?;
        print(&format!("{}\n", jwk["kid"].as_str().unwrap_or_default()))?;
        keys.push(jwk);
    }
    if keys.is_empty() {
        return Err(
            usage("the set would be empty; make a new key before the last one is retired".into()).into()
        );
    }
    replace(&args.jwks, &format!("{:#}\n", json!({ "keys": keys })))?;
    Ok(Code::Ok)
}

fn write_pair(out: &Path, pair: Pair) -> anyhow::Result<()> {
    let name = out.file_name().and_then(|n| n.to_str());
    let name = name.ok_or_else(|| WithCode(Code::Usage, "`--out` has no file name".into()))?;
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(".".as_ref());
    Store::new(folder, false).write(name, &pair)
}

/// Writes beside the target and then gives the file its name, so that a reader sees the old or the new set.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        WithCode(Code::Environment, format!("cannot write `{}`: {e}", path.display())).into()
    })
}
