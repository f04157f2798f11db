//! Where a token to be looked at comes from.

use std::path::PathBuf;

use crate::exit::{Code, WithCode};

/// A token given as an argument, on standard input, or in a file.
#[derive(clap::Args, Debug)]
pub struct Source {
    /// The token; `-`, or nothing, reads it from standard input
    #[arg(value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// Read the token from a file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Source {
    /// The token, without a `Bearer` before it.
    pub fn read(&self) -> anyhow::Result<String> {
        let text = match (&self.token, &self.token_file) {
            (_, Some(path)) => super::read(path)?,
            (Some(token), _) if token != "-" => token.clone(),
            _ => std::io::read_to_string(std::io::stdin())
                .map_err(|e| WithCode(Code::Usage, format!("cannot read the token from stdin: {e}")))?,
        };
        Ok(bare(&text).to_owned())
    }
}

/// A token as people copy it: with `Authorization: Bearer` before it, and space around.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let after = |text, prefix: &str| -> Option<&str> {
        let (start, rest): (&str, &str) = str::split_at_checked(text, prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then(|| rest.trim_start())
    };
    let text = after(text, "authorization:").unwrap_or(text);
    after(text, "bearer ").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn what_stands_before_a_token_is_dropped() {
        for text in ["a.b.c", " a.b.c\n", "Bearer a.b.c", "bearer  a.b.c", "Authorization: Bearer a.b.c"] {
            assert_eq!(bare(text), "a.b.c", "{text}");
        }
        for text in ["", "é", "Bearer", "authorizatioé"] {
            assert_eq!(bare(text), text);
        }
    }
}
