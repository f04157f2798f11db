//! What providers publish, read with suspicion.

use std::time::Duration;

use serde_json::Value;

use crate::message::{FieldName, Fields, names};
use crate::token::json;

/// Bounds of how long a document counts as fresh, and what counts where it does not say.
const FRESH_MIN: Duration = Duration::from_secs(30);
const FRESH_MAX: Duration = Duration::from_secs(3600);
const FRESH: Duration = Duration::from_secs(300);

/// A provider's metadata, as far as it is used. URLs are as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub issuer: String,
    pub jwks_uri: String,
    pub authorization_endpoint: Option<String>,
    pub token_endpoint: Option<String>,
    pub userinfo_endpoint: Option<String>,
    pub introspection_endpoint: Option<String>,
    pub end_session_endpoint: Option<String>,
    /// Empty where it does not say.
    pub token_endpoint_auth_methods: Vec<String>,
    pub code_challenge_methods: Vec<String>,
}

impl Metadata {
    /// Reads the metadata of `issuer`.
    pub fn parse(document: &[u8], issuer: &str) -> Result<Self, String> {
        let value =
            json::parse(document).map_err(|e| format!("the metadata is not well-formed JSON: {e}"))?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let list = |name: &str| {
            let all = value.get(name).and_then(Value::as_array).into_iter().flatten();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let says = text("issuer").ok_or("the metadata has no `issuer`")?;
        if says != issuer {
            return Err(format!("the metadata is of issuer {says:?}, not of {issuer:?}"));
        }
        Ok(Self {
            issuer: says,
            jwks_uri: text("jwks_uri").ok_or("the metadata has no `jwks_uri`")?,
            authorization_endpoint: text("authorization_endpoint"),
            token_endpoint: text("token_endpoint"),
            userinfo_endpoint: text("userinfo_endpoint"),
            introspection_endpoint: text("introspection_endpoint"),
            end_session_endpoint: text("end_session_endpoint"),
            token_endpoint_auth_methods: list("token_endpoint_auth_methods_supported"),
            code_challenge_methods: list("code_challenge_methods_supported"),
        })
    }
}

/// How long a document is fresh, by its `Cache-Control` and `Age`, within bounds.
pub fn lifetime(fields: &Fields) -> Duration {
    let mut age = None;
    for value in fields.all(&FieldName::new("Cache-Control")).map(String::from_utf8_lossy) {
        for directive in value.split(',').map(|d| d.trim().to_ascii_lowercase()) {
            match directive.split_once('=') {
                Some(("max-age", seconds)) => age = seconds.trim_matches('"').parse().ok().or(age),
                None if matches!(&*directive, "no-store" | "no-cache") => return FRESH_MIN,
                _ => {}
            }
        }
    }
    let Some(max_age) = age.map(Duration::from_secs) else { return FRESH };
    let spent = fields.text(&FieldName::new("Age")).and_then(|a| a.trim().parse().ok()).unwrap_or(0);
    max_age.saturating_sub(Duration::from_secs(spent)).clamp(FRESH_MIN, FRESH_MAX)
}

/// Whether the content type can be that of JSON: issuers differ, but a web page is none.
pub fn check_type(fields: &Fields) -> Result<(), String> {
    let Some(written) = fields.text(&names::CONTENT_TYPE) else { return Ok(()) };
    let kind = written.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits =
        matches!(&*kind, "" | "text/json" | "text/plain" | "application/octet-stream" | "application/json")
            || (kind.starts_with("application/") && kind.ends_with("+json"));
    match fits {
        true => Ok(()),
        false => Err(format!("its content type is {kind:?}, not JSON")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_what_the_provider_says_within_bounds() {
        let check = |given: &[(&str, &str)], want: u64| {
            let mut fields = Fields::default();
            given.iter().for_each(|(n, v)| fields.push(n.as_bytes(), v.as_bytes()));
            assert_eq!(lifetime(&fields), Duration::from_secs(want), "{given:?}");
        };
        check(&[], 300);
        check(&[("Cache-Control", "public, max-age=600, must-revalidate")], 600);
        check(&[("Cache-Control", "Max-Age=\"600\""), ("Age", "100")], 500);
        check(&[("Cache-Control", "max-age=1")], 30);
        check(&[("Cache-Control", "max-age=99999999")], 3600);
        check(&[("Cache-Control", "max-age=600"), ("Age", "9999")], 30);
        check(&[("Cache-Control", "max-age=-1")], 300);
        check(&[("Cache-Control", "max-age=99999999999999999999999")], 300);
        check(&[("cache-control", "no-store"), ("Cache-Control", "max-age=600")], 30);
    }

    #[test]
    fn metadata_must_be_of_its_issuer() {
        let check = |text: &str, want: Result<&str, &str>| {
            let got = Metadata::parse(text.as_bytes(), "https://i.test");
            match (got, want) {
                (Ok(m), Ok(uri)) => assert_eq!(m.jwks_uri, uri),
                (Err(e), Err(part)) => assert!(e.contains(part), "{text}: {e}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        };
        check(r#"{"issuer":"https://i.test","jwks_uri":"https://i.test/k"}"#, Ok("https://i.test/k"));
        check(r#"{"issuer":"https://i.test/","jwks_uri":"https://i.test/k"}"#, Err("not of"));
        check(r#"{"issuer":"https://i.test"}"#, Err("no `jwks_uri`"));
        check(r#"{"issuer":7,"jwks_uri":"x"}"#, Err("no `issuer`"));
        check(r#"{"issuer":"https://i.test","issuer":"x","jwks_uri":"x"}"#, Err("well-formed"));
        check("<html>", Err("well-formed"));
        check("[]", Err("no `issuer`"));
    }

    #[test]
    fn web_pages_are_no_documents() {
        for (kind, fits) in [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("application/jwk-set+json", true),
            ("text/plain", true),
            ("text/html", false),
            ("application/xml", false),
            ("image/png", false),
        ] {
            let mut fields = Fields::default();
            fields.push(b"Content-Type", kind.as_bytes());
            assert_eq!(check_type(&fields).is_ok(), fits, "{kind}");
        }
        assert!(check_type(&Fields::default()).is_ok());
    }
}
