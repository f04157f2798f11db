//! `gw token`: test tokens for a config, and what the gateway thinks of one.

mod explain;
mod hash_key;
mod inspect;
mod judge;
mod jwks;
mod keygen;
mod mint;
mod serve;
mod source;
mod verify;

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::exit::{Code, WithCode};

/// Arguments of `gw token`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  TOKEN=$(gw token mint --config kong.yaml --consumer alice)
  curl -H \"Authorization: Bearer $TOKEN\" http://localhost:8000/orders
  gw token explain --config kong.yaml \"$TOKEN\"

Secrets come from the config or from files, never from the command line.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Make a token that this config lets in, and print it
    Mint(mint::Args),
    /// Decode a token; nothing in it is checked
    Inspect(inspect::Args),
    /// Judge a token by a config or a key set
    Verify(verify::Args),
    /// Show every check that the gateway makes of a token, and what it answers
    Explain(explain::Args),
    /// Make a secret or a pair of keys for a `jwt_secrets` entry
    Keygen(keygen::Args),
    /// Print keys as a JSON Web Key Set; public parts only
    Jwks(jwks::Args),
    /// Make a new key and put it into a key set, beside or instead of old ones
    Rotate(jwks::Rotate),
    /// Print the hash that a config can hold instead of an API key
    HashKey(hash_key::Args),
    /// Run a small issuer for development and tests: discovery, keys, tokens, introspection
    Serve(serve::Args),
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    match args.command {
        Command::Mint(args) => mint::run(args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Keygen(args) => keygen::run(&args),
        Command::Jwks(args) => jwks::run(&args),
        Command::Rotate(args) => jwks::rotate(&args),
        Command::HashKey(args) => hash_key::run(&args),
        Command::Serve(args) => serve::run(args),
    }
}

/// Writes to stdout; a reader who has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    Ok(text.map_err(|e| WithCode(Code::Usage, format!("cannot read `{}`: {e}", path.display())))?)
}

/// Seconds of a duration such as `90`, `15m` or `1h30m`.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "a duration is a number of seconds, or numbers with `s`, `m`, `h` or `d`, such as `1h30m`";
    if let Ok(plain) = text.parse() {
        return Ok(plain);
    }
    let (mut total, mut number) = (0_u64, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong().into()),
        };
        let count: u64 = number.parse().map_err(|_| wrong())?;
        number.clear();
        total = count.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or("too long a duration")?;
    }
    if number.is_empty() && !text.is_empty() { Ok(total) } else { Err(wrong().into()) }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, want) in
            [("90", Some(90)), ("15m", Some(900)), ("1h30m", Some(5400)), ("2d", Some(172_800))]
        {
            assert_eq!(seconds(text).ok(), want, "{text}");
        }
        for bad in ["", "m", "1h30", "-1h", "1w", "99999999999999999999s", "9999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
