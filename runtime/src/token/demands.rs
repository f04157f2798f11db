//! What a config asks of a good token's claims: for whom it is, what it says, and what its bearer may do.

use serde_json::Value;

use super::check::{Denial, Reason};
use super::claims;
use super::trace::{Evidence, Trace, listed, shown};
use crate::model::schema::{Field, Kind, Record, STR, TEXT, Val};

/// Names of the checks here, but for `scope`, which comes after the times.
pub const CHECKS: &[&str] = &["typ", "aud", "at+jwt claims", "required claims"];

/// `audiences`.
pub const AUDIENCES: Field = Field::new(
    "audiences",
    Kind::Set(&TEXT),
    "`aud` must have one of these; without any it is not looked at.",
);
/// `required_claims`.
pub const REQUIRED_CLAIMS: Field = Field::new(
    "required_claims",
    Kind::Map(&STR),
    "Claims (dots descend into objects) and the text that each must be, or must have in its list; `*` takes any.",
);
/// `scopes_any`.
pub const SCOPES_ANY: Field = Field::new(
    "scopes_any",
    Kind::Set(&TEXT),
    "The claim `scope`, else `scp`, must have one of these. A good token without is answered 403 `insufficient_scope`.",
);
/// `scopes_all`.
pub const SCOPES_ALL: Field =
    Field::new("scopes_all", Kind::Set(&TEXT), "The claim `scope`, else `scp`, must have all of these.");

/// What is asked; nothing by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demands {
    /// Whether the token must be an access token by its `typ`.
    pub access_token: bool,
    pub audiences: Vec<String>,
    pub required_claims: Vec<(String, String)>,
    pub scopes: Scopes,
}

/// Scopes that a bearer must have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scopes {
    pub any: Vec<String>,
    pub all: Vec<String>,
}

impl Demands {
    /// What a record with these fields asks.
    pub fn of(record: &Record, access_token: bool) -> Self {
        let texts = |name| record.strings(name).into_iter().map(|s| s.value).collect();
        let claim = |(name, value): &(crate::source::Spanned<String>, crate::source::Spanned<Val>)| {
            match &value.value {
                Val::Str(text) => Some((name.value.clone(), text.clone())),
                _ => None,
            }
        };
        Self {
            access_token,
            audiences: texts(AUDIENCES.name),
            required_claims: record.map(REQUIRED_CLAIMS.name).iter().filter_map(claim).collect(),
            scopes: Scopes::of(record),
        }
    }

    /// Checks everything but the scopes.
    pub fn check(&self, header: &Value, claims: &Value, trace: &mut impl Trace) -> Result<(), Denial> {
        let typ = header.get("typ");
        if self.access_token {
            let evidence = || Evidence::new(shown(typ), "`JWT`, `at+jwt`, or no `typ`");
            trace.check("typ", typ_is_access(typ), evidence, || Denial::new("Bad token; invalid typ"))?;
        } else {
            trace.skip("typ", || "the config does not ask for it (`strict`)".into());
        }
        let aud = claims.get("aud");
        if self.audiences.is_empty() {
            trace.skip("aud", || "the config sets no `audiences`".into());
        } else {
            let known = || listed(self.audiences.iter().map(String::as_str));
            let evidence = || Evidence::new(shown(aud), format!("one of `audiences`: {}", known()));
            let denial =
                || Denial { reason: Reason::Claims(vec![("aud", "not this audience")]), scope: None };
            trace.check("aud", self.audience_fits(aud), evidence, denial)?;
        }
        self.access_token_claims(typ, claims, trace)?;
        if self.required_claims.is_empty() {
            trace.skip("required claims", || "the config sets no `required_claims`".into());
            return Ok(());
        }
        let missing = self.required_claims.iter().find(|(name, want)| !satisfies(claims, name, want));
        let evidence = || match missing {
            Some((name, want)) => {
                Evidence::new(shown(claims::find(claims, name)), format!("`{name}`: {want:?}"))
            }
            None => {
                let names = self.required_claims.iter().map(|(name, _)| name.as_str());
                Evidence::new("all as they must be", listed(names))
            }
        };
        let denial = || {
            let name = missing.map_or("", |(name, _)| name.as_str());
            Denial::new(format!("Claim '{name}' is not as required"))
        };
        trace.check("required claims", missing.is_none(), evidence, denial)
    }

    /// What a token that calls itself an access token by `typ` must have (RFC 9068, 2.2). Times are judged elsewhere.
    fn access_token_claims(
        &self,
        typ: Option<&Value>,
        claims: &Value,
        trace: &mut impl Trace,
    ) -> Result<(), Denial> {
        const NAME: &str = "at+jwt claims";
        if !self.access_token || !is_at_jwt(typ) {
            trace.skip(NAME, || {
                "the token's `typ` is not `at+jwt`, or the config does not ask (`strict`)".into()
            });
            return Ok(());
        }
        let text = |v: &Value| v.as_str().is_some_and(|t| !t.is_empty());
        let sound = |name: &str| match (name, claims.get(name)) {
            (_, None) => false,
            ("iat", Some(value)) => value.is_number(),
            ("aud", Some(Value::Array(list))) => !list.is_empty() && list.iter().all(text),
            (_, Some(value)) => text(value),
        };
        let missing = RFC_9068.iter().copied().find(|name| !sound(name));
        let evidence = || {
            let actual =
                missing.map_or("all there".to_owned(), |n| format!("`{n}`: {}", shown(claims.get(n))));
            Evidence::new(actual, listed(RFC_9068.iter().copied()))
        };
        let denial = || {
            let name = missing.unwrap_or_default();
            Denial::new(format!("Claim '{name}' of the access token is missing or malformed"))
        };
        trace.check(NAME, missing.is_none(), evidence, denial)
    }

    fn audience_fits(&self, aud: Option<&Value>) -> bool {
        let known = |v: &Value| v.as_str().is_some_and(|text| self.audiences.iter().any(|a| a == text));
        match aud {
            Some(Value::Array(list)) => list.iter().any(known),
            Some(value) => known(value),
            None => false,
        }
    }
}

impl Scopes {
    /// What a record with `scopes_any` and `scopes_all` asks.
    pub fn of(record: &Record) -> Self {
        let texts = |name| record.strings(name).into_iter().map(|s| s.value).collect();
        Self { any: texts(SCOPES_ANY.name), all: texts(SCOPES_ALL.name) }
    }

    /// Whether anything is asked.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty()
    }

    /// Whether a bearer with these claims may go on.
    pub fn admit(&self, claims: Option<&Value>) -> bool {
        let held = claims.map(scopes_of).unwrap_or_default();
        let has = |scope: &String| held.contains(&scope.as_str());
        self.all.iter().all(has) && (self.any.is_empty() || self.any.iter().any(has))
    }

    /// Checks the scopes of a token that is good otherwise.
    pub fn check(&self, claims: &Value, trace: &mut impl Trace) -> Result<(), Denial> {
        if self.is_empty() {
            trace.skip("scope", || "the config sets no `scopes_any` and no `scopes_all`".into());
            return Ok(());
        }
        let evidence = || Evidence::new(shown(scope_claim(claims)), self.described());
        trace.check("scope", self.admit(Some(claims)), evidence, || self.denial())
    }

    /// The answer to a bearer who lacks a scope (RFC 6750).
    pub fn denial(&self) -> Denial {
        let scopes: Vec<&str> = self.all.iter().chain(&self.any).map(String::as_str).collect();
        Denial { reason: Reason::Message("Insufficient scope".into()), scope: Some(scopes.join(" ")) }
    }

    /// What is asked, in words.
    pub fn described(&self) -> String {
        let list = |scopes: &[String]| listed(scopes.iter().map(String::as_str));
        match (self.all.is_empty(), self.any.is_empty()) {
            (true, _) => format!("one of {}", list(&self.any)),
            (false, true) => format!("all of {}", list(&self.all)),
            (false, false) => format!("all of {}, and one of {}", list(&self.all), list(&self.any)),
        }
    }
}

/// The claim that lists scopes: `scope` (RFC 9068), else `scp`, as some issuers call it.
fn scope_claim(claims: &Value) -> Option<&Value> {
    claims.get("scope").or_else(|| claims.get("scp"))
}

/// The scopes in claims, which list them in a text with spaces, or in a list.
pub fn scopes_of(claims: &Value) -> Vec<&str> {
    match scope_claim(claims) {
        Some(Value::String(text)) => text.split(' ').filter(|s| !s.is_empty()).collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether a claim is, or has in its list, the wanted text. An issuer or a subject is never one of a list.
fn satisfies(claims: &Value, name: &str, want: &str) -> bool {
    let single = matches!(name, "iss" | "sub" | "jti");
    let claim = claims::find(claims, name).filter(|v| !single || v.is_string());
    let is = |v: &Value| match v {
        Value::String(text) => text == want,
        Value::Number(number) => number.to_string() == want,
        Value::Bool(truth) => want == if *truth { "true" } else { "false" },
        _ => false,
    };
    match claim {
        None | Some(Value::Null) => false,
        Some(_) if want == "*" => true,
        Some(Value::Array(list)) => list.iter().any(is),
        Some(value) => is(value),
    }
}

/// The claims that RFC 9068 requires beside `iss` and `exp`, which are required of every token.
const RFC_9068: [&str; 5] = ["aud", "sub", "client_id", "iat", "jti"];

fn is_at_jwt(typ: Option<&Value>) -> bool {
    typ.and_then(Value::as_str).is_some_and(|typ| {
        let typ = typ.to_ascii_lowercase();
        typ.strip_prefix("application/").unwrap_or(&typ) == "at+jwt"
    })
}

/// Whether the token is of a kind that opens doors; ID tokens and logout tokens, which have a `typ` of their own, are
/// not.
pub fn typ_is_access(typ: Option<&Value>) -> bool {
    match typ {
        None => true,
        Some(Value::String(typ)) => {
            let typ = typ.to_ascii_lowercase();
            matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::trace::Quiet;
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn scopes_are_counted_in_every_form() {
        let check = |any: &[&str], all: &[&str], claims: Value, want: bool| {
            let scopes = Scopes { any: texts(any), all: texts(all) };
            assert_eq!(scopes.check(&claims, &mut Quiet).is_ok(), want, "{scopes:?} {claims}");
        };
        check(&[], &[], json!({}), true);
        check(&["a"], &[], json!({}), false);
        check(&["a", "b"], &[], json!({"scope": "x b"}), true);
        check(&["a"], &[], json!({"scope": "ab a:b"}), false);
        check(&["a"], &[], json!({"scp": ["x", "a"]}), true);
        check(&["a"], &[], json!({"scope": "", "scp": ["a"]}), false);
        check(&["a"], &[], json!({"scope": {"a": 1}}), false);
        check(&[], &["a", "b"], json!({"scope": "b a"}), true);
        check(&[], &["a", "b"], json!({"scope": "a"}), false);
        check(&["c"], &["a"], json!({"scope": "a c"}), true);
        check(&["c"], &["a"], json!({"scope": "a"}), false);
        let denial = Scopes { any: texts(&["c"]), all: texts(&["a"]) }.denial();
        assert_eq!(denial.scope.as_deref(), Some("a c"));
    }

    #[test]
    fn required_claims_are_texts_or_in_lists() {
        let check = |claim: &str, want: &str, claims: Value, good: bool| {
            let demands =
                Demands { required_claims: vec![(claim.into(), want.into())], ..Demands::default() };
            let result = demands.check(&json!({}), &claims, &mut Quiet);
            assert_eq!(result.is_ok(), good, "{claim} {want} {claims}");
        };
        check("t", "a", json!({"t": "a"}), true);
        check("t", "a", json!({"t": ["b", "a"]}), true);
        check("t", "a", json!({"t": "ab"}), false);
        check("t", "a", json!({}), false);
        check("t", "*", json!({"t": {"x": 1}}), true);
        check("t", "*", json!({"t": null}), false);
        check("o.t", "7", json!({"o": {"t": 7}}), true);
        check("iss", "a", json!({"iss": "a"}), true);
        check("iss", "a", json!({"iss": ["a"]}), false);
        check("v", "true", json!({"v": true}), true);
        check("v", "true", json!({"v": {"true": 1}}), false);
    }
}
