//! `gw token hash-key`.

use std::path::PathBuf;

use gw_runtime::policy::key_auth;

use super::{print, read};
use crate::exit::{Code, WithCode};

/// Arguments of `gw token hash-key`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The key is read from standard input, a file or the environment, and never from the command line, which other users see.

Example:
  printf %s \"$KEY\" | gw token hash-key
prints what goes into the config: keyauth_credentials: [{ key_hash: \"sha256:...\" }]")]
pub struct Args {
    /// Read the key from a file
    #[arg(long, value_name = "FILE", conflicts_with = "env")]
    key_file: Option<PathBuf>,
    /// Read the key from this environment variable
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Code> {
    let usage = |text: String| WithCode(Code::Usage, text);
    let text = match (&args.key_file, &args.env) {
        (Some(path), _) => read(path)?,
        (None, Some(name)) => {
            std::env::var(name).map_err(|_| usage(format!("there is no environment variable `{name}`")))?
        }
        (None, None) => std::io::read_to_string(std::io::stdin())
            .map_err(|e| usage(format!("cannot read the key from stdin: {e}")))?,
    };
    // A file or a pipe mostly ends with a line break that is not meant.
    let key = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
    if key.is_empty() {
        return Err(usage("the key is empty".into()).into());
    }
    print(&format!("{}\n", key_auth::written(key_auth::fingerprint(key))))?;
    Ok(Code::Ok)
}
