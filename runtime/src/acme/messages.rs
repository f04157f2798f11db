//! What an ACME server says: its documents, read strictly.

use serde::Deserialize;

/// Where the server does what (RFC 8555 section 7.1.1).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Directory {
    pub new_nonce: String,
    pub new_account: String,
    pub new_order: String,
    #[serde(default)]
    pub meta: Meta,
}

/// What the server demands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    #[serde(default)]
    pub external_account_required: bool,
}

/// An order for a certificate (section 7.1.3).
#[derive(Debug, Clone, Deserialize)]
pub struct Order {
    pub status: Status,
    #[serde(default)]
    pub authorizations: Vec<String>,
    pub finalize: String,
    pub certificate: Option<String>,
    pub error: Option<Problem>,
}

/// Whether a name is ours (section 7.1.4).
#[derive(Debug, Clone, Deserialize)]
pub struct Authorization {
    pub status: Status,
    pub identifier: Identifier,
    #[serde(default)]
    pub challenges: Vec<Challenge>,
}

/// A name.
#[derive(Debug, Clone, Deserialize)]
pub struct Identifier {
    pub value: String,
}

/// One way to prove it (section 8).
#[derive(Debug, Clone, Deserialize)]
pub struct Challenge {
    #[serde(rename = "type")]
    pub kind: String,
    pub url: String,
    #[serde(default)]
    pub token: String,
    pub error: Option<Problem>,
}

/// How far an order, an authorization or a challenge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
    Deactivated,
    Expired,
    Revoked,
}

/// What the server holds against a request (section 6.7).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Problem {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub detail: String,
    #[serde(default)]
    pub subproblems: Vec<Problem>,
}

/// Longest text of a server that is handed on.
const DETAIL_MAX: usize = 300;

impl Problem {
    /// The type without what all types begin with.
    pub fn name(&self) -> &str {
        self.kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(&self.kind)
    }

    /// What is wrong, for a log line.
    pub fn text(&self) -> String {
        let mut all = vec![self];
        all.extend(&self.subproblems);
        let texts: Vec<String> =
            all.iter().map(|p| format!("{} (`{}`)", plain(&p.detail), plain(p.name()))).collect();
        let text = texts.join("; ");
        match text.char_indices().nth(2 * DETAIL_MAX) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        }
    }
}

/// A server's text on one line, shortened.
fn plain(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(DETAIL_MAX).collect::<String>().trim().to_owned()
}

/// Whether a challenge's token is one: what is put into paths and answers must not be anything else (section 8.3).
pub fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (16..=256).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_and_nothing_else() {
        let order = r#"{"status":"pending","authorizations":["https://a.test/1"],"finalize":"https://a.test/f","x":1}"#;
        let order: Order = serde_json::from_str(order).unwrap();
        assert_eq!((order.status, order.authorizations.len()), (Status::Pending, 1));
        for bad in
            ["", "[]", "{}", r#"{"status":"odd","finalize":"f"}"#, r#"{"status":"valid","finalize":1}"#]
        {
            assert!(serde_json::from_str::<Order>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn problems_are_one_short_line() {
        let check = |text: &str, want: &str| {
            assert_eq!(serde_json::from_str::<Problem>(text).unwrap().text(), want);
        };
        let kind = "urn:ietf:params:acme:error:dns";
        check(&format!(r#"{{"type":"{kind}","detail":"no\nsuch name"}}"#), "no such name (`dns`)");
        check(
            r#"{"type":"x","detail":"both","subproblems":[{"type":"y","detail":"one"}]}"#,
            "both (`x`); one (`y`)",
        );
        let long = Problem { detail: "é".repeat(10_000), ..Problem::default() };
        assert!(long.text().chars().count() < 320);
    }

    #[test]
    fn tokens_are_base64url() {
        for good in ["0123456789abcdef", "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", "short", "0123456789abcde/", "../../../etc/passwd", "0123456789abcdef\r\n"] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
