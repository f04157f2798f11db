//! Secrets in a text that is no YAML, of which nothing is known but its lines.
//!
//! `key VALUE` without its colon is a syntax error, and the value a secret. So on lines that stand, by their indentation,
//! below a name that has to do with secrets, only names are shown.

use std::ops::Range;

use gw_runtime::model::CredentialKind;

/// A name that has one of these in it, has something to do with secrets.
const TELLING: &[&str] = &[
    "auth",
    "jwt",
    "credential",
    "secret",
    "password",
    "passwd",
    "redis",
    "certificate",
    "config",
    "keys",
    "parameters",
    "token",
];

/// Lines that are looked at above an excerpt, to find what it stands below.
const ABOVE: usize = 500;

/// Everything but names on telling lines of `range`.
pub fn values(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut start = range.start;
    for line in text[range].split_inclusive('\n') {
        if is_telling(text, start, line) {
            out.extend(words(line).filter(|w| !is_name(line, w)).map(|w| start + w.start..start + w.end));
        }
        start += line.len();
    }
    out
}

/// Whether a line or one that it stands below names something with secrets.
fn is_telling(text: &str, start: usize, line: &str) -> bool {
    let mut depth = depth(line);
    let above = text[..start].lines().rev().take(ABOVE).filter(|above| {
        let encloses = !above.trim().is_empty() && self::depth(above) < depth;
        if encloses {
            depth = self::depth(above);
        }
        encloses
    });
    std::iter::once(line).chain(above).any(|line| {
        let line = line.to_ascii_lowercase();
        TELLING.iter().any(|name| line.contains(name))
    })
}

/// How far in a line stands. The list of a key may stand as far in as the key itself.
fn depth(line: &str) -> usize {
    let inner = line.trim_start_matches([' ', '\t']);
    2 * (line.len() - inner.len()) + usize::from(inner.starts_with('-'))
}

/// Runs of anything but spaces and YAML's own signs.
fn words(line: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let sign = |c: char| c.is_whitespace() || ",[]{}\"':".contains(c);
        let start = at + line[at..].find(|c| !sign(c))?;
        at = line[start..].find(sign).map_or(line.len(), |i| start + i);
        Some(start..at)
    })
}

/// A field of a credential, or what a colon and a space follow. A lone `-` is no value either.
fn is_name(line: &str, word: &Range<usize>) -> bool {
    let name = &line[word.clone()];
    let known = || {
        CredentialKind::ALL.iter().any(|k| k.entity() == name || k.fields().iter().any(|f| f.name == name))
    };
    let rest = line[word.end..].trim_start_matches(['"', '\'']);
    let before_colon =
        || rest.strip_prefix(':').is_some_and(|r| r.is_empty() || r.starts_with([' ', '\n', '\r']));
    name == "-" || known() || before_colon()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_shown_where_secrets_may_be() {
        for (text, want) in [
            ("- key VALUE\n", "- key VALUE\n"),
            ("keyauth_credentials:\n- key VALUE\n", "keyauth_credentials:\n- key *****\n"),
            (
                "jwt_secrets:\n- key:VALUE\n  tags: [t]\nx: y\n",
                "jwt_secrets:\n- key:*****\n  tags: [*]\nx: y\n",
            ),
            ("{\"redis\": {\"host\": \"h\" \"p\"}}", "{\"redis\": {\"host\": \"*\" \"*\"}}"),
        ] {
            let mut shown = text.to_owned();
            for place in values(text, 0..text.len()) {
                shown.replace_range(place.clone(), &"*".repeat(place.len()));
            }
            assert_eq!(shown, want);
        }
    }
}
