//! Keeps secrets out of excerpts: a finding may point at a line that holds a password.
//!
//! Two nets: the places that reading the config found to be secret or not known to be open, and, for a file that could
//! not be read far enough, words that name secrets.

mod unreadable;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use gw_runtime::diag::suggest;
use gw_runtime::model::Model;
use gw_runtime::source::{FileId, Sources, Span};

/// Places whose text is never shown.
#[derive(Default)]
pub struct Secrets {
    places: HashMap<FileId, Vec<Range<usize>>>,
    unparsed: HashSet<FileId>,
}

/// A key that ends in one of these names a secret, whatever entity it belongs to.
const WORDS: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "secret_v1",
    "private_key",
    "token",
    "api_key",
    "api-key",
    "apikey",
    "authorization",
];

impl Secrets {
    /// Remembers the secret places of a config, and every private key in the files, readable as a config or not.
    pub fn add(&mut self, sources: &Sources, model: &Model) {
        for (file, source) in sources.iter() {
            self.places.entry(file).or_insert_with(|| pem_keys(&source.text));
        }
        model.hidden.iter().for_each(|span| self.add_span(*span));
        self.unparsed.extend(&model.unparsed);
    }

    /// Whether a place holds anything that is not shown.
    pub fn touch(&self, span: Span) -> bool {
        let (start, end) = (span.start as usize, span.end as usize);
        self.places.get(&span.file).is_some_and(|all| all.iter().any(|s| s.start < end && start < s.end))
    }

    fn add_span(&mut self, span: Span) {
        self.places.entry(span.file).or_default().push(span.start as usize..span.end as usize);
    }

    /// The lines `range` of a file's text with every secret blotted out, as many bytes long as before.
    pub fn redact(&self, file: FileId, text: &str, range: Range<usize>) -> String {
        let mut bytes = text.as_bytes()[range.clone()].to_vec();
        let mut blot = |secret: Range<usize>| {
            let (start, end) = (secret.start.max(range.start), secret.end.min(range.end));
            if start < end && !is_reference(&text[secret]) {
                // Indentation stays, so that the shape of the file can be recognised.
                let mut indentation = false;
                for b in &mut bytes[start - range.start..end - range.start] {
                    match *b {
                        b'\n' | b'\r' => indentation = true,
                        b' ' if indentation => {}
                        b'"' | b'\'' => indentation = false,
                        _ => {
                            *b = b'*';
                            indentation = false;
                        }
                    }
                }
            }
        };
        let known = self.places.get(&file).into_iter().flatten();
        for secret in known.filter(|s| s.start < range.end && range.start < s.end) {
            if text.get(secret.clone()).is_some() {
                blot(secret.clone());
            }
        }
        for secret in named_secrets(text, range.clone()).into_iter().chain(user_info(text, range.clone())) {
            blot(secret);
        }
        if self.unparsed.contains(&file) {
            unreadable::values(text, range.clone()).into_iter().for_each(blot);
        }
        // Whole characters were overwritten, or none: a span from either net lies on character boundaries.
        String::from_utf8(bytes).unwrap_or_else(|_| "(not shown)".to_owned())
    }
}

fn is_word(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|w| name == *w || name.strip_suffix(w).is_some_and(|rest| rest.ends_with(['_', '-'])))
}

/// A value that only names where the secret comes from.
fn is_reference(value: &str) -> bool {
    let value = value.trim_matches(['"', '\'', ' ']);
    let env = value.starts_with("${") && value.ends_with('}') && !value.contains(":-");
    env || value.starts_with("{vault://")
}

/// Bytes above an excerpt in which a secret that reaches into it may begin.
const ABOVE: usize = 4096;

/// Values behind `secret:`, `password:` and their like, also misspelt, in block, flow and JSON style.
fn named_secrets(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let begin = (range.start.saturating_sub(ABOVE)..range.start)
        .find(|&i| i == 0 || bytes[i - 1] == b'\n')
        .unwrap_or(range.start);
    let mut out = Vec::new();
    for colon in (begin..range.end).filter(|&i| bytes[i] == b':') {
        let line = text[..colon].rfind('\n').map_or(0, |i| i + 1);
        let before = text[line..colon].trim_end_matches(['"', '\'', ' ']);
        let name_start =
            before.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).map_or(0, |i| i + 1);
        let name = before.get(name_start..).unwrap_or("");
        let rest = &text[colon + 1..range.end];
        let value = rest.trim_start_matches(' ');
        let start = colon + 1 + (rest.len() - value.len());
        // A list under a name like `secrets` has entries with names of their own.
        let slip = |nearly: bool| nearly && !value.starts_with(['[', '{', '\n', '\r']);
        let is_key = || name == "key" || slip(suggest::nearest(name, ["key"]).is_some());
        if !(is_word(name) || slip(is_nearly_word(name)) || is_key() && in_key_auth(&text[..colon])) {
            continue;
        }
        let column = before.find(|c: char| c != ' ' && c != '-').unwrap_or(0);
        let end = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.len(), |i| i + 2),
            Some('|' | '>' | '\n' | '\r') => block_end(value, column),
            _ => value[..value.find(['\n', ',', '}', ']']).unwrap_or(value.len())].trim_end().len(),
        };
        // `${VAR}` ends in a brace of its own.
        let end = if value.starts_with("${") { value.find('}').map_or(end, |i| i + 1) } else { end };
        out.push(start..start + end);
    }
    out
}

/// Where a value ends that begins on the next line: at the first line that is not further in than its key.
fn block_end(value: &str, column: usize) -> usize {
    let mut end = value.find('\n').map_or(value.len(), |i| i + 1);
    for line in value[end..].split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if indent <= column && !line.trim().is_empty() {
            break;
        }
        end += line.len();
    }
    end
}

/// Whether a key is a slip of the pen for one that names a secret.
fn is_nearly_word(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (5..=20).contains(&name.len()) && WORDS.iter().any(|w| suggest::distance(&name, w) <= 2)
}

/// Whether the last list of credentials that was opened is one whose `key` is the secret.
fn in_key_auth(before: &str) -> bool {
    let last = |list: &str| before.rfind(list);
    last("keyauth").max(last("key_auth")) > last("jwt_secrets").max(last("certificates"))
}

/// User and password in URLs: `redis://:password@host`.
fn user_info(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let starts = text[range.clone()].match_indices("://").map(|(i, mark)| range.start + i + mark.len());
    let info = |start: usize| {
        let authority = &text[start..range.end];
        let end = authority.find(['/', '"', '\'', ' ', '\n', ',', '}']).unwrap_or(authority.len());
        authority[..end].rfind('@').map(|at| start..start + at)
    };
    starts.filter_map(info).collect()
}

/// Private keys in PEM, wherever they stand.
fn pem_keys(text: &str) -> Vec<Range<usize>> {
    const MARK: &str = "PRIVATE KEY-----";
    let mut out = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(MARK) {
        let start = from + at + MARK.len();
        let line = text[..start].rfind('\n').map_or(0, |i| i + 1);
        if text[line..start].rfind("-----END") > text[line..start].rfind("-----BEGIN") {
            from = start;
            continue;
        }
        let end = text[start..].find("-----END").map_or(text.len(), |i| start + i);
        out.push(start..end);
        from = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(text: &str) -> String {
        Secrets::default().redact(FileId(0), text, 0..text.len())
    }

    #[test]
    fn values_with_a_telling_name_are_blotted_out() {
        for (text, want) in [
            ("secret: abc", "secret: ***"),
            ("- { key: a, secret: \"a,c\", x: 1 }", "- { key: a, secret: \"***\", x: 1 }"),
            ("{\"password\": \"pw\", \"name\": \"n\"}", "{\"password\": \"**\", \"name\": \"n\"}"),
            ("redis_password: é", "redis_password: **"),
            ("secret: \"${NAME}\"", "secret: \"${NAME}\""),
            ("secret: ${NAME}", "secret: ${NAME}"),
            ("secret: \"${NAME:-abc}\"", "secret: \"************\""),
            ("password: '{vault://env/pw}'", "password: '{vault://env/pw}'"),
            ("secret_is_base64: true", "secret_is_base64: true"),
            ("name: secret", "name: secret"),
            ("keyauth_credentials: [{key: ab}]", "keyauth_credentials: [{key: **}]"),
            ("jwt_secrets: [{key: ab}]", "jwt_secrets: [{key: ab}]"),
            ("- \"Authorization:Basic abc\"", "- \"Authorization:*********\""),
            ("url: redis://u:p@h:1/0", "url: redis://***@h:1/0"),
            ("passwrd: pw", "passwrd: **"),
            ("{secrett: pw}", "{secrett: **}"),
            ("secret:\n  pw\nname: x", "secret:\n  **\nname: x"),
            ("- secret: >-\n    pw\n  name: x", "- secret: **\n    **\n  name: x"),
            ("keyauth_credentials: [{kee: ab}]", "keyauth_credentials: [{kee: **}]"),
            ("url: http://h/a@b", "url: http://h/a@b"),
        ] {
            assert_eq!(redact(text), want);
        }
    }

    #[test]
    fn private_keys_are_blotted_out() {
        let text = "key: |\n  -----BEGIN PRIVATE KEY-----\n  MIIB\n  -----END PRIVATE KEY-----\nname: x\n";
        let mut sources = Sources::default();
        let file = sources.add("t.yaml", text);
        let mut secrets = Secrets::default();
        secrets.add(&sources, &Model::default());
        let out = secrets.redact(file, text, 0..text.len());
        assert!(!out.contains("MIIB"), "{out}");
        assert!(out.contains("name: x"), "{out}");
        assert_eq!(out.len(), text.len());
    }
}
