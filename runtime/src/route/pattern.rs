//! The texts that routes match by: host patterns and regular expressions.

use std::borrow::Cow;

use regex::Regex;

/// A host pattern of a route. Texts are lower-case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum HostPattern {
    Exact(String),
    /// `*.x`: the text `.x`.
    Suffix(String),
    /// `x.*`: the text `x.`.
    Prefix(String),
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl HostPattern {
    /// Whether a lower-case host fits.
    pub(super) fn fits(&self, host: &str) -> bool {
        match self {
            Self::Exact(text) => host == text,
            Self::Suffix(text) => host.ends_with(text.as_str()),
            Self::Prefix(text) => host.starts_with(text.as_str()),
        }
    }

    /// Reads `host[:port]`, `*.x[:port]` or `x.*[:port]`.
    pub(super) fn parse(text: &str) -> Result<(Self, Option<u16>), String> {
        let (host, port) = split_port(text);
        let host = host.to_ascii_lowercase();
        let pattern = match host.matches('*').count() {
            0 => Self::Exact(host),
            1 if host.len() > 2 && host.starts_with("*.") => Self::Suffix(host[1..].to_owned()),
            1 if host.len() > 2 && host.ends_with(".*") => Self::Prefix(host[..host.len() - 1].to_owned()),
            _ => {
                return Err(format!(
                    "invalid wildcard in host `{text}`: one `*` may stand for the leftmost or the rightmost label"
                ));
            }
        };
        Ok((pattern, port))
    }
}

/// Splits a numeric port off; the colons of a bare IPv6 address are not one.
fn split_port(text: &str) -> (&str, Option<u16>) {
    let colon = match text.rfind(']') {
        Some(bracket) => text[bracket..].find(':').map(|i| bracket + i),
        None => text.find(':'),
    };
    let split = colon.and_then(|at| Some((&text[..at], text[at + 1..].parse().ok()?)));
    split.map_or((text, None), |(host, port)| (host, Some(port)))
}

/// What is wrong with a regular expression, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RegexProblem {
    pub message: String,
    pub help: Option<String>,
}

/// Compiles a regular expression of the linear-time engine.
pub(super) fn compile(written: &str, regex: &str) -> Result<Regex, RegexProblem> {
    Regex::new(regex).map_err(|error| problem(written, &error))
}

fn problem(written: &str, error: &regex::Error) -> RegexProblem {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or("").trim().trim_start_matches("error: ").to_owned();
    let help = if text.contains("look-around") {
        Some(
            "this engine matches in linear time and so has no look-around; give what must not match a route of its own \
             with a higher `regex_priority`, or list the allowed forms: `~/a(?:[^b]|$)` for `~/a(?!b)`"
                .to_owned(),
        )
    } else if text.contains("backreferences") {
        Some(
            "this engine matches in linear time and so has no backreferences; write the repeated part out, or match \
             it more loosely and compare behind the gateway"
                .to_owned(),
        )
    } else if matches!(error, regex::Error::CompiledTooBig(_)) {
        Some(
            "smaller bounds in `{m,n}`, or `[0-9]` and `[A-Za-z]` for `\\d` and `\\w`, make it smaller"
                .to_owned(),
        )
    } else {
        None
    };
    RegexProblem { message: format!("invalid regex `{written}`: {reason}"), help }
}

/// Text that everything matched by `^regex` begins with. May be shorter than it could be, never wrong.
pub(super) fn literal_prefix(regex: &str) -> Cow<'_, str> {
    if has_top_level_alternation(regex) {
        return Cow::Borrowed("");
    }
    let mut prefix = String::new();
    let mut chars = regex.chars().peekable();
    while let Some(c) = chars.next() {
        let literal = match c {
            '\\' => match chars.next() {
                Some(escaped) if ".-/+*?()|[]{}^$\\~#&".contains(escaped) => escaped,
                _ => break,
            },
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => break,
            _ => c,
        };
        match chars.peek() {
            // Perhaps zero times.
            Some('*' | '?' | '{') => break,
            _ => prefix.push(literal),
        }
    }
    Cow::Owned(prefix)
}

fn has_top_level_alternation(regex: &str) -> bool {
    let (mut groups, mut classes) = (0_usize, 0_usize);
    let mut chars = regex.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '[' => {
                classes += 1;
                chars.next_if_eq(&'^');
                chars.next_if_eq(&']');
            }
            ']' => classes = classes.saturating_sub(1),
            '(' if classes == 0 => groups += 1,
            ')' if classes == 0 => groups = groups.saturating_sub(1),
            '|' if classes == 0 && groups == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_wildcard_and_port() {
        let cases = [
            ("A.test", Ok("a.test"), None),
            ("a.test:80", Ok("a.test"), Some(80)),
            ("*.a.test:8443", Ok("*.a.test"), Some(8443)),
            ("a.*", Ok("a.*"), None),
            ("a.*:1", Ok("a.*"), Some(1)),
            ("[::1]:80", Ok("[::1]"), Some(80)),
            ("[::1]", Ok("[::1]"), None),
            ("*.a.*", Err("wildcard"), None),
            ("a.*.b", Err("wildcard"), None),
            ("*", Err("wildcard"), None),
            ("*a.test", Err("wildcard"), None),
        ];
        for (text, expected, port) in cases {
            match (HostPattern::parse(text), expected) {
                (Ok((pattern, found)), Ok(shown)) => {
                    assert_eq!((pattern.to_string().as_str(), found), (shown, port), "{text}");
                }
                (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn literal_prefixes_are_never_too_long() {
        let cases = [
            (r"/users/\d+/profile", "/users/"),
            (r"/v1\.0/x+", "/v1.0/x"),
            (r"/colou?r", "/colo"),
            (r"/a{0,2}b", "/"),
            (r"/a|/b", ""),
            (r"/(a|b)", "/"),
            (r"/[a|b]x|/y", ""),
            (r"/[a|b]", "/"),
            (r"/[]|]z", "/"),
            (r"(?i)/abc", ""),
            (r"/abc$", "/abc"),
            (r"/reg%65x/\d", "/reg%65x/"),
            (r"/a\b", "/a"),
            (r"/é*", "/"),
        ];
        for (regex, expected) in cases {
            assert_eq!(literal_prefix(regex), expected, "{regex}");
        }
    }

    #[test]
    fn what_the_engine_lacks_comes_with_another_way() {
        for (regex, message, help) in [
            ("/a(?!b)", "look-around", Some("(?:[^b]|$)")),
            (r"/(a)\1", "backreferences", Some("write the repeated part out")),
            ("/a(b", "unclosed group", None),
        ] {
            let problem = compile(regex, &format!("^{regex}")).unwrap_err();
            assert!(problem.message.starts_with("invalid regex `"), "{}", problem.message);
            assert!(problem.message.contains(message), "{}", problem.message);
            assert_eq!(help.is_some(), problem.help.is_some(), "{regex}");
            assert!(problem.help.unwrap_or_default().contains(help.unwrap_or("")), "{regex}");
        }
    }
}
